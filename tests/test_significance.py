"""Tests of two methods against published examples, SciPy, statsmodels and slow loops."""

from itertools import product

import numpy as np
import pytest

from impart_utils.evidence import significance


def vector(b, c, both, neither):
    """Two methods' right and wrong with these four counts."""
    a = [True] * b + [False] * c + [True] * both + [False] * neither
    other = [False] * b + [True] * c + [True] * both + [False] * neither
    return np.array(a, dtype=bool), np.array(other, dtype=bool)


def test_mcnemar_on_the_published_example():
    # notes/dependencies.md, §7: b = 120, c = 90 -> p = .0451
    test = significance.mcnemar(*vector(120, 90, 300, 40))
    assert (test.b, test.c, test.n, test.difference) == (120, 90, 550, 30)
    assert test.p == pytest.approx(0.0451, abs=5e-5)


@pytest.mark.parametrize("b, c", [(0, 6), (3, 1), (5, 5), (40, 22), (1, 0)])
def test_mcnemar_equals_statsmodels_and_is_symmetric(b, c):
    from statsmodels.stats.contingency_tables import mcnemar

    ours = significance.mcnemar(*vector(b, c, 20, 10))
    assert ours.p == pytest.approx(mcnemar([[20, b], [c, 10]], exact=True).pvalue)
    swapped = significance.mcnemar(*vector(c, b, 20, 10))
    assert (swapped.p, swapped.difference) == (ours.p, -ours.difference)


def test_mcnemar_by_hand_ignores_what_both_have_right_or_wrong():
    # six of six coins on one side: 2 / 2**6
    for both, neither in ((0, 0), (500, 3)):
        assert significance.mcnemar(*vector(6, 0, both, neither)).p == pytest.approx(2 / 64)


def test_mcnemar_on_another_published_example():
    # Fagerland, Lydersen & Laake 2013, airway responsiveness before and after: 1 and 7 of 21, p = .0703
    assert significance.mcnemar(*vector(1, 7, 1, 12)).p == pytest.approx(0.0703, abs=5e-5)


def test_mcnemar_without_disagreement():
    assert significance.mcnemar(*vector(0, 0, 3, 2)).p == 1


def test_no_items_are_refused_with_a_clear_error():
    nothing = np.array([], dtype=bool)
    for test in (significance.mcnemar, significance.equivalence):
        with pytest.raises(ValueError, match=r"at least one, got shape \(0,\)"):
            test(nothing, nothing)
    with pytest.raises(ValueError, match="n >= 1, got b=0, c=0, n=0"):
        significance.equivalence_of_counts(0, 0, 0)
    for test in (significance.paired_bootstrap, significance.sign_flip):
        with pytest.raises(ValueError, match="at least two items to resample, got 0"):
            test([], [])


def test_mcnemar_refuses_arrays_that_are_not_paired_or_not_bool():
    with pytest.raises(ValueError, match="same items, got 3 and 2"):
        significance.mcnemar(np.ones(3, bool), np.ones(2, bool))
    with pytest.raises(ValueError, match="bool array"):
        significance.mcnemar(np.array([3, 5]), np.array([3, 5]))  # predictions instead of right and wrong


def test_paired_bootstrap_uses_the_pairing():
    rng = np.random.default_rng(0)
    b = rng.normal(scale=10, size=200)
    a = b + 0.5 + rng.normal(scale=0.1, size=200)
    low, high = significance.paired_bootstrap(a, b)
    assert 0.47 < low < 0.5 < high < 0.53
    unpaired_low, unpaired_high = significance.paired_bootstrap(a, rng.permutation(b))
    assert unpaired_high - unpaired_low > 20 * (high - low)


