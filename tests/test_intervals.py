"""Intervals against published values, SciPy, statsmodels and slow loops."""

import numpy as np
import pytest

from impart_utils.evidence import intervals


@pytest.mark.parametrize("correct, n, low, high", [
    (8878, 10_000, 0.8815, 0.8938),  # the paper's CLIP on CIFAR-10; notes/dependencies.md, §7
    (69, 115, 0.509, 0.685),         # the same section
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),  # Newcombe 1998, table I, the score method
    (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    (0, 10, 0.0, 0.2775),            # Brown, Cai & DasGupta 2001: z² / (n + z²)
])
def test_wilson_on_published_values(correct, n, low, high):
    assert intervals.wilson(correct, n) == pytest.approx((low, high), abs=6e-4 if n == 115 else 6e-5)


@pytest.mark.parametrize("correct, n", [(0, 7), (1, 1), (7, 7), (3, 8), (449, 500), (8678, 8678)])
@pytest.mark.parametrize("confidence", [0.90, 0.95])
def test_wilson_equals_scipy_and_statsmodels(correct, n, confidence):
    from scipy.stats import binomtest
    from statsmodels.stats.proportion import proportion_confint

    ours = intervals.wilson(correct, n, confidence)
    theirs = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours == pytest.approx(proportion_confint(correct, n, 1 - confidence, method="wilson"), abs=1e-12)


DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]  # Fisher 1935, §14: eighths of an inch


def test_mean_interval_on_darwins_plants():
    """Fisher 1935, §15: the mean 20.933 has the standard error 9.746, and t of 14 degrees at 5 % is 2.145."""
    low, high = intervals.mean_interval(DARWIN)
    assert (low, high) == pytest.approx((20.933 - 2.145 * 9.746, 20.933 + 2.145 * 9.746), abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_mean_interval_equals_scipy(n):
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(n).normal(60, 2, n)
    for confidence in (0.90, 0.95):
        theirs = ttest_1samp(values, 0).confidence_interval(confidence)
        assert intervals.mean_interval(values, confidence) == pytest.approx(tuple(theirs), abs=1e-9)
    assert intervals.mean_interval([0.5] * n) == (0.5, 0.5)


def test_mean_interval_holds_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(60, 2, (2000, 3))
    held = [low <= 60 <= high for low, high in map(intervals.mean_interval, draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("values", [[0.5], [], [0.5, np.nan], [[0.5, 0.6]]])
def test_mean_interval_needs_several_finite_values(values):
    with pytest.raises(ValueError, match="Expected (at least two|finite)"):
        intervals.mean_interval(values)


def test_wilson_ends_are_exact():
    assert intervals.wilson(0, 3)[0] == 0
    assert intervals.wilson(3, 3)[1] == 1


@pytest.mark.parametrize("correct, n", [(0, 0), (5, 4), (-1, 4), (2.5, 4)])
def test_wilson_refuses(correct, n):
    with pytest.raises(ValueError, match="0 <= correct <= n and n >= 1"):
        intervals.wilson(correct, n)


def test_wilson_refuses_a_confidence_in_percent():
    with pytest.raises(ValueError, match="got 95"):
        intervals.wilson(3, 4, 95)


def test_bootstrap_equals_scipys_percentile_interval():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).exponential(size=80)
    for statistic in (np.mean, np.median):
        theirs = bootstrap((values,), statistic, method="percentile", n_resamples=4000,
                           rng=1).confidence_interval
        ours = intervals.bootstrap_interval(values, statistic, resamples=4000, seed=2)
        # both sides' chance; the width is 0.4
        assert ours == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_bootstrap_is_seeded_and_identical_values_have_no_width():
    values = np.arange(20.0)
    assert intervals.bootstrap_interval(values, seed=3) == intervals.bootstrap_interval(values, seed=3)
    assert intervals.bootstrap_interval(values, seed=3) != intervals.bootstrap_interval(values, seed=4)
    assert intervals.bootstrap_interval(np.full(9, 2.5), np.median) == (2.5, 2.5)  # BCa gives NaN here


def test_clusters_that_agree_within_make_the_interval_wider():
    # 6 movies of 10 clips, all clips of a movie alike: 6 witnesses, not 60
    rng = np.random.default_rng(0)
    movies = np.repeat(np.arange(6), 10)
    values = rng.normal(size=6)[movies]
    low, high = intervals.bootstrap_interval(values, clusters=movies)
    alone_low, alone_high = intervals.bootstrap_interval(values)
    assert high - low > 2 * (alone_high - alone_low)


def test_clusters_of_one_item_equal_no_clusters():
    values = np.random.default_rng(0).normal(size=30)
    assert intervals.bootstrap_interval(values, clusters=np.arange(30), seed=1) == pytest.approx(
        intervals.bootstrap_interval(values, seed=1))


def test_clusters_keep_all_their_items():
    # a statistic that sees whether a movie came apart: each has the values 0 and 1 once
    values, movies = np.tile([0.0, 1.0], 5), np.repeat(list("abcde"), 2)
    assert intervals.bootstrap_interval(values, clusters=movies) == (0.5, 0.5)


def test_bootstrap_refuses_one_cluster_one_item_and_nan():
    with pytest.raises(ValueError, match="at least two clusters to resample, got 1"):
        intervals.bootstrap_interval(np.arange(4.0), clusters=["a"] * 4)
    with pytest.raises(ValueError, match="at least two items to resample, got 1"):
        intervals.bootstrap_interval(np.array([1.0]))
    with pytest.raises(ValueError, match="finite"):
        intervals.bootstrap_interval(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="one cluster label for each of 4 items"):
        intervals.bootstrap_interval(np.arange(4.0), clusters=["a", "b"])


def test_mean_per_class_interval_equals_a_slow_stratified_bootstrap():
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1, 2], [5, 40, 100])
    correct = rng.random(145) < np.array([0.4, 0.8, 0.9])[labels]
    found = []
    for _ in range(3000):
        drawn = [rng.choice(correct[labels == c], size=(labels == c).sum()).mean() for c in range(3)]
        found.append(np.mean(drawn))
    slow = np.percentile(found, [2.5, 97.5])
    assert intervals.mean_per_class_interval(correct, labels, resamples=3000) == pytest.approx(tuple(slow),
                                                                                             abs=0.015)


