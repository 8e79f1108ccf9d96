"""The k nearest references of each query by cosine, exact; its own row can be left out."""

from functools import cached_property

import numpy as np

from impart_utils.search_backends import choose_backend, search_function, settle_ties
from impart_utils.zeroshot import unit


class Retriever:
    """Finds the references most similar to a query (paper, Sec. 3.1: "the top k entries retrieved").

    As in the paper's code, similarity is the cosine between image features; texts play no part in it.

    Parameters
    ----------
    reference_features : array (m, d), any norms: a normalized copy is kept
    backend : "auto" (default), "sklearn", "torch" (GPU where there is one) or "faiss" (the `scale` extra)
        All are exact: their cosines differ by less than 1e-6, and so they differ only in which of two
        references that are as near comes first. "auto" is scikit-learn up to 100,000 references; above,
        FAISS where it is installed, else torch.

    Attributes
    ----------
    references : float32 array (m, d), unit rows
    backend : "sklearn", "torch" or "faiss"

    Raises
    ------
    ValueError : unknown backend, or references that are zero, not finite or not (m, d).
    """

    def __init__(self, reference_features, *, backend="auto"):
        self.references = _unit_rows(reference_features, "reference_features")
        self.backend = choose_backend(backend, len(self.references))

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
        excluded = _exclusions(exclude, len(queries), m)  # (n, e)
        most = int((excluded >= 0).sum(axis=1).max(initial=0))
        if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
            raise ValueError(f"Expected top_k to be a whole number of at least 1, got {top_k!r}.")
        if top_k + most > m:
            left = f"{m} references" + (f" of which {most} are excluded for a query" if most else "")
            raise ValueError(f"Expected top_k <= number of references, got top_k={top_k} with {left}. "
                             "Lower top_k or use a larger reference set.")
        similarities, indices = self._nearest(queries, top_k + most)
        if most:
            hidden = (indices[:, :, None] == excluded[:, None, :]).any(axis=2)  # (n, k + most)
            # a stable sort of False before True keeps the falling order among the rest
            keep = np.argsort(hidden, axis=1, kind="stable")
            similarities, indices = (np.take_along_axis(block, keep, axis=1)
                                     for block in (similarities, indices))
        return similarities[:, :top_k].astype(np.float32), indices[:, :top_k].astype(np.int64)

    def _nearest(self, queries, k):
        if len(queries) == 0:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        # one more than asked for shows where the last place is tied
        similarities, indices = self._search(queries, min(k + 1, len(self.references)))
        settle_ties(self.references, queries, similarities, indices, k)
        return similarities[:, :k], indices[:, :k]

    @cached_property
    def _search(self):
        """Made at the first search: an index may hold a second copy of the references."""
        return search_function(self.backend, self.references)


def _exclusions(exclude, n, m):
    """Rows to leave out per query: int array (n, e), each at most once in a row, filled up with -1."""
    if exclude is None:
        return np.empty((n, 0), np.int64)
    if len(exclude) != n:
        raise ValueError(f"Expected exclude to have one entry for each of {n} queries, got {len(exclude)}.")
    if isinstance(exclude, np.ndarray) and exclude.ndim == 1 and np.issubdtype(exclude.dtype, np.integer):
        excluded = exclude[:, None]
    else:
        lists = [np.unique(rows) if np.size(rows) else np.empty(0, np.int64) for rows in exclude]
        for query, rows in enumerate(lists):
            if not np.issubdtype(rows.dtype, np.integer):
                raise ValueError("Expected exclude to hold whole numbers, "
                                 f"got {rows.dtype} for query {query}.")
        excluded = np.full((n, max(map(len, lists), default=0)), -1, np.int64)
        for query, rows in enumerate(lists):
            excluded[query, :len(rows)] = rows
    if (bad := np.flatnonzero(((excluded < -1) | (excluded >= m)).any(axis=1))).size:
        rows = excluded[bad[0]][excluded[bad[0]] != -1]
        raise ValueError(f"Expected exclude to hold rows from 0 to {m - 1}, or -1; got {rows.min()} to "
                         f"{rows.max()} for query {bad[0]}.")
    return excluded


def _unit_rows(features, name):
    """A float32 copy with rows of length 1; ValueError where a row has no direction."""
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"Expected {name} of shape (rows, d), got {features.shape}.")
    if features.dtype == np.float32:  # the usual case, at a quarter of the cost of the careful way below
        norms = np.sqrt(np.einsum("nd,nd->n", features, features))
        if np.isfinite(norms).all() and norms.min(initial=1.0) > 1e-12:
            return np.ascontiguousarray(features / norms[:, None])
    return np.ascontiguousarray(unit(features.astype(np.float64), name), dtype=np.float32)