def test_paired_bootstrap_equals_scipy_on_right_and_wrong():
    from scipy.stats import bootstrap

    a, b = vector(60, 30, 300, 110)
    theirs = bootstrap((a, b), lambda x, y: x.mean() - y.mean(), paired=True, vectorized=False,
                       n_resamples=3000,
                       method="percentile", rng=0).confidence_interval
    assert significance.paired_bootstrap(a, b, resamples=3000) == pytest.approx((theirs.low, theirs.high),
                                                                           abs=0.004)
    assert significance.paired_bootstrap(a, a) == (0, 0)
    with pytest.raises(ValueError, match=r"\(500,\) and \(3,\)"):
        significance.paired_bootstrap(a, b[:3])


def test_paired_bootstrap_by_cluster_keeps_movies_together():
    # in each of 8 movies method a wins or loses all 12 clips: 8 witnesses, not 96
    movies = np.repeat(np.arange(8), 12)
    a = np.random.default_rng(0).integers(0, 2, 8)[movies].astype(bool)
    low, high = significance.paired_bootstrap(a, ~a, clusters=movies)
    alone_low, alone_high = significance.paired_bootstrap(a, ~a)
    assert high - low > 2.5 * (alone_high - alone_low)


# ---- Sign flips


DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])  # cross - self, 1/8 inch


def test_sign_flip_on_darwins_plants():
    """Fisher 1935, §21: of 32,768 ways to set the signs, 1726 give a sum as far from 0 as 314."""
    assert DARWIN.sum() == 314
    assert significance.sign_flip(DARWIN, 0 * DARWIN, resamples=2**15) == pytest.approx(1726 / 2**15)
    drawn = significance.sign_flip(DARWIN, 0 * DARWIN, resamples=9999, seed=1)  # too few for all: drawn
    assert drawn == pytest.approx(1726 / 2**15, abs=0.007)
    assert drawn == significance.sign_flip(DARWIN, 0 * DARWIN, resamples=9999, seed=1)


@pytest.mark.parametrize("b, c", [(6, 0), (7, 2), (5, 5)])
def test_sign_flip_of_right_and_wrong_is_mcnemars_test(b, c):
    a, other = vector(b, c, 30, 10)
    assert significance.sign_flip(a, other) == pytest.approx(significance.mcnemar(a, other).p)


def test_sign_flip_by_cluster_equals_a_slow_loop():
    rng = np.random.default_rng(0)
    movies = np.repeat(np.arange(7), 3)
    a, b = rng.normal(size=21) + 0.4, rng.normal(size=21)
    sums = np.array([(a - b)[movies == movie].sum() for movie in range(7)])
    flipped = np.array([np.dot(signs, sums) for signs in product([1, -1], repeat=7)])
    slow = 2 * min((flipped >= sums.sum() - 1e-9).mean(), (flipped <= sums.sum() + 1e-9).mean())
    assert significance.sign_flip(a, b, clusters=movies) == pytest.approx(min(1, slow))


def test_sign_flip_of_identical_values_is_one():
    assert significance.sign_flip(DARWIN, DARWIN) == 1.0
    # clusters in which gains and losses cancel say nothing either
    assert significance.sign_flip([1.0, 2.0, 5.0, 4.0], [2.0, 1.0, 4.0, 5.0], clusters=[0, 0, 1, 1]) == 1.0


# ---- Equivalence


@pytest.mark.parametrize("b, c, n, verdict", [
    (40, 45, 10_000, "equivalent"),
    (30, 640, 10_000, "different"),
    (640, 30, 10_000, "different"),
    (150, 40, 10_000, "inconclusive"),   # 1.1 points +/- 0.23 reaches across the margin
    (2, 3, 50, "inconclusive"),          # few pictures: a difference that isn't significant proves nothing
    (0, 0, 20, "inconclusive"),          # never a disagreement, but on 20 pictures
    (0, 0, 2000, "equivalent"),
])
def test_equivalence_verdicts(b, c, n, verdict):
    found = significance.equivalence(*vector(b, c, n - b - c, 0))
    assert found.verdict == verdict
    assert found.difference == pytest.approx((b - c) / n)


