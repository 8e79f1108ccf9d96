"""What RAM looks at: how even its attention is, whether it follows the cosine, what one neighbor is worth."""

import numpy as np

from impart_utils.zeroshot import unit


def entropy(weights):
    """Entropy of attention weights in nats: ln k for a plain mean, 0 for all on one neighbor.

    Parameters
    ----------
    weights : array (…, k), each row >= 0 with sum 1

    Returns
    -------
    entropy : array (…)
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim < 1 or (weights < 0).any() or not np.allclose(weights.sum(axis=-1), 1, atol=1e-4):
        raise ValueError("Expected weights >= 0 whose last axis sums to 1: a softmax over the neighbors.")
    return -(weights * np.log(np.where(weights > 0, weights, 1))).sum(axis=-1)


def rank_correlation(weights, similarities):
    """Does RAM listen to the nearest? Spearman's correlation of attention with cosine, for each query.

    Parameters
    ----------
    weights, similarities : arrays (n, k), k >= 2

    Returns
    -------
    correlation : array (n,), from -1 to 1; NaN where all k values of either are equal
    """
    from scipy.stats import rankdata

    weights, similarities = np.asarray(weights), np.asarray(similarities)
    if weights.shape != similarities.shape or weights.ndim != 2 or weights.shape[1] < 2:
        raise ValueError(f"Expected weights and similarities of one shape (n, k) with k >= 2, got "
                         f"{weights.shape} and {similarities.shape}.")
    a, b = (rankdata(block, axis=1) for block in (weights, similarities))  # ties get their mean rank
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    lengths = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=1) / np.where(lengths > 0, lengths, np.nan)


def counterfactuals(ram, image_features, reference_image_features, reference_text_features,
                    neighbor_indices, class_features, *, seed):
    """What one neighbor is worth: take each away, or put a stranger in its place, and look what changes.

    Parameters
    ----------
    ram : RAM;  image_features : array (n, d);  reference_…_features : arrays (m, d), as RAM gets them
    neighbor_indices : int array (n, k), k >= 2;  class_features : array (c, d);  seed : int, the strangers

    Returns
    -------
    table : DataFrame, a row per place from 1 (the nearest): "turned, deleted" and "turned, swapped", the
        mean angle in degrees between RAM's output before and after; "changed, deleted" and "changed,
        swapped", the share of queries whose predicted class changes
    """
    import pandas as pd

    from impart_utils.training import apply_ram

    k, m = neighbor_indices.shape[1], len(reference_image_features)
    if k < 2 or m <= k:
        raise ValueError(f"Expected k >= 2 neighbors out of more than k references, got k={k} and {m} "
                         "references.")
    classes = unit(class_features)

    def result(indices):
        out = unit(apply_ram(ram, image_features, reference_image_features, reference_text_features, indices))
        return out, (out @ classes.T).argmax(axis=1)  # (n, d) @ (d, c)

    before, predicted = result(neighbor_indices)
    rng, rows = np.random.default_rng(seed), []
    for place in range(k):
        swapped = neighbor_indices.copy()
        swapped[:, place] = _strangers(neighbor_indices, m, rng)
        row = {"place": place + 1}
        for name, indices in (("deleted", np.delete(neighbor_indices, place, axis=1)), ("swapped", swapped)):
            out, now = result(indices)
            cosines = (before * out).sum(axis=1).clip(-1, 1)
            row[f"turned, {name}"] = float(np.degrees(np.arccos(cosines)).mean())
            row[f"changed, {name}"] = float((now != predicted).mean())
        rows.append(row)
    return pd.DataFrame(rows).set_index("place")


def _strangers(neighbor_indices, m, rng):
    """For each query one reference that isn't among its neighbors."""
    picked = rng.integers(0, m, len(neighbor_indices))
    while (known := (neighbor_indices == picked[:, None]).any(axis=1)).any():
        picked[known] = rng.integers(0, m, known.sum())
    return picked
