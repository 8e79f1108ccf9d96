"""Three exact ways to the k largest cosines, what makes them agree, and Eq. 1 by torch.

Each `*_search` takes the references once, unit float32 rows (m, d), and returns a function
(queries (n, d), k) -> (cosines (n, k), falling, indices (n, k)). All packages are asked for inside.
"""

import importlib.util

import numpy as np

BACKENDS = ("sklearn", "torch", "faiss")
MANY = 100_000    # references: up to here scikit-learn is right, above it FAISS or torch
SCORES = 2**26    # of one block of queries against all references: 256 MB
TIE = 5e-7        # cosines nearer than this may change places by the rounding of a backend's sums


def choose_backend(backend, m):
    """`backend`, or for "auto" the right one for m references on this machine.

    Raises
    ------
    ValueError : unknown backend.
    """
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"Unknown backend {backend!r}. Known backends: auto, {', '.join(BACKENDS)}.")
    if backend != "auto":
        return backend
    if m <= MANY:
        return "sklearn"
    return "faiss" if importlib.util.find_spec("faiss") else "torch"


def search_function(backend, references):
    """The backend's search over these references."""
    return {"sklearn": sklearn_search, "torch": torch_search, "faiss": faiss_search}[backend](references)


def sklearn_search(references):
    """By scikit-learn. Among unit vectors Euclidean order is the cosine's, and d² = 2 - 2 cos."""
    from sklearn.neighbors import NearestNeighbors

    # its two metrics are equally fast for few references; for 100,000 this one is 1.4 times as fast
    index = NearestNeighbors(algorithm="brute", metric="euclidean").fit(references)

    def search(queries, k):
        distances, indices = index.kneighbors(queries, k)
        return 1.0 - distances**2 / 2, indices

    return search


def torch_search(references, block=500):
    """By torch, on the GPU where there is one: products and the largest k, a block of queries at a time."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = torch.from_numpy(references).to(device).T  # (d, m)
    block = max(1, min(block, SCORES // table.shape[1]))

    def search(queries, k):
        similarities = np.empty((len(queries), k), np.float32)
        indices = np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), block):  # (b, d) @ (d, m): never more than SCORES at once
            rows = slice(start, start + block)
            best = (torch.from_numpy(queries[rows]).to(device) @ table).topk(k, dim=1)
            similarities[rows], indices[rows] = best.values.cpu().numpy(), best.indices.cpu().numpy()
        return similarities, indices

    return search


def faiss_search(references):
    """By FAISS's flat index of inner products."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError("backend='faiss' needs the package faiss-cpu: pip install -e '.[scale]', "
                          "or use backend='torch'.") from error
    index = faiss.IndexFlatIP(references.shape[1])
    index.add(references)
    return index.search


def settle_ties(references, queries, similarities, indices, k):
    """Redo, in place, the rows in which two neighbors are as good as equal.

    Rounding and the choice among ties differ from backend to backend. Here all references within `TIE` of
    the k-th are scored by one sum in one order, so that equal references score equally, and sorted: of
    equal ones the first row of the references comes first.

    Parameters
    ----------
    references (m, d), queries (n, d) : unit rows
    similarities, indices : arrays (n, k) or, to see a tie at the last place, (n, k + 1)
    """
    close = np.flatnonzero((similarities[:, :-1] - similarities[:, 1:] < TIE).any(axis=1))
    block = max(1, min(500, SCORES // len(references)))
    for start in range(0, len(close), block):
        rows = close[start:start + block]
        scores = queries[rows] @ references.T  # (b, m)
        near = scores >= similarities[rows, k - 1, None] - 2 * TIE
        for row, found in zip(rows, map(np.flatnonzero, near), strict=True):
            exact = (references[found] * queries[row]).sum(axis=1)  # (f, d) -> (f,)
            best = np.argsort(-exact, kind="stable")[:k]
            similarities[row, :k], indices[row, :k] = exact[best], found[best]


def augment_torch(image_features, neighbor_indices, reference_image_features, reference_text_features, *,
                  image_weight=0.5, text_weight=0.05, block=500):
    """`vanilla.augment_fused` by torch, which gathers and averages in one step and on all cores.

    Parameters
    ----------
    As for `vanilla.augment_fused`, in float32; the indices must be rows of the references.

    Returns
    -------
    augmented_features : float32 array (n, d)
    """
    import torch

    table = image_weight * reference_image_features + text_weight * reference_text_features  # (m, d)
    table, v = (torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (table, image_features))
    indices = torch.from_numpy(np.ascontiguousarray(neighbor_indices, np.int64))
    result = torch.empty_like(v)
    for start in range(0, len(v), block):
        rows = slice(start, start + block)
        mean = torch.nn.functional.embedding_bag(indices[rows], table, mode="mean")  # (b, k) -> (b, d)
        torch.add(v[rows], mean, out=result[rows])
    return result.numpy()
