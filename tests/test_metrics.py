"""Metrics against values worked by hand, slow loops, SciPy, statsmodels and scikit-learn."""

import numpy as np
import pytest

from impart_utils.evidence import metrics


def vector(b, c, both, neither):
    """Two methods' right and wrong with these four counts."""
    a = [True] * b + [False] * c + [True] * both + [False] * neither
    other = [False] * b + [True] * c + [True] * both + [False] * neither
    return np.array(a, dtype=bool), np.array(other, dtype=bool)


# ---- Ranking


def test_ranks_by_hand():
    similarities = [[0.9, 0.1, 0.5], [0.2, 0.8, 0.7], [0.6, 0.5, 0.4]]
    np.testing.assert_array_equal(metrics.ranks(similarities, np.array([0, 2, 2])), [1, 2, 3])


def test_ties_count_against_us():
    # a collapsed model, which gives every film the same score, must not get R@1 = 1
    collapsed = metrics.ranks(np.zeros((5, 4)), np.array([0, 1, 2, 3, 0]))
    np.testing.assert_array_equal(collapsed, [4, 4, 4, 4, 4])
    assert metrics.recall_at(collapsed, 1) == 0


def test_ranks_equal_a_slow_loop_and_may_be_negative():
    rng = np.random.default_rng(0)
    similarities = rng.normal(size=(40, 9)).round(1) - 5  # rounding makes ties; all below zero
    truth = rng.integers(0, 9, size=40)
    slow = [1 + sum(s >= row[t] for i, s in enumerate(row) if i != t)
            for row, t in zip(similarities, truth, strict=True)]
    np.testing.assert_array_equal(metrics.ranks(similarities, truth), slow)


def test_ranks_refuse_nan_and_name_the_row():
    similarities = np.zeros((3, 2))
    similarities[1, 0] = np.nan
    with pytest.raises(ValueError, match="Row 1 of similarities holds NaN"):
        metrics.ranks(similarities, np.zeros(3, int))


@pytest.mark.parametrize("truth, message", [
    (np.array([0, 2]), "from 0 to 1, got 0 to 2"), (np.array([-1, 0]), "from 0 to 1, got -1 to 0"),
    (np.array([0]), r"\(2, 2\) and \(1,\)"), (np.array([0.0, 1.0]), "whole numbers"),
])
def test_ranks_refuse_a_truth_that_is_no_column(truth, message):
    with pytest.raises(ValueError, match=message):
        metrics.ranks(np.eye(2), truth)


def test_summaries_of_ranks_by_hand():
    ranks = np.array([1, 2, 4, 10])
    assert metrics.recall_at(ranks, 1) == 0.25
    assert metrics.recall_at(ranks, 4) == 0.75  # rank k is still among the first k
    assert metrics.median_rank(ranks) == 3
    assert metrics.mean_rank(ranks) == 4.25
    assert metrics.mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 10) / 4)


@pytest.mark.parametrize("bad", [[], [0, 1], [[1, 2]]])
def test_summaries_refuse_what_is_no_rank(bad):
    for summary in (metrics.median_rank, metrics.mean_rank, metrics.mean_reciprocal_rank):
        with pytest.raises(ValueError, match="Expected ranks"):
            summary(np.array(bad))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        metrics.recall_at([1, 2], 0)


def test_recall_and_mrr_equal_scikit_learn():
    from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

    rng = np.random.default_rng(1)
    similarities, truth = rng.normal(size=(60, 7)), rng.integers(0, 7, size=60)
    ranks = metrics.ranks(similarities, truth)
    for k in (1, 3, 5):
        assert metrics.recall_at(ranks, k) == pytest.approx(
            top_k_accuracy_score(truth, similarities, k=k, labels=range(7)))
    assert metrics.mean_reciprocal_rank(ranks) == pytest.approx(
        label_ranking_average_precision_score(np.eye(7)[truth], similarities))


