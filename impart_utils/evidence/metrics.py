"""Ranks, recall and precision; intervals and tests that say how sure a number is.

Accuracies and intervals are fractions from 0 to 1. Which method goes where is fixed in DESIGN.md §6.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

# ---- Ranking -----------------------------------------------------------------------------------


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


# ---- One accuracy: how sure is it? -------------------------------------------------------------


def wilson(correct, n, confidence=0.95):
    r"""Wilson's score interval of an accuracy (each item right or wrong, each counted once).

    .. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n}, \quad p = correct / n

    Parameters
    ----------
    correct, n : int, 0 <= correct <= n and n >= 1
    confidence : float, 0.95 gives z = 1.96

    Returns
    -------
    low, high : float, fractions. Equals SciPy's ``binomtest(correct, n).proportion_ci(method="wilson")``.
        Not for a mean over classes: see `mean_per_class_interval`.
    """
    if n != int(n) or correct != int(correct) or not 0 <= correct <= n or n < 1:
        raise ValueError(f"Expected whole numbers with 0 <= correct <= n and n >= 1, got correct={correct}, "
                         f"n={n}. An accuracy needs at least one item.")
    z, p = _z(confidence), correct / n
    center = p + z**2 / (2 * n)
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = (center - half) / (1 + z**2 / n), (center + half) / (1 + z**2 / n)
    return (0.0 if correct == 0 else float(low)), (1.0 if correct == n else float(high))  # exact at the ends


def bootstrap_interval(values, statistic=np.mean, *, clusters=None, resamples=2000, seed=0, confidence=0.95):
    """Percentile bootstrap interval of a statistic of items, or of clusters of items that belong together.

    Clips of one movie are no independent witnesses: with `clusters` whole movies are drawn, with all
    their clips. Percentiles rather than BCa, which breaks down for medians and for equal values.

    Parameters
    ----------
    values : array (n, …), one row per item
    statistic : callable, array (n', …) -> float
    clusters : sequence of n labels, optional
    resamples, seed : int;  confidence : float

    Returns
    -------
    low, high : float; both equal the value where all items are equal

    Raises
    ------
    ValueError : fewer than two items or clusters, or values that aren't finite.
    """
    values = np.asarray(values)
    if not np.isfinite(values).all():
        raise ValueError("Expected finite values to resample, got NaN or infinity.")
    groups = _groups(clusters, len(values))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(groups), size=len(groups))
        rows = drawn if clusters is None else np.concatenate([groups[g] for g in drawn])
        found.append(statistic(values[rows]))
    return _percentiles(found, confidence)


def mean_per_class_interval(correct, labels, *, resamples=2000, seed=0, confidence=0.95):
    """Bootstrap interval of the mean-per-class accuracy, resampled within each class.

    Drawing n_c items with replacement from a class with share p_c of right ones gives a binomial
    count; so the resamples are drawn as such, exactly and without a loop.

    Parameters
    ----------
    correct : bool array (n,);  labels : int array (n,)

    Returns
    -------
    low, high : float, fractions
    """
    correct, labels = _correct(correct), np.asarray(labels)
    if labels.shape != correct.shape:
        raise ValueError(f"Expected one label for each of {len(correct)} items, got shape {labels.shape}.")
    _, which = np.unique(labels, return_inverse=True)
    sizes = np.bincount(which)                            # (c,)
    shares = np.bincount(which, weights=correct) / sizes  # (c,)
    draws = np.random.default_rng(seed).binomial(sizes, shares, size=(resamples, len(sizes)))
    return _percentiles((draws / sizes).mean(axis=1), confidence)  # (resamples, c) -> (resamples,)


# ---- Two methods on the same items -------------------------------------------------------------


@dataclass(frozen=True)
class McNemar:
    """Two methods on the same n pictures; made by `mcnemar`.

    Attributes
    ----------
    b, c : int, pictures that only the first, and only the second method has right
    difference : int, b - c, in pictures;  n : int
    p : float, exact two-sided p that b and c differ by chance alone
    """

    b: int
    c: int
    n: int
    p: float

    @property
    def difference(self):
        return self.b - self.c


def mcnemar(correct_a, correct_b):
    """McNemar's exact test: of the pictures on which two methods disagree, how many does each win?

    Pictures that both have right, or both wrong, say nothing. If the methods were equally good, b would
    be binomial with b + c throws of a fair coin. With no disagreement p = 1.

    Parameters
    ----------
    correct_a, correct_b : bool arrays (n,), picture by picture in the same order
    """
    from scipy.stats import binomtest

    a, b = _pair(correct_a, correct_b)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    p = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, len(a), float(p))


def paired_bootstrap(values_a, values_b, *, clusters=None, resamples=2000, seed=0, confidence=0.95):
    """Percentile bootstrap interval of mean(a) - mean(b), items (or clusters) kept paired.

    Parameters
    ----------
    values_a, values_b : arrays (n,), of the same items in the same order; bool counts as 0 and 1
    clusters : as for `bootstrap_interval`

    Returns
    -------
    low, high : float, in the unit of the values
    """
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"Expected two arrays of one shape (n,), item by item, got {a.shape} and {b.shape}.")
    return bootstrap_interval(a - b, clusters=clusters, resamples=resamples, seed=seed, confidence=confidence)


@dataclass(frozen=True)
class Equivalence:
    """Are two methods equally good, up to a margin? Made by `equivalence`.

    Attributes
    ----------
    verdict : "equivalent", "different" or "inconclusive"
    difference : float, accuracy of the first minus that of the second
    low, high : float, 90 % interval of the difference;  margin : float;  n : int
    """

    verdict: str
    difference: float
    low: float
    high: float
    margin: float
    n: int


def equivalence(correct_a, correct_b, margin=0.01):
    """Equivalence of two methods on the same pictures, by `equivalence_of_counts`.

    Parameters
    ----------
    correct_a, correct_b : bool arrays (n,);  margin : float, a fraction; 0.01 is one point
    """
    test = mcnemar(correct_a, correct_b)
    return equivalence_of_counts(test.b, test.c, test.n, margin)


def equivalence_of_counts(b, c, n, margin=0.01):
    r"""Two one-sided tests (TOST) at 5 % each, read off the 90 % interval of the paired difference.

    The interval is Wald's with half a picture added to each of the four cells (Agresti & Min 2005), so
    that it keeps a width where the methods never disagree: with
    :math:`b' = b + 1/2,\; c' = c + 1/2,\; n' = n + 2`,

    .. math:: \frac{b' - c'}{n'} \pm 1.645 \, \frac{1}{n'} \sqrt{b' + c' - (b' - c')^2 / n'}

    - "equivalent": the interval lies inside (-margin, margin);
    - "different": it lies wholly outside;
    - "inconclusive": it reaches across a margin. A difference without significance is not equivalence.

    Parameters
    ----------
    b, c : int, pictures only the first, and only the second method has right
    n : int, all pictures;  margin : float, a fraction
    """
    if not margin > 0:
        raise ValueError(f"Expected margin > 0, got {margin!r}. 0.01 is one point of accuracy.")
    if b < 0 or c < 0 or n < 1 or b + c > n:
        raise ValueError(f"Expected b, c >= 0 and b + c <= n with n >= 1, got b={b}, c={c}, n={n}.")
    b_, c_, n_ = b + 0.5, c + 0.5, n + 2
    half = _z(0.90) * (b_ + c_ - (b_ - c_) ** 2 / n_) ** 0.5 / n_
    low, high = (b_ - c_) / n_ - half, (b_ - c_) / n_ + half
    if -margin < low and high < margin:
        verdict = "equivalent"
    else:
        verdict = "different" if low > margin or high < -margin else "inconclusive"
    return Equivalence(verdict, (b - c) / n, low, high, margin, int(n))


def holm(p_values):
    """p-values adjusted for testing several hypotheses at once (Holm 1979); same order as given.

    The family (which tests count together) is to be fixed before they are run.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"Expected p-values (m,) from 0 to 1, got {p.tolist()}.")
    order = np.argsort(p, kind="stable")
    # the smallest times m, the next times m - 1, …, and never below the one before
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _z(confidence):
    if not 0 < confidence < 1:
        raise ValueError(f"Expected 0 < confidence < 1, got {confidence!r}.")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _percentiles(found, confidence):
    _z(confidence)  # its check
    low, high = np.percentile(found, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)


def _groups(clusters, n):
    if clusters is None:
        groups = range(n)
    else:
        labels = np.asarray(clusters)
        if labels.shape != (n,):
            raise ValueError(f"Expected one cluster label for each of {n} items, got shape {labels.shape}.")
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(groups) < 2:
        kind = "items" if clusters is None else "clusters"
        raise ValueError(f"Expected at least two {kind} to resample, got {len(groups)}: one has no spread. "
                         "Give more, or leave out `clusters` where they were given.")
    return groups


def _ranks(values):
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or not (values >= 1).all():
        raise ValueError(f"Expected ranks (q,) from 1, at least one; got {values.tolist()[:5]}.")
    return values


def _correct(values):
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.dtype != bool:
        raise ValueError(f"Expected a bool array (n,), one entry per item and at least one, got shape "
                         f"{values.shape} of {values.dtype}.")
    return values


def _pair(correct_a, correct_b):
    a, b = _correct(correct_a), _correct(correct_b)
    if a.shape != b.shape:
        raise ValueError(f"Expected both methods on the same items, got {len(a)} and {len(b)}.")
    return a, b