def test_mean_per_class_interval_keeps_classes_apart():
    # both classes are certain, so there is nothing to resample, whatever the micro accuracy's width is
    labels = np.repeat([3, 7], [90, 10])
    assert intervals.mean_per_class_interval(labels == 3, labels) == (0.5, 0.5)
    with pytest.raises(ValueError, match="one label for each of 100"):
        intervals.mean_per_class_interval(labels == 3, labels[:5])


def slow_means(values, groups, resamples, seed):
    """Bootstrap means by drawing whole groups, item by item."""
    rng = np.random.default_rng(seed)
    return [np.concatenate([values[groups[g]] for g in rng.integers(0, len(groups), len(groups))]).mean()
            for _ in range(resamples)]


@pytest.mark.parametrize("kind", ["right or wrong", "reals", "clusters"])
def test_bootstrap_means_are_distributed_as_those_of_a_slow_loop(kind):
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(1)
    values = rng.normal(size=60) if kind == "reals" else rng.integers(-1, 2, 60).astype(float)
    clusters, groups = None, [np.array([row]) for row in range(60)]
    if kind == "clusters":
        clusters = np.repeat(np.arange(15), rng.multinomial(60, np.full(15, 1 / 15)))
        groups = [np.flatnonzero(clusters == g) for g in np.unique(clusters)]
    fast = intervals.bootstrap_means(values, clusters=clusters, resamples=4000, seed=2)
    slow = np.array(slow_means(values, groups, 4000, seed=3))
    assert fast.shape == (4000,)
    assert fast.std() == pytest.approx(slow.std(), rel=0.06)
    # sums of few values are lattice points: jitter, so that the test compares continuous samples
    jitter = rng.normal(scale=1e-3, size=(2, 4000))
    assert ks_2samp(fast + jitter[0], slow + jitter[1]).pvalue > 1e-3


def test_both_ways_of_drawing_agree():
    values = np.repeat([0.0, 1.0], [30, 70])           # few kinds: counts are drawn
    nearly = values + np.linspace(0, 1e-9, 100)        # all different: items are drawn
    fast, slow = (intervals.bootstrap_means(part, resamples=20_000, seed=1) for part in (values, nearly))
    assert fast.mean() == pytest.approx(0.7, abs=2e-3) == slow.mean()
    assert fast.std() == pytest.approx((0.21 / 100) ** 0.5, rel=0.03) == slow.std()


def test_bootstrap_means_in_blocks_are_seeded():
    values = np.random.default_rng(0).normal(size=6000)  # 6000 different values: several blocks of resamples
    one, two = (intervals.bootstrap_means(values, resamples=2000, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (2000,) and one.std() == pytest.approx(values.std() / 6000**0.5, rel=0.1)
    assert (intervals.bootstrap_means(np.full(5, 0.5), resamples=10) == 0.5).all()
