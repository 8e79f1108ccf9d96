"""Figures of notebooks 03 and 05: what stands at which place."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

matplotlib.use("Agg")

from impart_utils.evidence import ram_plots as rp  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


def test_attention_bars_have_the_weights_and_the_plain_mean():
    pictures = [Image.new("RGB", (8, 8))] * 4
    weights = {"text": [0.7, 0.1, 0.1, 0.1], "image": [0.25] * 4}
    fig = rp.attention_panel(pictures[0], pictures, ["a", "", "c", "d"], weights, toy=True)
    bars = next(ax for ax in fig.axes if ax.patches)
    np.testing.assert_allclose([bar.get_height() for bar in bars.patches], [70, 10, 10, 10, 25, 25, 25, 25])
    assert bars.lines[0].get_ydata()[0] == 25
    assert [ax.get_xlabel() for ax in fig.axes if ax.images][2] == "(no caption)"


def test_attention_spread_marks_the_plain_mean():
    entropies = {(layer, branch): np.full(10, 0.5) for layer in (1, 2) for branch in ("text", "image")}
    fig = rp.attention_spread(entropies, 8, toy=False)
    assert len(fig.axes) == 2
    assert fig.axes[0].lines[-1].get_xdata()[0] == pytest.approx(np.log(8))


def test_taken_apart_compares_seed_by_seed():
    table = pd.DataFrame([
        {"change": change, "dataset": "toy10", "seed": seed, "accuracy": accuracy, "added": added}
        for change, values, added in (("paper_code", (0.70, 0.80), 2.0), ("branch", (0.71, 0.79), 0.5))
        for seed, accuracy in enumerate(values)])
    fig = rp.taken_apart(table, "paper_code", clip={"toy10": 0.85}, toy=True)
    dots = [line.get_xdata() for line in fig.axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots, [[0, 0], [1, -1]], atol=1e-9)
    assert any(np.allclose(line.get_xdata(), 10) for line in fig.axes[0].lines)  # CLIP: 85 against 75
    added = [line.get_xdata() for line in fig.axes[1].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(added, [[2, 2], [0.5, 0.5]])
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["paper_code (base)", "branch"]
    assert fig.axes[0].get_ylim() == (1.6, -0.6)  # the first row on top, no empty rows


def test_more_training_draws_means_and_dots():
    by_pairs = pd.DataFrame([{"normalize": "none", "dataset": "toy10", "seed": seed, "pairs": pairs,
                              "accuracy": 0.5 + seed / 10} for seed in (0, 1) for pairs in (300, 9000)])
    by_epoch = pd.DataFrame([{"normalize": "none", "dataset": "toy10", "seed": 0, "epoch": epoch,
                              "accuracy": 0.6} for epoch in range(3)])
    fig = rp.more_training(by_pairs, by_epoch, {"toy10": 0.8}, toy=False)
    above, below = fig.axes[:2]
    np.testing.assert_allclose(above.lines[0].get_ydata(), [55, 55])
    assert len(above.lines[1].get_xdata()) == 4 and above.get_xscale() == "log"
    np.testing.assert_allclose(below.lines[0].get_xdata(), [0, 1, 2])
    assert above.lines[2].get_ydata()[0] == 80


def test_training_overview_shows_a_temperature_only_where_it_moves():
    rows = [{"variant": "none", "step": step, "epoch": step, "loss": 9.0, "alignment": 0.1,
             "temperature": 1.0} for step in (1, 2)]
    assert len(rp.training_overview(pd.DataFrame(rows), chance=9.2, toy=False).axes) == 2
    rows[1]["temperature"] = 0.5
    fig = rp.training_overview(pd.DataFrame(rows), chance=9.2, toy=False)
    assert [ax.get_title() for ax in fig.axes] == ["loss", "alignment", "temperature"]
    np.testing.assert_allclose(fig.axes[2].lines[0].get_ydata(), [1.0, 0.5])
