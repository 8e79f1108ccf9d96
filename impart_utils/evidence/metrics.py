"""Ranks, recall and precision.

What says how sure a number is lies in intervals.py and significance.py, and can be had from here too.
"""

import numpy as np

from impart_utils.evidence.intervals import (  # noqa: F401  called as metrics.NAME too
    bootstrap_interval,
    mean_interval,
    mean_per_class_interval,
    wilson,
)
from impart_utils.evidence.significance import (  # noqa: F401
    Equivalence,
    McNemar,
    equivalence,
    equivalence_of_counts,
    holm,
    mcnemar,
    paired_bootstrap,
    sign_flip,
)


def ranks(similarities, truth):
    """The rank, from 1, of the right item for each query; ties count against us.

    A model that gives every item the same score thus gets the last rank, not the first.

    Parameters
    ----------
    similarities : array (q, f), query against item, larger is better
    truth : int array (q,), the right item of each query

    Returns
    -------
    ranks : int array (q,), 1 to f

    Raises
    ------
    ValueError : shapes that don't fit, a truth that is no column, or NaN (the message names the row).
    """
    similarities, truth = np.asarray(similarities, dtype=np.float64), np.asarray(truth)
    if similarities.ndim != 2 or truth.shape != similarities.shape[:1]:
        raise ValueError(f"Expected similarities (q, f) and truth (q,), got {similarities.shape} and "
                         f"{truth.shape}.")
    q, f = similarities.shape
    if not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"Expected truth to hold whole numbers, columns of similarities; got {truth.dtype}.")
    nan = np.flatnonzero(np.isnan(similarities).any(axis=1))
    if nan.size:
        raise ValueError(f"Row {nan[0]} of similarities holds NaN, which has no rank. Encode it again.")
    if q and (truth.min() < 0 or truth.max() >= f):
        raise ValueError(f"Expected truth from 0 to {f - 1}, got {truth.min()} to {truth.max()}.")
    own = similarities[np.arange(q), truth][:, None]  # (q, 1)
    return (similarities >= own).sum(axis=1)  # the right item counts itself: rank 1 at best


def recall_at(ranks, k):
    """R@k: share of queries whose right item is among the first `k`."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"Expected k to be a whole number of at least 1, got {k!r}.")
    return float(np.mean(_ranks(ranks) <= k))


def median_rank(ranks):
    """Median of the ranks (MdR); 1 is best."""
    return float(np.median(_ranks(ranks)))


def mean_rank(ranks):
    """Mean of the ranks (MnR); 1 is best."""
    return float(np.mean(_ranks(ranks)))


def mean_reciprocal_rank(ranks):
    """MRR, the mean of 1 / rank; with one right item per query it equals mean average precision."""
    return float(np.mean(1.0 / _ranks(ranks)))


def average_precision(scores, relevant):
    """AP: mean, over the relevant items, of the precision at each one's place; ties count against us.

    Parameters
    ----------
    scores : array (f,), larger is better;  relevant : bool array (f,), at least one True
    """
    scores, relevant = np.asarray(scores, dtype=np.float64), np.asarray(relevant, dtype=bool)
    if scores.ndim != 1 or scores.shape != relevant.shape or not relevant.any():
        raise ValueError(f"Expected scores and relevant of one shape (f,) with a relevant item, "
                         f"got {scores.shape} and {relevant.shape} with {int(relevant.sum())} relevant.")
    if np.isnan(scores).any():
        raise ValueError(f"Score {np.flatnonzero(np.isnan(scores))[0]} is NaN, which has no rank.")
    order = np.lexsort((relevant, -scores))  # falling scores; of equal ones the irrelevant first
    hits = relevant[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def temporal_iou(a, b):
    """Overlap of time intervals, 0 to 1: length of the intersection over that of the union.

    Parameters
    ----------
    a, b : arrays (…, 2) of start and end in seconds, start < end; broadcast against each other
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    for name, block in (("a", a), ("b", b)):
        if block.shape[-1:] != (2,) or not (block[..., 0] < block[..., 1]).all():
            raise ValueError(f"Expected {name} to hold (start, end) with start < end, got {block.tolist()}.")
    overlap = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    overlap = np.maximum(overlap, 0.0)
    return overlap / (a[..., 1] - a[..., 0] + b[..., 1] - b[..., 0] - overlap)


def _ranks(values):
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or not (values >= 1).all():
        raise ValueError(f"Expected ranks (q,) from 1, at least one; got {values.tolist()[:5]}.")
    return values