def test_equivalence_interval_by_hand():
    # b' = 10.5, c' = 4.5, n' = 102: 6/102 +/- 1.6449 / 102 * sqrt(15 - 36/102)
    found = significance.equivalence_of_counts(10, 4, 100)
    half = 1.644854 / 102 * np.sqrt(15 - 36 / 102)
    assert (found.low, found.high) == pytest.approx((6 / 102 - half, 6 / 102 + half), abs=1e-6)


def test_equivalence_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, covered = 0.06 - 0.04, 0
    for b, c, _ in rng.multinomial(400, [0.06, 0.04, 0.90], size=4000):
        found = significance.equivalence_of_counts(b, c, 400)
        covered += found.low <= truth <= found.high
    assert covered / 4000 == pytest.approx(0.90, abs=0.02)


@pytest.mark.parametrize("b, c, n", [(40, 45, 10_000), (150, 40, 10_000), (30, 60, 2000), (90, 40, 3000)])
def test_equivalence_equals_statsmodels_paired_tost_where_n_is_large(b, c, n):
    from statsmodels.stats.weightstats import ttost_paired

    a, other = vector(b, c, n - b - c, 0)
    theirs = ttost_paired(a.astype(float), other.astype(float), -0.01, 0.01)[0]
    ours = significance.equivalence(a, other)
    assert ours.p == pytest.approx(theirs, abs=0.004)
    assert (ours.p < 0.05) == (ours.verdict == "equivalent")


def test_equivalence_p_by_hand():
    from scipy.stats import norm

    # b = c: the center is 0 and both one-sided z are margin / error
    found = significance.equivalence_of_counts(20, 20, 1000, margin=0.01)
    assert found.p == pytest.approx(1 - norm.cdf(0.01 / (41**0.5 / 1002)))


def test_equivalence_refuses_counts_that_cannot_be():
    with pytest.raises(ValueError, match="b=3, c=2, n=4"):
        significance.equivalence_of_counts(3, 2, 4)
    with pytest.raises(ValueError, match="margin > 0"):
        significance.equivalence_of_counts(3, 2, 10, margin=0)


def test_holm_by_hand_and_as_statsmodels():
    from statsmodels.stats.multitest import multipletests

    # smallest 0.01 times 3; then 0.03 times 2; then 0.04 times 1, raised to the one before
    np.testing.assert_allclose(significance.holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])
    p = np.random.default_rng(0).random(25) ** 3
    np.testing.assert_allclose(significance.holm(p), multipletests(p, method="holm")[1])
    assert significance.holm([]).shape == (0,)
    with pytest.raises(ValueError, match="from 0 to 1"):
        significance.holm([0.2, 1.3])


def test_holm_on_a_published_example():
    # Wikipedia, "Holm–Bonferroni method": at 5 % the first and the last are rejected
    np.testing.assert_allclose(significance.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


# ---- All at once


def test_paired_table_has_what_the_single_tests_say():
    against, good = vector(10, 40, 130, 20)
    table = significance.paired_table(against, {"good": good, "same": against})
    test = significance.mcnemar(against, good)
    row = table.loc["good"]
    assert (row["b"], row["c"], row["n"], row["difference"]) == (10, 40, 200, 30 / 200)
    assert row["accuracy"] == 170 / 200 and row["low"] < 0.85 < row["high"]
    assert row["p"] == test.p and row["p_holm"] == pytest.approx(2 * test.p)
    assert table.loc["same", ["b", "c", "p", "p_holm"]].tolist() == [0, 0, 1, 1]
    assert table["equivalence"].tolist() == ["different", "equivalent"]
    assert len(significance.paired_table(against, {})) == 0


def test_sign_flip_of_one_cluster_that_differs_says_nothing():
    a, b = np.array([1.0, 1.0, 0.5]), np.array([0.0, 0.0, 0.5])
    assert significance.sign_flip(a, b, clusters=["M", "M", "N"]) == 1.0
