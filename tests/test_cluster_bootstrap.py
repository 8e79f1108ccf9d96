"""Many bootstrap intervals from the same draws: against resampling item by item."""

import numpy as np
import pytest

from impart_utils.evidence.cluster_bootstrap import draw_counts, mean_row, resampled_medians
from impart_utils.evidence.intervals import bootstrap_interval

CLUSTERS = np.repeat(np.arange(9), [1, 5, 4, 4, 2, 7, 3, 3, 6])


def test_whole_clusters_are_drawn_as_often_as_there_are():
    counts = draw_counts(CLUSTERS, seed=1, resamples=50)
    assert counts.shape == (50, 35)
    for cluster in range(9):
        inside = counts[:, CLUSTERS == cluster]
        assert (inside == inside[:, :1]).all()  # all items of a cluster together
    first = np.unique(CLUSTERS, return_index=True)[1]
    assert (counts[:, first].sum(axis=1) == 9).all()
    np.testing.assert_array_equal(counts, draw_counts(CLUSTERS, seed=1, resamples=50))
    assert (counts != draw_counts(CLUSTERS, seed=2, resamples=50)).any()


def test_items_of_one_cluster_are_drawn_one_by_one():
    counts = draw_counts(["M"] * 6, resamples=200)
    assert (counts.sum(axis=1) == 6).all() and (counts.std(axis=1) > 0).any()


def test_means_and_medians_are_those_of_the_drawn_items():
    values = np.random.default_rng(0).integers(1, 40, 35).astype(float)
    counts = draw_counts(CLUSTERS, seed=3, resamples=60)
    drawn = [np.repeat(values, line.astype(int)) for line in counts]
    np.testing.assert_allclose(resampled_medians(values, counts), [np.median(items) for items in drawn])
    means = [items.mean() for items in drawn]
    row = mean_row("m", values, counts)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), rel=1e-5)
    assert row["value"] == values.mean() and row["n"] == 35 and row["metric"] == "m"


def test_intervals_agree_with_the_kits_own_bootstrap():
    values = np.random.default_rng(1).exponential(10, 35)
    row = mean_row("m", values, draw_counts(CLUSTERS, resamples=8000))
    low, high = bootstrap_interval(values, clusters=CLUSTERS, resamples=4000, seed=5)
    assert row["low"] == pytest.approx(low, abs=0.4) and row["high"] == pytest.approx(high, abs=0.4)