def test_average_precision_by_hand_and_as_scikit_learn():
    from sklearn.metrics import average_precision_score

    # places 1 and 3 are relevant: (1/1 + 2/3) / 2
    assert metrics.average_precision([0.9, 0.8, 0.7], [True, False, True]) == pytest.approx(5 / 6)
    rng = np.random.default_rng(2)
    scores, relevant = rng.normal(size=50), rng.random(50) < 0.3
    assert metrics.average_precision(scores,
                                     relevant) == pytest.approx(average_precision_score(relevant, scores))


def test_average_precision_with_ties_and_without_a_relevant_item():
    assert metrics.average_precision([1.0, 1.0, 1.0], [True, False, False]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="with 0 relevant"):
        metrics.average_precision([1.0, 2.0], [False, False])
    with pytest.raises(ValueError, match="Score 1 is NaN"):
        metrics.average_precision([1.0, np.nan], [True, False])


def test_temporal_iou_by_hand_and_as_box_iou():
    from torch import tensor
    from torchvision.ops import box_iou

    assert metrics.temporal_iou([0, 10], [5, 15]) == pytest.approx(5 / 15)
    assert metrics.temporal_iou([0, 1], [1, 2]) == 0  # they touch
    assert metrics.temporal_iou([0, 1], [5, 6]) == 0
    assert metrics.temporal_iou([2, 8], [3, 4]) == pytest.approx(1 / 6)  # one inside the other
    a, b = np.array([[0.0, 4.0], [2.0, 3.0]]), np.array([[1.0, 5.0], [2.5, 9.0], [7.0, 8.0]])
    boxes = [tensor([[s, 0, e, 1] for s, e in block]) for block in (a, b)]
    np.testing.assert_allclose(metrics.temporal_iou(a[:, None], b[None]), box_iou(*boxes), atol=1e-6)
    with pytest.raises(ValueError, match="start < end"):
        metrics.temporal_iou([3, 3], [0, 1])


# ---- One accuracy


@pytest.mark.parametrize("correct, n, low, high", [
    (8878, 10_000, 0.8815, 0.8938),  # the paper's CLIP on CIFAR-10; notes/dependencies.md, §7
    (69, 115, 0.509, 0.685),         # the same section
    (0, 10, 0.0, 0.2775),            # Brown, Cai & DasGupta 2001: z² / (n + z²)
])
def test_wilson_on_published_values(correct, n, low, high):
    assert metrics.wilson(correct, n) == pytest.approx((low, high), abs=6e-4 if n < 1000 else 6e-5)


@pytest.mark.parametrize("correct, n", [(0, 7), (1, 1), (7, 7), (3, 8), (449, 500), (8678, 8678)])
@pytest.mark.parametrize("confidence", [0.90, 0.95])
def test_wilson_equals_scipy_and_statsmodels(correct, n, confidence):
    from scipy.stats import binomtest
    from statsmodels.stats.proportion import proportion_confint

    ours = metrics.wilson(correct, n, confidence)
    theirs = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours == pytest.approx(proportion_confint(correct, n, 1 - confidence, method="wilson"), abs=1e-12)


def test_wilson_ends_are_exact():
    assert metrics.wilson(0, 3)[0] == 0
    assert metrics.wilson(3, 3)[1] == 1


@pytest.mark.parametrize("correct, n", [(0, 0), (5, 4), (-1, 4), (2.5, 4)])
def test_wilson_refuses(correct, n):
    with pytest.raises(ValueError, match="0 <= correct <= n and n >= 1"):
        metrics.wilson(correct, n)


def test_wilson_refuses_a_confidence_in_percent():
    with pytest.raises(ValueError, match="got 95"):
        metrics.wilson(3, 4, 95)


def test_bootstrap_equals_scipys_percentile_interval():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).exponential(size=80)
    for statistic in (np.mean, np.median):
        theirs = bootstrap((values,), statistic, method="percentile", n_resamples=4000,
                           rng=1).confidence_interval
        ours = metrics.bootstrap_interval(values, statistic, resamples=4000, seed=2)
        # both sides' chance; the width is 0.4
        assert ours == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_bootstrap_is_seeded_and_identical_values_have_no_width():
    values = np.arange(20.0)
    assert metrics.bootstrap_interval(values, seed=3) == metrics.bootstrap_interval(values, seed=3)
    assert metrics.bootstrap_interval(values, seed=3) != metrics.bootstrap_interval(values, seed=4)
    assert metrics.bootstrap_interval(np.full(9, 2.5), np.median) == (2.5, 2.5)  # BCa gives NaN here


