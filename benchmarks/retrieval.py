"""Eq. 1 from queries to v': the paper's code's way, scikit-learn's and torch's; and search in a large set.

    python benchmarks/retrieval.py [--quick] [--only small|large]

Small: 10,000 queries, 1000 references, 512 numbers a vector, k = 8, as in the paper's Table 1. The paper's
code works in batches of 100 and normalizes the references, sorts every score, gathers 16 vectors a query
and concatenates them, once per batch. Large: 100,000 references, search alone (needs faiss-cpu, the `scale`
extra), against the faster of scikit-learn's two metrics. All ways are checked to give the same answers
before they are timed. Writes benchmarks/retrieval.json.
"""

import argparse

import numpy as np
import pandas as pd
import torch
from timing import alternate, save, summary

from impart_utils.retrieval import Retriever
from impart_utils.search_backends import augment_torch
from impart_utils.vanilla import augment_fused

TOP_K, IMAGE_WEIGHT, TEXT_WEIGHT, DIM = 8, 0.5, 0.05, 512
ADDED = {"image_weight": IMAGE_WEIGHT, "text_weight": TEXT_WEIGHT}


def random_features(n, m, dim, seed=0):
    """v (n, d), R_img and R_txt (m, d): float32, of norm about 10 as ViT-B/32's."""
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((rows, dim), dtype=np.float32) * 10 / dim**0.5 for rows in (n, m, m))


def papers_way(v, R_img, R_txt, top_k=TOP_K, batch=100):
    """(indices (n, k), v' (n, d)) in the steps of the paper's code (branch main), written anew."""
    v, R_img, R_txt = (torch.from_numpy(block) for block in (v, R_img, R_txt))
    weights = torch.tensor([1.0] + [IMAGE_WEIGHT / top_k] * top_k + [TEXT_WEIGHT / top_k] * top_k)
    weights = weights / (1 + IMAGE_WEIGHT + TEXT_WEIGHT)
    indices, augmented = [], []
    for start in range(0, len(v), batch):
        query = v[start:start + batch]
        unit_query = query / query.norm(dim=-1, keepdim=True)
        unit_references = R_img / R_img.norm(dim=-1, keepdim=True)
        order = torch.argsort(unit_query @ unit_references.T, dim=-1, descending=True)[:, :top_k]
        vectors = torch.cat([query[:, None], R_img[order], R_txt[order]], dim=1)  # (b, 1 + 2k, d)
        augmented.append((vectors * weights[:, None]).sum(dim=1))
        indices.append(order)
    return torch.cat(indices).numpy(), torch.cat(augmented).numpy()


def kit_way(v, R_img, R_txt, backend, top_k=TOP_K):
    """(indices, v') by the kit: nothing is kept from one call to the next."""
    _, indices = Retriever(R_img, backend=backend).search(v, top_k)
    add = augment_torch if backend == "torch" else augment_fused
    return indices, add(v, indices, R_img, R_txt, **ADDED)


def sklearn_way(references, queries, metric, top_k=TOP_K):
    """(cosines, indices) by scikit-learn itself, on unit vectors."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=top_k, algorithm="brute", metric=metric).fit(references)
    distances, indices = index.kneighbors(queries)
    return 1 - (distances if metric == "cosine" else distances**2 / 2), indices


def require_same_neighbors(v, references, indices, others, tolerance=1e-6):
    """Raise AssertionError unless both name the same rows, or rows whose cosines are as good as equal."""
    for query, place in zip(*np.nonzero(indices != others), strict=True):
        one, other = (references[rows[query, place]] for rows in (indices, others))
        direction = v[query] / np.linalg.norm(v[query])
        gap = direction @ (one / np.linalg.norm(one) - other / np.linalg.norm(other))
        assert abs(gap) <= tolerance, (query, place, gap)


def small(n=10_000, m=1000, dim=DIM, rounds=7):
    """Ratios of the kit's ways to the paper's code's, from v to v'."""
    v, R_img, R_txt = random_features(n, m, dim)
    ways = {"paper's code": lambda: papers_way(v, R_img, R_txt),
            "sklearn": lambda: kit_way(v, R_img, R_txt, "sklearn"),
            "torch": lambda: kit_way(v, R_img, R_txt, "torch")}
    indices, augmented = ways["paper's code"]()
    for name in ("sklearn", "torch"):
        others, v_prime = ways[name]()
        require_same_neighbors(v, R_img, indices, others)
        same = (indices == others).all(axis=1)
        np.testing.assert_allclose(v_prime[same] / (1 + IMAGE_WEIGHT + TEXT_WEIGHT), augmented[same],
                                   atol=1e-5)
    return summary(alternate(ways, rounds=rounds), "paper's code", unit="ms")


def large(n=10_000, m=100_000, dim=DIM, rounds=5):
    """Ratios of search alone to the faster of scikit-learn's metrics, which is the baseline."""
    v, R_img, _ = random_features(n, m, dim)
    queries, references = (block / np.linalg.norm(block, axis=1, keepdims=True) for block in (v, R_img))
    ways = {"sklearn, cosine": lambda: sklearn_way(references, queries, "cosine"),
            "sklearn, euclidean": lambda: sklearn_way(references, queries, "euclidean")}
    ways |= {f"Retriever, {backend}": lambda backend=backend: Retriever(R_img, backend=backend).search(
        v, TOP_K) for backend in ("faiss", "torch")}
    similarities, indices = ways["sklearn, euclidean"]()
    for name in ("Retriever, faiss", "Retriever, torch"):
        found, others = ways[name]()
        require_same_neighbors(v, R_img, indices, others)
        assert np.abs(found - similarities).max() <= 1e-6
    seconds = alternate(ways, rounds=rounds, warmup=0)  # the check above was the warm-up
    fastest = min(("sklearn, cosine", "sklearn, euclidean"), key=lambda name: np.median(seconds[name]))
    return summary(seconds, fastest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing")
    parser.add_argument("--only", choices=["small", "large"])
    given = parser.parse_args()
    sizes = {"small": {"n": 300, "m": 200, "dim": 64}, "large": {"n": 300, "m": 2000, "dim": 64}}
    tables = []
    for name, measure in {"small": small, "large": large}.items():
        if given.only in (None, name):
            table = measure(**sizes[name], rounds=2) if given.quick else measure()
            print(f"\n{name}\n{table.round(2).to_string()}", flush=True)
            tables.append(table.assign(job=name))
    if not given.quick and given.only is None:
        print(f"\nwritten to {save('retrieval', pd.concat(tables), top_k=TOP_K, dim=DIM)}")


if __name__ == "__main__":
    main()
