"""Figures of films, moments and characters: what is drawn stands where the table says."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from impart_utils.evidence import film_plots
from impart_utils.evidence.film_variants import VARIANTS
from impart_utils.scene_windows import FLOORS, Found


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def films(queries=("description", "held-out frame")):
    rows = [{"query": query, "pooling": pooling, "variant": variant, "metric": metric, "value": value,
             "low": value - 0.1, "high": value + 0.1, "n": 48}
            for query in queries for pooling in ("mean_raw", "max")
            for place, variant in enumerate(VARIANTS) if pooling == "mean_raw" or variant != "Eq. 1 on films"
            for metric, value in (("R@1", 0.2 + 0.1 * place), ("MRR", 0.9))]
    rows += [{"query": query, "pooling": "", "variant": "chance", "metric": "R@1", "value": 1 / 48, "n": 48}
             for query in queries]
    return pd.DataFrame(rows)


def rates():
    return pd.DataFrame([
        {"fps": fps, "frames": 10 * fps, "query": "description", "pooling": pooling, "metric": metric,
         "value": 0.1 * fps, "low": 0.05 * fps, "high": 0.2 * fps, "n": 48}
        for fps in (4.0, 0.5, 1.0) for pooling in ("mean_raw", "max") for metric in ("R@1", "R@5")])


def moments(queries=("scene", "reel")):
    return pd.DataFrame([
        {"query": query, "method": method, "metric": metric, "value": value, "low": value - 0.05,
         "high": value + 0.05, "n": 20} for query in queries
        for value, method in zip((0.6, 0.3, 0.2, 0.1), ("CLIP, window by shots", *FLOORS), strict=True)
        for metric in ("R1@IoU 0.3", "R1@IoU 0.5", "R1@IoU 0.7", "mIoU")])


def people():
    return pd.DataFrame([
        {"searched": searched, "query": query, "character": name, "value": value, "prevalence": 0.1,
         "low": np.nan if name != "all" else value - 0.1, "high": np.nan if name != "all" else value + 0.1,
         "chance": 0.12, "n": 50}
        for searched in ("all", "its movies") for query in ("name in a text", "one picture", "4 pictures")
        for name, value in (("ada", 0.5), ("leo", 0.7), ("all", 0.6))])


FOUND = Found(np.array([[2.0, 4.0], [0.0, 1.0]]), np.array([0.31, 0.02]), np.linspace(0.1, 0.4, 20))
TIMES = np.arange(20) / 4
FIGURES = {
    "recall_of_variants": lambda toy: film_plots.recall_of_variants(films(), toy=toy),
    "cost_curve": lambda toy: film_plots.cost_curve(rates(), toy=toy),
    "moment_curve": lambda toy: film_plots.moment_curve(
        FOUND, TIMES, truth=(2, 3.5), cuts=[1.1, 4.0], pictures=[(0, Image.new("RGB", (20, 20)))],
        title="a boat", toy=toy),
    "moment_bars": lambda toy: film_plots.moment_bars(moments(), toy=toy),
    "precision_of_characters": lambda toy: film_plots.precision_of_characters(people(), toy=toy),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_say_toy_only_where_told(name):
    for toy in (True, False):
        title = FIGURES[name](toy)._suptitle.get_text()
        assert ("toy" in title) == toy, title


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_fits_and_is_large_enough(name):
    fig = FIGURES[name](True)
    fig.canvas.draw()
    width, height = fig.bbox.width, fig.bbox.height
    unseen = set()  # tick labels beyond the axes' limits exist, but aren't drawn
    for axis in [axis for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        unseen |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    for text in fig.findobj(matplotlib.text.Text):
        if not text.get_text().strip() or not text.get_visible() or text in unseen:
            continue
        assert text.get_fontsize() >= 9, text.get_text()
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, text.get_text()


@pytest.mark.parametrize("name", FIGURES)
def test_a_legend_names_what_is_drawn(name):
    fig = FIGURES[name](False)
    legends = fig.legends + [ax.get_legend() for ax in fig.axes if ax.get_legend()]
    labels = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert len(labels) == len(set(labels)) >= 2


def dots(ax):
    """{(marker, x, y)} of the points drawn in a panel."""
    return {(line.get_marker(), round(float(x), 6), round(float(y), 6)) for line in ax.lines
            if line.get_linestyle() == "None"
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}


def test_each_variant_has_its_dot_in_percent_and_guessing_a_line():
    fig = film_plots.recall_of_variants(films(), toy=False)
    first = fig.axes[0]
    assert first.get_title() == "description\n48 queries"
    assert len(dots(first)) == 5 + 4  # "Eq. 1 on films" has no max
    assert sorted(x for _, x, y in dots(first) if y < 0.5) == pytest.approx([20, 30, 40, 50, 60])
    dashed, = (line for line in first.lines if line.get_linestyle() == "--")
    assert dashed.get_xdata()[0] == pytest.approx(100 / 48)
    assert len({marker for marker, _, _ in dots(first)}) == 5  # not by color alone


def test_without_chance_rows_no_line():
    table = films()
    fig = film_plots.recall_of_variants(table[table["variant"] != "chance"], toy=False)
    assert all(line.get_linestyle() != "--" for line in fig.axes[0].lines)


def test_panels_go_into_rows_and_empty_ones_are_off():
    fig = film_plots.recall_of_variants(films(queries=tuple("abcde")), columns=3, toy=False)
    assert [ax.axison for ax in fig.axes] == [True] * 5 + [False]


def test_cost_rises_to_the_right_whatever_the_tables_order():
    ax = film_plots.cost_curve(rates(), toy=False).axes[0]
    line = ax.lines[0]
    assert list(line.get_xdata()) == [0.5, 1.0, 4.0]
    assert line.get_ydata() == pytest.approx([5.0, 10.0, 40.0])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.5\n5", "1\n10", "4\n40"]


def test_windows_and_truth_stand_at_their_seconds():
    fig = FIGURES["moment_curve"](False)
    curve, below = fig.axes[1:3]
    assert curve.lines[0].get_ydata() == pytest.approx(FOUND.curve)
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in below.patches[:2]]
    assert bars == [(2.0, 4.0), (0.0, 1.0)]
    assert [label.get_text() for label in below.get_yticklabels()] == ["window 1, score 0.310",
                                                                       "window 2, score 0.020"]
    span = curve.patches[0]
    assert (span.get_x(), span.get_x() + span.get_width()) == (2, 3.5)
    assert [line.get_xdata()[0] for line in curve.lines if line.get_linestyle() == ":"] == [1.1, 4.0]


def test_without_truth_and_pictures_none_are_drawn():
    fig = film_plots.moment_curve(FOUND, TIMES, title="a boat", toy=False)
    assert len(fig.axes) == 2 and not fig.axes[0].patches
    assert "where it is" not in [text.get_text() for text in fig.legends[0].get_texts()]


def test_bars_of_moments_are_percent():
    ax = film_plots.moment_bars(moments(), toy=False).axes[0]
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == pytest.approx([60] * 4 + [30] * 4 + [20] * 4 + [10] * 4)
    assert ax.get_ylim() == (0, 100)


def test_characters_have_the_level_of_guessing_beside_them():
    fig = film_plots.precision_of_characters(people(), toy=False)
    assert len(fig.axes) == 2
    ax = fig.axes[0]
    assert sorted({round(bar.get_height(), 6) for bar in ax.patches}) == [0.5, 0.6, 0.7]
    levels = {round(float(path.vertices[0, 1]), 6) for lines in ax.collections for path in lines.get_paths()
              if path.vertices[0, 1] == path.vertices[-1, 1]}
    assert {0.1, 0.12} <= levels
    assert [label.get_text() for label in fig.axes[-1].get_xticklabels()] == ["ada", "leo", "mean (mAP)"]
    alone = film_plots.precision_of_characters(people().query("searched == 'all'").drop(columns="searched"),
                                               toy=False)
    assert len(alone.axes) == 1