def test_clusters_that_agree_within_make_the_interval_wider():
    # 6 movies of 10 clips, all clips of a movie alike: 6 witnesses, not 60
    rng = np.random.default_rng(0)
    movies = np.repeat(np.arange(6), 10)
    values = rng.normal(size=6)[movies]
    low, high = metrics.bootstrap_interval(values, clusters=movies)
    alone_low, alone_high = metrics.bootstrap_interval(values)
    assert high - low > 2 * (alone_high - alone_low)


def test_clusters_of_one_item_equal_no_clusters():
    values = np.random.default_rng(0).normal(size=30)
    assert metrics.bootstrap_interval(values, clusters=np.arange(30), seed=1) == pytest.approx(
        metrics.bootstrap_interval(values, seed=1))


def test_clusters_keep_all_their_items():
    # a statistic that sees whether a movie came apart: each has the values 0 and 1 once
    values, movies = np.tile([0.0, 1.0], 5), np.repeat(list("abcde"), 2)
    assert metrics.bootstrap_interval(values, clusters=movies) == (0.5, 0.5)


def test_bootstrap_refuses_one_cluster_one_item_and_nan():
    with pytest.raises(ValueError, match="at least two clusters to resample, got 1"):
        metrics.bootstrap_interval(np.arange(4.0), clusters=["a"] * 4)
    with pytest.raises(ValueError, match="at least two items to resample, got 1"):
        metrics.bootstrap_interval(np.array([1.0]))
    with pytest.raises(ValueError, match="finite"):
        metrics.bootstrap_interval(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="one cluster label for each of 4 items"):
        metrics.bootstrap_interval(np.arange(4.0), clusters=["a", "b"])


def test_mean_per_class_interval_equals_a_slow_stratified_bootstrap():
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1, 2], [5, 40, 100])
    correct = rng.random(145) < np.array([0.4, 0.8, 0.9])[labels]
    found = []
    for _ in range(3000):
        drawn = [rng.choice(correct[labels == c], size=(labels == c).sum()).mean() for c in range(3)]
        found.append(np.mean(drawn))
    slow = np.percentile(found, [2.5, 97.5])
    assert metrics.mean_per_class_interval(correct, labels, resamples=3000) == pytest.approx(tuple(slow),
                                                                                             abs=0.015)


def test_mean_per_class_interval_keeps_classes_apart():
    # both classes are certain, so there is nothing to resample, whatever the micro accuracy's width is
    labels = np.repeat([3, 7], [90, 10])
    assert metrics.mean_per_class_interval(labels == 3, labels) == (0.5, 0.5)
    with pytest.raises(ValueError, match="one label for each of 100"):
        metrics.mean_per_class_interval(labels == 3, labels[:5])


# ---- Two methods


def test_mcnemar_on_the_published_example():
    # notes/dependencies.md, §7: b = 120, c = 90 -> p = .0451
    test = metrics.mcnemar(*vector(120, 90, 300, 40))
    assert (test.b, test.c, test.n, test.difference) == (120, 90, 550, 30)
    assert test.p == pytest.approx(0.0451, abs=5e-5)


@pytest.mark.parametrize("b, c", [(0, 6), (3, 1), (5, 5), (40, 22), (1, 0)])
def test_mcnemar_equals_statsmodels_and_is_symmetric(b, c):
    from statsmodels.stats.contingency_tables import mcnemar

    ours = metrics.mcnemar(*vector(b, c, 20, 10))
    assert ours.p == pytest.approx(mcnemar([[20, b], [c, 10]], exact=True).pvalue)
    swapped = metrics.mcnemar(*vector(c, b, 20, 10))
    assert (swapped.p, swapped.difference) == (ours.p, -ours.difference)


