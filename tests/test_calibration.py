"""Calibration: by hand, against scikit-learn, and on scores whose right temperature is known."""

import numpy as np
import pytest
from scipy.special import softmax

from impart_utils.evidence import calibration


def two_classes(confidences, right):
    """Probabilities of class 0 and labels, so that the prediction is right or not as said."""
    p = np.column_stack([confidences, 1 - np.array(confidences)])
    return p, np.where(right, 0, 1)


def test_reliability_and_ece_by_hand():
    p, labels = two_classes([0.95, 0.95, 0.65, 0.65, 0.65], [True, True, True, False, False])
    table = calibration.reliability_table(p, labels, bins=10)
    np.testing.assert_allclose(table["low"], [0.6, 0.9])
    np.testing.assert_allclose(table["high"], [0.7, 1.0])
    assert table["n"].tolist() == [3, 2]
    np.testing.assert_allclose(table["accuracy"], [1 / 3, 1])
    np.testing.assert_allclose(table["confidence"], [0.65, 0.95])
    ece = calibration.expected_calibration_error(p, labels, bins=10)
    assert ece == pytest.approx(3 / 5 * (0.65 - 1 / 3) + 2 / 5 * 0.05)


def test_bins_are_open_below_and_closed_above():
    p, labels = two_classes([0.75, 0.5, 1.0], [True, True, True])
    table = calibration.reliability_table(p, labels, bins=4)  # edges 0, .25, .5, .75, 1
    assert list(zip(table["high"], table["n"], strict=True)) == [(0.5, 1), (0.75, 1), (1.0, 1)]


def test_bins_of_equal_count():
    p, labels = two_classes([0.51, 0.9, 0.6, 0.8, 0.7], [False, True, True, True, False])
    table = calibration.reliability_table(p, labels, bins=2, binning="count")
    assert table["n"].tolist() == [3, 2]
    np.testing.assert_allclose(table[["low", "high"]], [[0.51, 0.7], [0.8, 0.9]])
    np.testing.assert_allclose(table["accuracy"], [1 / 3, 1])
    many = calibration.reliability_table(p, labels, bins=100, binning="count")
    assert many["n"].tolist() == [1] * 5  # never an empty bin
    with pytest.raises(ValueError, match="Unknown binning 'mass'. Known: width, count"):
        calibration.reliability_table(p, labels, binning="mass")
    with pytest.raises(ValueError, match="at least one bin, got bins=0"):
        calibration.reliability_table(p, labels, bins=0)


@pytest.mark.parametrize("strategy, binning", [("uniform", "width"), ("quantile", "count")])
def test_reliability_equals_scikit_learns_calibration_curve(strategy, binning):
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    p = softmax(rng.normal(size=(600, 5)) * 2, axis=1)
    labels = rng.integers(0, 5, 600)
    accuracy, confidence = calibration_curve(p.argmax(axis=1) == labels, p.max(axis=1), n_bins=10,
                                             strategy=strategy)
    table = calibration.reliability_table(p, labels, bins=10, binning=binning)
    np.testing.assert_allclose(table["accuracy"], accuracy)
    np.testing.assert_allclose(table["confidence"], confidence)


def test_brier_by_hand_and_as_scikit_learn_for_two_classes():
    from sklearn.metrics import brier_score_loss

    assert calibration.brier(np.array([[0.7, 0.2, 0.1]]), np.array([1])) == pytest.approx(0.49 + 0.64 + 0.01)
    assert calibration.brier(np.eye(3), np.array([0, 1, 2])) == 0
    assert calibration.brier(np.eye(3), np.array([1, 2, 0])) == 2
    rng = np.random.default_rng(0)
    p, labels = rng.random(50), rng.integers(0, 2, 50)
    both = np.column_stack([1 - p, p])
    assert calibration.brier(both, labels) == pytest.approx(2 * brier_score_loss(labels, p))


def test_log_loss_equals_scikit_learn_and_does_not_overflow():
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(80, 4)) * 5, rng.integers(0, 4, 80)
    assert calibration.log_loss(scores, labels, 2.0) == pytest.approx(log_loss(labels,
                                                                               softmax(scores / 2, axis=1)))
    assert calibration.log_loss(np.array([[1e4, 0.0]]), np.array([1])) == pytest.approx(1e4)


def drawn_labels(scores, temperature, seed=0):
    """Labels drawn from softmax(scores / T): T is then the right temperature."""
    p = softmax(scores / temperature, axis=1)
    return (np.random.default_rng(seed).random(len(p))[:, None] > p.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_fit_temperature_finds_the_one_the_labels_were_drawn_with(temperature):
    scores = np.random.default_rng(1).normal(size=(20_000, 6)) * 3
    labels = drawn_labels(scores, temperature)
    assert calibration.fit_temperature(scores, labels) == pytest.approx(temperature, rel=0.05)


def test_fit_temperature_is_the_minimum():
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=(300, 4)), rng.integers(0, 4, 300)
    labels[:200] = scores[:200].argmax(axis=1)
    fit = calibration.fit_temperature(scores, labels)
    losses = {t: calibration.log_loss(scores, labels, t) for t in (fit, 0.98 * fit, 1.02 * fit, 1.0)}
    assert min(losses, key=losses.get) == fit


def test_temperature_of_scores_that_are_always_right_and_of_scores_that_say_nothing():
    always = calibration.fit_temperature(10 * np.eye(4), np.arange(4))
    assert always < 0.5 and calibration.log_loss(10 * np.eye(4), np.arange(4), always) < 1e-8
    wrong = np.eye(4)[[1, 2, 3, 0]]
    assert calibration.fit_temperature(wrong, np.arange(4)) == pytest.approx(100, rel=0.01)


def test_calibration_table_fits_on_one_split_and_measures_on_the_other():
    scores = np.random.default_rng(3).normal(size=(8000, 5)) * 2
    labels = drawn_labels(scores, 1.0)
    split = {"too sure": (3 * scores[:4000], labels[:4000]), "honest": (scores[:4000], labels[:4000])}
    test = {"too sure": (3 * scores[4000:], labels[4000:]), "honest": (scores[4000:], labels[4000:])}
    table = calibration.calibration_table(split, test).set_index(["method", "fit"])
    assert table.loc[("too sure", True), "temperature"] == pytest.approx(3, rel=0.1)
    assert table.loc[("too sure", False), "ece"] > 0.15 > 0.03 > table.loc[("too sure", True), "ece"]
    assert table.loc[("too sure", True), "brier"] < table.loc[("too sure", False), "brier"]
    assert table.loc[("too sure", True), "log_loss"] == pytest.approx(table.loc[("honest", True), "log_loss"])
    assert table["accuracy"].nunique() == 1  # one temperature changes no prediction
    assert (table["n"] == 4000).all()
    fit = calibration.fit_temperature(*split["too sure"])
    p = softmax(test["too sure"][0] / fit, axis=1)
    assert table.loc[("too sure", True), "ece"] == pytest.approx(
        calibration.expected_calibration_error(p, test["too sure"][1]))
    with pytest.raises(ValueError, match="got honest to fit on and too sure, honest to test"):
        calibration.calibration_table({"honest": split["honest"]}, test)


def test_scores_are_no_probabilities():
    with pytest.raises(ValueError, match="sum to 1, got sums from 30 to 30. Give softmax"):
        calibration.brier(np.full((2, 3), 10.0), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"with n >= 1, got \(0, 3\) and \(0,\)"):
        calibration.brier(np.empty((0, 3)), np.empty(0, int))
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(3,\)"):
        calibration.reliability_table(np.full((2, 2), 0.5), np.zeros(3, int))
