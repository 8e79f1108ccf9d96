"""Does a method know when it is right? Confidence against accuracy, before and after one temperature.

Confidence is the largest of softmax(scores / T). Scores are 100 times a cosine for most methods; where they
are no logits, such as X-MoRe's, give their logarithm.
"""

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax

BINNINGS = ("width", "count")


def reliability_table(probabilities, labels, *, bins=15, binning="width"):
    """Accuracy and mean confidence in bins of confidence: the points of a reliability diagram.

    Parameters
    ----------
    probabilities : array (n, c), rows that sum to 1;  labels : int array (n,)
    bins : int
    binning : "width", equal parts (low, high] of 0 to 1, as Guo et al. (ICML 2017); or "count", as many
        pictures in each bin as in the others (or one more)

    Returns
    -------
    table : DataFrame with one row per bin that isn't empty: low, high (the bin, or its smallest and largest
        confidence), n, confidence, accuracy
    """
    confidence, correct = _confidence(probabilities, labels)
    if binning not in BINNINGS:
        raise ValueError(f"Unknown binning {binning!r}. Known: {', '.join(BINNINGS)}.")
    if bins < 1:
        raise ValueError(f"Expected at least one bin, got bins={bins}.")
    if binning == "width":
        edges = np.linspace(0, 1, bins + 1)
        which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)  # (low, high]
        limits = {bin_: (edges[bin_], edges[bin_ + 1]) for bin_ in range(bins)}
        groups = [(limits[bin_], np.flatnonzero(which == bin_)) for bin_ in np.unique(which)]
    else:
        parts = [rows for rows in np.array_split(np.argsort(confidence, kind="stable"), bins) if len(rows)]
        groups = [((confidence[rows[0]], confidence[rows[-1]]), rows) for rows in parts]
    return pd.DataFrame([{"low": low, "high": high, "n": len(rows), "confidence": confidence[rows].mean(),
                          "accuracy": correct[rows].mean()} for (low, high), rows in groups])


def expected_calibration_error(probabilities, labels, *, bins=15, binning="width"):
    """ECE, a fraction: the pictures' mean gap of accuracy and confidence in a bin of `reliability_table`."""
    table = reliability_table(probabilities, labels, bins=bins, binning=binning)
    return float((table["n"] * (table["accuracy"] - table["confidence"]).abs()).sum() / table["n"].sum())


def brier(probabilities, labels):
    r"""Brier score over all classes, :math:`\frac1n \sum_i \sum_c (p_{ic} - [y_i = c])^2`: 0 best, 2 worst.

    Parameters
    ----------
    probabilities : array (n, c);  labels : int array (n,)
    """
    p = _probabilities(probabilities, labels)
    truth = np.eye(p.shape[1])[np.asarray(labels)]  # (n, c)
    return float(np.square(p - truth).sum(axis=1).mean())


def log_loss(scores, labels, temperature=1.0):
    """Mean of -log softmax(scores / T) of the right class, in nats."""
    logs = log_softmax(np.asarray(scores, np.float64) / temperature, axis=1)
    return float(-logs[np.arange(len(logs)), np.asarray(labels)].mean())


def fit_temperature(scores, labels, *, low=0.01, high=100.0):
    """The one T with the smallest log loss of softmax(scores / T); fit it on a tuning split, not on the test.

    Parameters
    ----------
    scores : array (n, c);  labels : int array (n,)
    low, high : float, where T is looked for

    Returns
    -------
    temperature : float. It changes no prediction. Where the scores have every label right it is only known
        to be small, where they say nothing of the labels it is `high`.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda log_t: log_loss(scores, labels, np.exp(log_t)),
                            bounds=(np.log(low), np.log(high)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def calibration_table(tuning, test, *, bins=15, binning="width"):
    """ECE, Brier score and log loss of methods on a test set, at T = 1 and at the T of a tuning split.

    Parameters
    ----------
    tuning, test : dicts, name of the method -> (scores (n, c), labels (n,)); the same names in both
    bins, binning : as in `reliability_table`

    Returns
    -------
    table : DataFrame with one row per method and temperature: method, temperature, fit (bool), accuracy,
        confidence, ece, brier, log_loss, n
    """
    if set(tuning) != set(test):
        raise ValueError(f"Expected the same methods on both splits, got {', '.join(tuning)} to fit on and "
                         f"{', '.join(test)} to test.")
    rows = []
    for name, (scores, labels) in test.items():
        for fit in (False, True):
            t = fit_temperature(*tuning[name]) if fit else 1.0
            p = softmax(np.asarray(scores, np.float64) / t, axis=1)
            confidence, correct = _confidence(p, labels)
            ece = expected_calibration_error(p, labels, bins=bins, binning=binning)
            rows.append({"method": name, "temperature": t, "fit": fit, "accuracy": float(correct.mean()),
                         "confidence": float(confidence.mean()), "ece": ece, "brier": brier(p, labels),
                         "log_loss": log_loss(scores, labels, t), "n": len(labels)})
    return pd.DataFrame(rows)


def _confidence(probabilities, labels):
    p = _probabilities(probabilities, labels)
    return p.max(axis=1), p.argmax(axis=1) == np.asarray(labels)


def _probabilities(probabilities, labels):
    p, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if p.ndim != 2 or not len(p) or labels.shape != (len(p),):
        raise ValueError(f"Expected probabilities (n, c) and labels (n,) with n >= 1, got {p.shape} and "
                         f"{labels.shape}.")
    if (p < 0).any() or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("Expected rows of probabilities that sum to 1, got sums from "
                         f"{p.sum(axis=1).min():.3g} to {p.sum(axis=1).max():.3g}. Give softmax(scores), not "
                         "scores.")
    return p
