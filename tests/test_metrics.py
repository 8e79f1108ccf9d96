"""Ranks and retrieval metrics against values worked by hand, slow loops and scikit-learn."""

import numpy as np
import pytest

from impart_utils.evidence import intervals, metrics, significance

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


def test_intervals_and_tests_can_be_had_from_here_too():
    for name in ("wilson", "bootstrap_interval", "mean_per_class_interval"):
        assert getattr(metrics, name) is getattr(intervals, name)
    for name in ("mcnemar", "McNemar", "paired_bootstrap", "sign_flip", "equivalence", "Equivalence",
                 "equivalence_of_counts", "holm"):
        assert getattr(metrics, name) is getattr(significance, name)
