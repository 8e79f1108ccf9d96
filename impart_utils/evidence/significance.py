"""Two methods on the same items: is one better, or are they equally good up to a margin?

SciPy does the testing. Which test goes where is fixed in DESIGN.md §6.
"""

from dataclasses import dataclass

import numpy as np

from impart_utils.evidence.intervals import (
    bootstrap_means,
    finite,
    groups_of,
    percentiles,
    right_or_wrong,
    wilson,
    z_value,
)


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
    clusters : as for `intervals.bootstrap_interval`: movies of clips, classes of near-equal pictures

    Returns
    -------
    low, high : float, in the unit of the values
    """
    means = bootstrap_means(_differences(values_a, values_b), clusters=clusters, resamples=resamples,
                            seed=seed)
    return percentiles(means, confidence)


def sign_flip(values_a, values_b, *, clusters=None, resamples=9999, seed=0):
    """Paired permutation test of mean(a) - mean(b): two-sided p.

    If it made no difference which method a value comes from, each item's difference (each cluster's sum of
    differences) would be as likely with the other sign. All signs are tried where there are at most
    `resamples` ways, else that many are drawn. For right and wrong without clusters use `mcnemar`, which is
    the same test in closed form.

    Parameters
    ----------
    values_a, values_b : arrays (n,), of the same items in the same order;  clusters : as above

    Returns
    -------
    p : float; 1 where the values are identical. From ``scipy.stats.permutation_test``, type "samples".
    """
    from scipy.stats import permutation_test

    difference = _differences(values_a, values_b)
    sums = np.array([difference[rows].sum() for rows in groups_of(clusters, len(difference))])
    sums = sums[sums != 0]  # whatever its sign, a zero stays zero
    if len(sums) < 2:  # of one sum both signs are equally far from 0
        return 1.0
    found = permutation_test((sums,), lambda x, axis: x.sum(axis=axis), permutation_type="samples",
                             n_resamples=resamples, vectorized=True, batch=256,
                             rng=np.random.default_rng(seed))
    return float(found.pvalue)


@dataclass(frozen=True)
class Equivalence:
    """Are two methods equally good, up to a margin? Made by `equivalence`.

    Attributes
    ----------
    verdict : "equivalent", "different" or "inconclusive"
    difference : float, accuracy of the first minus that of the second
    low, high : float, 90 % interval of the difference;  margin : float;  n : int
    p : float, the larger of the two one-sided p; below 0.05 where the verdict is "equivalent"
    """

    verdict: str
    difference: float
    low: float
    high: float
    margin: float
    n: int
    p: float


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
    from scipy.stats import norm

    if not margin > 0:
        raise ValueError(f"Expected margin > 0, got {margin!r}. 0.01 is one point of accuracy.")
    if b < 0 or c < 0 or n < 1 or b + c > n:
        raise ValueError(f"Expected b, c >= 0 and b + c <= n with n >= 1, got b={b}, c={c}, n={n}.")
    b_, c_, n_ = b + 0.5, c + 0.5, n + 2
    center, error = (b_ - c_) / n_, (b_ + c_ - (b_ - c_) ** 2 / n_) ** 0.5 / n_
    low, high = center - z_value(0.90) * error, center + z_value(0.90) * error
    if -margin < low and high < margin:
        verdict = "equivalent"
    else:
        verdict = "different" if low > margin or high < -margin else "inconclusive"
    p = float(max(norm.sf((margin + center) / error), norm.sf((margin - center) / error)))
    return Equivalence(verdict, (b - c) / n, low, high, margin, int(n), p)


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


def paired_table(against, others, *, margin=0.01):
    """Several methods against one on the same items: all that may be said of each difference.

    Parameters
    ----------
    against : bool array (n,), what the method to compare with has right
    others : dict name -> bool array (n,); together the family that Holm's p counts
    margin : float, of the equivalence test

    Returns
    -------
    table : DataFrame indexed by method: accuracy, low, high (Wilson), n; b, pictures that only `against` has
        right, c, only the method; difference = (c - b) / n; p (McNemar exact); p_holm; equivalence (verdict)
    """
    import pandas as pd

    rows = {}
    for name, correct in others.items():
        test, same = mcnemar(against, correct), equivalence(correct, against, margin)
        right = int(np.sum(correct))
        low, high = wilson(right, test.n)
        rows[name] = {"accuracy": right / test.n, "low": low, "high": high, "n": test.n, "b": test.b,
                      "c": test.c, "difference": (test.c - test.b) / test.n, "p": test.p,
                      "equivalence": same.verdict}
    table = pd.DataFrame.from_dict(rows, orient="index")
    if len(table):
        table.insert(len(table.columns) - 1, "p_holm", holm(table["p"]))
    return table


def _pair(correct_a, correct_b):
    a, b = right_or_wrong(correct_a), right_or_wrong(correct_b)
    if a.shape != b.shape:
        raise ValueError(f"Expected both methods on the same items, got {len(a)} and {len(b)}.")
    return a, b


def _differences(values_a, values_b):
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"Expected two arrays of one shape (n,), item by item, got {a.shape} and {b.shape}.")
    return finite(a - b)