def test_mcnemar_by_hand_ignores_what_both_have_right_or_wrong():
    # six of six coins on one side: 2 / 2**6
    for both, neither in ((0, 0), (500, 3)):
        assert metrics.mcnemar(*vector(6, 0, both, neither)).p == pytest.approx(2 / 64)


def test_mcnemar_without_disagreement():
    assert metrics.mcnemar(*vector(0, 0, 3, 2)).p == 1


def test_mcnemar_refuses_arrays_that_are_not_paired_or_not_bool():
    with pytest.raises(ValueError, match="same items, got 3 and 2"):
        metrics.mcnemar(np.ones(3, bool), np.ones(2, bool))
    with pytest.raises(ValueError, match="bool array"):
        metrics.mcnemar(np.array([3, 5]), np.array([3, 5]))  # predictions instead of right and wrong


def test_paired_bootstrap_uses_the_pairing():
    rng = np.random.default_rng(0)
    b = rng.normal(scale=10, size=200)
    a = b + 0.5 + rng.normal(scale=0.1, size=200)
    low, high = metrics.paired_bootstrap(a, b)
    assert 0.47 < low < 0.5 < high < 0.53
    unpaired_low, unpaired_high = metrics.paired_bootstrap(a, rng.permutation(b))
    assert unpaired_high - unpaired_low > 20 * (high - low)


def test_paired_bootstrap_equals_scipy_on_right_and_wrong():
    from scipy.stats import bootstrap

    a, b = vector(60, 30, 300, 110)
    theirs = bootstrap((a, b), lambda x, y: x.mean() - y.mean(), paired=True, vectorized=False,
                       n_resamples=3000,
                       method="percentile", rng=0).confidence_interval
    assert metrics.paired_bootstrap(a, b, resamples=3000) == pytest.approx((theirs.low, theirs.high),
                                                                           abs=0.004)
    assert metrics.paired_bootstrap(a, a) == (0, 0)
    with pytest.raises(ValueError, match=r"\(500,\) and \(3,\)"):
        metrics.paired_bootstrap(a, b[:3])


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
    found = metrics.equivalence(*vector(b, c, n - b - c, 0))
    assert found.verdict == verdict
    assert found.difference == pytest.approx((b - c) / n)


def test_equivalence_interval_by_hand():
    # b' = 10.5, c' = 4.5, n' = 102: 6/102 +/- 1.6449 / 102 * sqrt(15 - 36/102)
    found = metrics.equivalence_of_counts(10, 4, 100)
    half = 1.644854 / 102 * np.sqrt(15 - 36 / 102)
    assert (found.low, found.high) == pytest.approx((6 / 102 - half, 6 / 102 + half), abs=1e-6)


def test_equivalence_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, covered = 0.06 - 0.04, 0
    for b, c, _ in rng.multinomial(400, [0.06, 0.04, 0.90], size=4000):
        found = metrics.equivalence_of_counts(b, c, 400)
        covered += found.low <= truth <= found.high
    assert covered / 4000 == pytest.approx(0.90, abs=0.02)


def test_equivalence_refuses_counts_that_cannot_be():
    with pytest.raises(ValueError, match="b=3, c=2, n=4"):
        metrics.equivalence_of_counts(3, 2, 4)
    with pytest.raises(ValueError, match="margin > 0"):
        metrics.equivalence_of_counts(3, 2, 10, margin=0)


def test_holm_by_hand_and_as_statsmodels():
    from statsmodels.stats.multitest import multipletests

    # smallest 0.01 times 3; then 0.03 times 2; then 0.04 times 1, raised to the one before
    np.testing.assert_allclose(metrics.holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])
    p = np.random.default_rng(0).random(25) ** 3
    np.testing.assert_allclose(metrics.holm(p), multipletests(p, method="holm")[1])
    assert metrics.holm([]).shape == (0,)
    with pytest.raises(ValueError, match="from 0 to 1"):
        metrics.holm([0.2, 1.3])
