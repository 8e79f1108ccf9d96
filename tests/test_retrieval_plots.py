"""Figures of notebook 07: what stands at which place, and what happens at the edges."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from impart_utils.evidence import calibration, curves, diagnostics, surface  # noqa: E402
from impart_utils.evidence import retrieval_plots as rp  # noqa: E402
from impart_utils.evidence.plots import METHOD_COLORS  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


def row(method, kind, b, c, n=100):
    return {"dataset": "toy10", "method": method, "kind": kind, "n": n, "b": b, "c": c}


def test_against_clip_stands_at_the_paired_difference():
    table = pd.DataFrame([row("RA-CLIP Vanilla", "method", 2, 5), row("caption vote", "rival", 40, 1),
                          row("random neighbors", "control", 4, 4)])
    fig = rp.against_clip(table, margin=1.0, toy=True)
    ax = fig.axes[0]
    points = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert points == [3.0, 0.0]
    assert [text.get_text() for text in ax.texts] == ["-39"]  # off the scale, named at the edge
    width = ax.collections[-1].get_segments()[0]  # the last drawn interval: b = c = 4
    assert width[1, 0] == pytest.approx(1.96 * 100 * np.sqrt(8) / 100, rel=1e-3)
    assert "toy world" in fig.get_suptitle()


def test_surface_marks_stand_at_their_weights():
    table = pd.DataFrame([{"k": k, "image_weight": w, "text_weight": t, "accuracy": 0.8 + 0.01 * (w - t)}
                          for k in (1, 8) for w in (0.0, 0.5, 1.0) for t in (0.0, 0.5, 1.0)])
    marks = pd.DataFrame([{"name": "main", "k": 8, "image_weight": 0.5, "text_weight": 0.0},
                          {"name": "far", "k": 8, "image_weight": 40.0, "text_weight": 0.0}])
    fig = rp.surface_maps(table, 0.8, marks=marks, top_ks=(1, 8), title="x", toy=False)
    first, second = fig.axes[:2]
    assert not first.texts and [text.get_text() for text in second.texts] == ["main"]
    assert second.texts[0].xy == (0.0, 0.5)
    mesh = second.collections[0]
    assert np.ravel(mesh.get_array())[0] == pytest.approx(0.0)
    assert mesh.get_clim() == pytest.approx((-1.0, 1.0))


def test_curves_have_their_bands_and_clip():
    draws = pd.DataFrame([{"curve": "size", "x": x, "method": method, "draw": draw, "accuracy": 0.5 + x / 1000
                           + draw / 100} for x in (10, 100) for draw in range(3)
                          for method in (curves.NEAREST, curves.RANDOM)])
    fig = rp.curve_bands(curves.band(draws).assign(dataset="toy10"), {"toy10": 0.6}, toy=False)
    ax = fig.axes[0]
    line = next(line for line in ax.lines if line.get_color() == METHOD_COLORS["RA-CLIP Vanilla"])
    np.testing.assert_allclose(line.get_ydata(), [52, 61])
    assert ax.get_xscale() == "log"
    assert any(np.allclose(line.get_ydata(), 60) for line in ax.lines if line.get_linestyle() == "-.")


def test_origins_keep_their_order():
    draws = pd.DataFrame([{"curve": "references", "x": name, "method": method, "draw": 0, "accuracy": value}
                          for name, value in (("ours", 0.7), ("theirs", 0.5))
                          for method in (curves.NEAREST, curves.RANDOM)])
    fig = rp.origin_bars(curves.band(draws).assign(dataset="toy10"), {"toy10": 0.6}, toy=False)
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["ours", "theirs"]
    firsts = [line.get_xdata() for line in fig.axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(firsts[0], [10, -10], atol=1e-9)


def test_hub_curves_start_with_the_most_wanted():
    counts = diagnostics.k_occurrence(np.array([[0, 1], [0, 2], [0, 1]]), 4)
    fig = rp.hub_curves({"toy10": counts, "random neighbors": np.full(4, 1)}, 2, toy=False)
    np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), np.array([3, 2, 1, 0]) / 1.5)
    assert fig.axes[0].lines[1].get_color() == METHOD_COLORS["random neighbors"]


def test_reliability_of_a_perfect_forecaster_lies_on_the_diagonal():
    probabilities = np.array([[0.75, 0.25]] * 4)
    table = calibration.reliability_table(probabilities, np.array([0, 0, 0, 1]), bins=4)
    fig = rp.reliability({"CLIP, fitted T": table}, toy=False)
    line = fig.axes[0].lines[1]
    assert line.get_xdata()[0] == line.get_ydata()[0] == 75 and line.get_linestyle() == ":"


def test_cost_names_every_method_best_first():
    table = pd.DataFrame({"accuracy": [0.5, 0.9], "ms_per_query": [0.001, 0.1], "ms_low": [0.001, 0.1],
                          "ms_high": [0.001, 0.1]}, index=["CLIP", "X-MoRe"])
    fig = rp.cost_and_accuracy(table, toy=False)
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["X-MoRe", "CLIP"]
    assert fig.axes[1].lines[0].get_xdata()[0] == 100  # microseconds


def test_class_changes_show_both_ends():
    table = pd.DataFrame({"class_name": [f"c{i}" for i in range(30)], "n": 10, "b": range(30), "c": 15})
    fig = rp.class_changes(table, most=2, toy=True)
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["c0", "c1", "c28", "c29"]
    assert [text.get_text() for text in fig.axes[0].texts] == ["+15 of 10", "+14 of 10", "-13 of 10",
                                                               "-14 of 10"]


def test_gap_planes_draw_both_modalities():
    points = np.arange(6.0).reshape(3, 2)
    fig = rp.gap_planes({"a": (points, points + 1), "b": (points, points)}, toy=True)
    assert [ax.get_title() for ax in fig.axes] == ["a", "b"] and len(fig.axes[0].lines) == 2


def test_the_papers_marks_fit_the_surface():
    table = pd.DataFrame([{"k": 8, "image_weight": w, "text_weight": t, "accuracy": 0.5}
                          for w in (0.0, 1.0) for t in (0.0, 1.0)])
    marks = surface.paper_marks().rename(columns={"commit": "name"})
    fig = rp.surface_maps(table, 0.5, marks=marks, top_ks=(8,), toy=False)
    assert {"main", "jalend", "dcf3e1e"} == {text.get_text() for text in fig.axes[0].texts}
