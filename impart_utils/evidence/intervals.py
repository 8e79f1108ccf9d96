"""Intervals of one number: how sure is an accuracy, a recall or a median?

Accuracies and intervals are fractions from 0 to 1.
"""

from statistics import NormalDist

import numpy as np


def wilson(correct, n, confidence=0.95):
    r"""Wilson's score interval of an accuracy (each item right or wrong, each counted once).

    .. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n}, \quad p = correct / n

    Parameters
    ----------
    correct, n : int, 0 <= correct <= n and n >= 1
    confidence : float, 0.95 gives z = 1.96

    Returns
    -------
    low, high : float, fractions, from ``scipy.stats.binomtest``. Not for a mean over classes: see
        `mean_per_class_interval`.
    """
    from scipy.stats import binomtest

    if n != int(n) or correct != int(correct) or not 0 <= correct <= n or n < 1:
        raise ValueError(f"Expected whole numbers with 0 <= correct <= n and n >= 1, got correct={correct}, "
                         f"n={n}. An accuracy needs at least one item.")
    z_value(confidence)  # its check
    found = binomtest(int(correct), int(n)).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def mean_interval(values, confidence=0.95):
    r"""Student's t interval of the mean of a few independent values, such as a RAM's trainings.

    .. math:: \bar x \pm t_{n - 1} \, s / \sqrt n

    It is about which value the next seeds would give on the same pictures, not about other pictures.

    Parameters
    ----------
    values : array (n,), n >= 2;  confidence : float

    Returns
    -------
    low, high : float, both equal the value where all are equal

    Raises
    ------
    ValueError : fewer than two values, or one that isn't finite.
    """
    from scipy.stats import t

    values = finite(values).astype(np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"Expected at least two values (n,), got shape {values.shape}: one has no spread.")
    z_value(confidence)  # its check
    half = t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


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
    values = finite(values)
    groups = groups_of(clusters, len(values))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(groups), size=len(groups))
        rows = drawn if clusters is None else np.concatenate([groups[g] for g in drawn])
        found.append(statistic(values[rows]))
    return percentiles(found, confidence)


def bootstrap_means(values, *, clusters=None, resamples=2000, seed=0):
    """Means of bootstrap resamples, fast.

    Items of one value can't be told apart, so how often each value is drawn is multinomial: three numbers
    for right and wrong instead of 10,000 items. Where most values differ, items are drawn one by one.

    Parameters
    ----------
    values : float array (n,);  clusters : sequence of n labels, optional: whole clusters are drawn
    resamples, seed : int

    Returns
    -------
    means : float array (resamples,)
    """
    values = finite(values)
    groups = groups_of(clusters, len(values))
    parts = (np.column_stack([values, np.ones(len(values))]) if clusters is None else
             np.array([(values[rows].sum(), len(rows)) for rows in groups]))  # (g, 2): sum and size
    kinds, counts = np.unique(parts, axis=0, return_counts=True)              # (u, 2), (u,)
    rng, g, means = np.random.default_rng(seed), len(parts), []
    few = 30 * len(kinds) < g  # drawing one count takes as long as drawing some thirty items
    block = max(1, 2_000_000 // (len(kinds) if few else g))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        if few:
            totals = rng.multinomial(g, counts / g, size=size) @ kinds        # (b, u) @ (u, 2) -> (b, 2)
        else:
            totals = parts[rng.integers(0, g, size=(size, g))].sum(axis=1)    # (b, g, 2) -> (b, 2)
        means.append(totals[:, 0] / totals[:, 1])
    return np.concatenate(means)


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
    correct, labels = right_or_wrong(correct), np.asarray(labels)
    if labels.shape != correct.shape:
        raise ValueError(f"Expected one label for each of {len(correct)} items, got shape {labels.shape}.")
    _, which = np.unique(labels, return_inverse=True)
    sizes = np.bincount(which)                            # (c,)
    shares = np.bincount(which, weights=correct) / sizes  # (c,)
    draws = np.random.default_rng(seed).binomial(sizes, shares, size=(resamples, len(sizes)))
    return percentiles((draws / sizes).mean(axis=1), confidence)  # (resamples, c) -> (resamples,)


# ---- Shared with significance.py ---------------------------------------------------------------


def z_value(confidence):
    """How many standard deviations a two-sided normal interval of this confidence reaches: 0.95 -> 1.96."""
    if not 0 < confidence < 1:
        raise ValueError(f"Expected 0 < confidence < 1, got {confidence!r}.")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def percentiles(found, confidence):
    """The middle share `confidence` of the resamples: low, high."""
    z_value(confidence)  # its check
    low, high = np.percentile(found, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)


def finite(values):
    """The values as an array; ValueError where one is NaN or infinite."""
    values = np.asarray(values)
    if not np.isfinite(values).all():
        raise ValueError("Expected finite values to resample, got NaN or infinity.")
    return values


def groups_of(clusters, n):
    """The rows of each cluster (without clusters each item is one); ValueError for fewer than two."""
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


def right_or_wrong(values):
    """A bool array (n,), n >= 1; ValueError for anything else, such as predictions."""
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.dtype != bool:
        raise ValueError(f"Expected a bool array (n,), one entry per item and at least one, got shape "
                         f"{values.shape} of {values.dtype}.")
    return values
