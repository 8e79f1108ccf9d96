"""The k nearest references of each query by cosine, exact; its own row can be left out."""

import numpy as np

from impart_utils.zeroshot import unit

BACKENDS = ("sklearn", "torch", "faiss")


class Retriever:
    """Finds the references most similar to a query (paper, Sec. 3.1: "the top k entries retrieved").

    As in the paper's code, similarity is the cosine between image features; texts play no part in it.

    Parameters
    ----------
    reference_features : array (m, d), any norms: a normalized copy is kept
    backend : "sklearn" (default), "torch" (GPU where there is one) or "faiss" (the `scale` extra)
        All are exact and differ only where references tie. scikit-learn is right up to about 100,000
        references, the others above.

    Attributes
    ----------
    references : float32 array (m, d), unit rows

    Raises
    ------
    ValueError : unknown backend, or references that are zero, not finite or not (m, d).
    """

    def __init__(self, reference_features, *, backend="sklearn"):
        if backend not in BACKENDS:
            raise ValueError(f"Unknown backend {backend!r}. Known backends: {', '.join(BACKENDS)}.")
        self.references = _unit_rows(reference_features, "reference_features")
        self.backend = backend

    def search(self, image_features, top_k, *, exclude=None):
        """The `top_k` most similar references of each query, best first; of equal ones the first row.

        Parameters
        ----------
        image_features : array (n, d), any norms
        top_k : int, k
        exclude : int array (n,) or list of n int arrays, optional
            Leave-one-out: the query's own row among the references, or -1 for none. Where copies of
            the query are among the references too, a list of arrays with all their rows.

        Returns
        -------
        similarities : float32 array (n, k), cosines, falling
        indices : int64 array (n, k), rows of the references

        Raises
        ------
        ValueError : another dimension than the references', fewer than `top_k` references left, rows to
            exclude that don't exist, or queries that are zero or not finite.
        """
        queries = _unit_rows(image_features, "image_features")
        m, d = self.references.shape
        if queries.shape[1] != d:
            raise ValueError(f"Expected image_features with {d} columns like the references, "
                             f"got {queries.shape[1]}. Encode both with the same model.")
        excluded = _exclusions(exclude, len(queries), m)
        most = max((len(rows) for rows in excluded), default=0)
        if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
            raise ValueError(f"Expected top_k to be a whole number of at least 1, got {top_k!r}.")
        if top_k + most > m:
            left = f"{m} references" + (f" of which {most} are excluded for a query" if most else "")
            raise ValueError(f"Expected top_k <= number of references, got top_k={top_k} with {left}. "
                             "Lower top_k or use a larger reference set.")
        similarities, indices = self._nearest(queries, top_k + most)
        if most:
            keep = _kept(indices, excluded, top_k)  # (n, k) positions
            similarities, indices = (np.take_along_axis(block, keep, axis=1)
                                     for block in (similarities, indices))
        return similarities[:, :top_k].astype(np.float32), indices[:, :top_k].astype(np.int64)

    def _nearest(self, queries, k):
        if len(queries) == 0:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        search = {"sklearn": _sklearn, "torch": _torch, "faiss": _faiss}[self.backend]
        # one more than asked for shows where the last place is tied
        similarities, indices = _order(*search(self.references, queries, min(k + 1, len(self.references))))
        _settle_ties(self.references, queries, similarities, indices, k)
        return similarities[:, :k], indices[:, :k]


def _sklearn(references, queries, k):
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(references)
    distances, indices = index.kneighbors(queries)
    return 1.0 - distances, indices


def _torch(references, queries, k, block=1000):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = torch.from_numpy(references).to(device)
    similarities, indices = [], []
    for start in range(0, len(queries), block):  # (b, d) @ (d, m): never more than block x m scores at once
        best = (torch.from_numpy(queries[start:start + block]).to(device) @ table.T).topk(k, dim=1)
        similarities.append(best.values.cpu().numpy())
        indices.append(best.indices.cpu().numpy())
    return np.concatenate(similarities), np.concatenate(indices)


def _faiss(references, queries, k):
    try:
        import faiss
    except ImportError as error:
        raise ImportError("backend='faiss' needs the package faiss-cpu: pip install -e '.[scale]', "
                          "or use backend='torch'.") from error
    index = faiss.IndexFlatIP(references.shape[1])
    index.add(references)
    return index.search(queries, k)


def _order(similarities, indices):
    """Sort each row by falling similarity, then rising index: ties come out the same on every backend."""
    order = np.lexsort((indices, -similarities), axis=1)
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(indices, order, axis=1)


def _settle_ties(references, queries, similarities, indices, k):
    """Where the k-th and the next reference are as good as equal, backends take any: here the first rows."""
    if indices.shape[1] == k:
        return
    for row in np.flatnonzero(similarities[:, k - 1] - similarities[:, k] < 2e-7):
        scores = (references * queries[row]).sum(axis=1)  # (m, d) -> (m,): equal references, equal scores
        best = np.lexsort((np.arange(len(scores)), -scores))[:k]
        similarities[row, :k], indices[row, :k] = scores[best], best


def _exclusions(exclude, n, m):
    if exclude is None:
        return []
    if len(exclude) != n:
        raise ValueError(f"Expected exclude to have one entry for each of {n} queries, got {len(exclude)}.")
    excluded = []
    for query, rows in enumerate(exclude):
        rows = np.atleast_1d(np.asarray(rows)) if np.size(rows) else np.empty(0, np.int64)
        if not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(f"Expected exclude to hold whole numbers, got {rows.dtype} for query {query}.")
        rows = np.unique(rows[rows != -1])
        if rows.size and (rows[0] < 0 or rows[-1] >= m):
            raise ValueError(f"Expected exclude to hold rows from 0 to {m - 1}, or -1; got {rows[0]} to "
                             f"{rows[-1]} for query {query}.")
        excluded.append(rows)
    return excluded


def _kept(indices, excluded, top_k):
    hidden = np.zeros(indices.shape, dtype=bool)
    for query, rows in enumerate(excluded):
        hidden[query] = np.isin(indices[query], rows)
    # a stable sort of False before True keeps the falling order among the rest
    return np.argsort(hidden, axis=1, kind="stable")[:, :top_k]


def _unit_rows(features, name):
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"Expected {name} of shape (rows, d), got {features.shape}.")
    return np.ascontiguousarray(unit(features.astype(np.float64), name), dtype=np.float32)
