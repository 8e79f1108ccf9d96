"""Figures: what stands in them is the data's, legible, in the method's color, and says when it is toy."""

import itertools
from functools import cache
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from impart_utils.evidence import metrics, plots, results

PAPER = Path(__file__).parents[1] / "data" / "paper_values.csv"
LONG = "a very long caption about a trip to the seaside with my grandmother in the summer of 1987, and more"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def row(dataset, method, correct, n=1000, **other):
    low, high = metrics.wilson(correct, n)
    return {"dataset": dataset, "method": method, "n": n, "correct": correct, "accuracy": correct / n,
            "low": low,
            "high": high, "variant": "", "scale": "unit", "seed": np.nan, **other}


def table1(*sets):
    rows = []
    for name in sets:
        rows += [row(name, "CLIP", 880), row(name, "RA-CLIP Vanilla", 870),
                 row(name, "random neighbors", 860)]
        rows += [row(name, "RA-CLIP (RAM)", 500 + 10 * seed, variant="none", seed=seed) for seed in range(3)]
    return pd.DataFrame(rows)


def figure1(scales=("raw", "unit")):
    return pd.DataFrame([
        row(name, "RA-CLIP (RAM)", 400 + 100 * number + seed, variant=variant, scale=scale, seed=seed)
        for name in ("toy10", "toy100", "toy101") for scale in scales
        for number, variant in enumerate(("none", "branch", "sum")) for seed in range(3)])


def picture(width=40, height=40):
    return Image.new("RGB", (width, height), "steelblue")


PROBE = pd.DataFrame({"step": [0, 1, 2], "views": [0, 256, 512], "loss": [5.0, 4.0, 3.0],
                      "accuracy": [0.05, np.nan, 0.4]})
R = np.array([[0.9, 0.5], [0.1, 1.0]])
FIGURES = {
    "accuracy_bars": lambda toy: plots.accuracy_bars(table1("cifar10", "cifar100", "pack:caltech101_x.npz"),
                                                     toy=toy),
    "normalization_bars": lambda toy: plots.normalization_bars(figure1(), toy=toy),
    "score_terms": lambda toy: plots.score_terms(
        ["cat", "boat", LONG],
        {"query": [0.2, 0.3, 0.1], "image": [0.1, -0.1, 0.2], "text": [0.0, 0.1, -0.1]},
        truth="boat", toy=toy),
    "training_probe": lambda toy: plots.training_probe(PROBE, 0.05, toy=toy),
    "similarity_histogram": lambda toy: plots.similarity_histogram(
        {"own caption": np.linspace(0.2, 0.4, 50), "another's caption": np.linspace(0.1, 0.3, 80)}, toy=toy),
    "vectors_2d": lambda toy: plots.vectors_2d(np.array([1.0, 0.1]), R, -R, np.array([1.5, 0.5]),
                                               {"cat": np.array([0.6, -0.8]), "boat": np.array([-0.9, 0.3])},
                                               toy=toy),
    "neighbors_panel": lambda toy: plots.neighbors_panel(
        picture(), [picture()] * 8, [LONG, "", "a boat"] + ["x" * 60] * 5, np.linspace(0.9, 0.7, 8),
        query_title=LONG, toy=toy),
    "query_and_films": lambda toy: plots.query_and_films(LONG, [([picture(160, 90)] * 3, LONG)] * 5, toy=toy),
}


def figure_of(made):
    return made if isinstance(made, plt.Figure) else made.figure


def texts_of(fig):
    """Texts that are shown: tick labels beyond the axes' limits exist, but aren't drawn."""
    unseen = set()
    for axis in [axis for ax in fig.findobj(plt.Axes) for axis in (ax.xaxis, ax.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        unseen |= {label for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high
                   for label in (tick.label1, tick.label2)}
    return [text for text in fig.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text not in unseen]


@cache
def drawn(name):
    """(text, size, box) of everything written in a figure."""
    fig = figure_of(FIGURES[name](True))
    fig.canvas.draw()
    return [(text.get_text(), text.get_fontsize(), text.get_window_extent()) for text in texts_of(fig)]


@pytest.mark.parametrize("name", FIGURES)
def test_type_is_legible_and_toy_is_said(name):
    assert min(size for _, size, _ in drawn(name)) >= 9
    assert any("(toy world)" in text for text, _, _ in drawn(name))
    assert not any("(toy world)" in text.get_text() for text in figure_of(FIGURES[name](False)).findobj(Text))


@pytest.mark.parametrize("name", FIGURES)
def test_no_label_covers_another(name):
    for (one, _, a), (other, _, b) in itertools.combinations(drawn(name), 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width <= 1 or height <= 1, (one, other)


@pytest.mark.parametrize("name", ["accuracy_bars", "normalization_bars", "training_probe"])
def test_shares_are_drawn_in_percent_with_their_unit(name):
    ax = figure_of(FIGURES[name](True)).axes[0]
    assert "(%)" in ax.get_ylabel() and ax.get_ylim() == (0, 100)


def test_a_method_has_one_color_everywhere_and_all_are_apart():
    assert tuple(plots.METHOD_COLORS) == results.METHODS
    assert len(set(plots.METHOD_COLORS.values())) == len(results.METHODS)
    ax = plots.accuracy_bars(table1("toy10"), toy=True)
    drawn = [to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
    assert drawn == [plots.METHOD_COLORS[name] for name in
                     ("CLIP", "RA-CLIP Vanilla", "RA-CLIP (RAM)", "random neighbors")]


def test_accuracy_bars_draw_the_table():
    ax = plots.accuracy_bars(table1("cifar10"), toy=False)
    # RAM: the trainings' mean
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [88, 87, 51, 86])
    dots = next(line for line in ax.lines if line.get_marker() == "o" and len(line.get_ydata()) == 3)
    np.testing.assert_allclose(dots.get_ydata(), [50, 51, 52])
    drawn = [lines.get_segments()[0][:, 1] for lines in ax.collections[:8:2]]  # each has caps
    np.testing.assert_allclose(drawn[0], 100 * np.array(metrics.wilson(880, 1000)))
    np.testing.assert_allclose(drawn[2], metrics.mean_interval([50, 51, 52]))
    legend = {text.get_text() for text in ax.get_legend().get_texts()}
    assert {"95 % interval (Wilson)", "one training each",
            "95 % interval of the\ntrainings' mean (t)"} <= legend
    assert ax.get_xticklabels()[0].get_text() == "CIFAR-10\nn = 1000"


def test_accuracy_bars_mark_the_papers_value_over_its_bar():
    paper = results.read_paper_values(PAPER)
    ax = plots.accuracy_bars(table1("cifar10"), paper, toy=False)
    dashes = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashes] == [88.78, 88.17, 88.98]  # CLIP, Vanilla, RAM
    for line, bar in zip(dashes, ax.patches, strict=False):
        assert line.get_xdata()[0] <= bar.get_x() and bar.get_x() + bar.get_width() <= line.get_xdata()[1]
    assert not [line for line in plots.accuracy_bars(table1("toy10"), paper, toy=True).lines
                if line.get_linestyle() == "--"]  # the toy world is no data set of the paper


def test_normalization_bars_have_a_panel_per_scale():
    fig = plots.normalization_bars(figure1(), toy=True)
    assert [ax.get_title() for ax in fig.axes] == ["RAM on raw vectors (toy world)",
                                                   "RAM on unit vectors (toy world)"]
    np.testing.assert_allclose([bar.get_height() for bar in fig.axes[0].patches], [40.1, 50.1, 60.1] * 3)
    drawn = [lines.get_segments()[0][:, 1] for lines in fig.axes[0].collections[:18:2]]
    np.testing.assert_allclose(drawn, [metrics.mean_interval(np.array([-0.1, 0, 0.1]) + mean)
                                       for mean in [40.1, 50.1, 60.1] * 3])
    assert len(plots.normalization_bars(figure1(("unit",)), toy=True).axes) == 1


def test_normalization_bars_mark_table_1_over_every_variant():
    paper, table = results.read_paper_values(PAPER), figure1()
    names = {"toy10": "cifar10", "toy100": "pack:cifar100_x.npz"}  # and a toy set, which the paper hasn't
    fig = plots.normalization_bars(table.replace({"dataset": names}), paper, toy=False)
    for ax in fig.axes:
        dashes = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in dashes] == [88.98, 51.92]
        for line, bars in zip(dashes, (ax.patches[:3], ax.patches[3:6]), strict=True):
            assert line.get_xdata()[0] <= min(bar.get_x() for bar in bars)
            assert line.get_xdata()[1] >= max(bar.get_x() + bar.get_width() for bar in bars)
    marked, unmarked = ([text.get_text() for text in drawn.axes[-1].get_legend().get_texts()]
                        for drawn in (fig, plots.normalization_bars(table, paper, toy=True)))
    assert set(marked) - set(unmarked) == {"Table 1; which variant\nis not stated"}


@pytest.mark.parametrize(("average", "label"), [("micro", "95 % interval (Wilson)"),
                                                ("mean per class", "95 % interval")])
def test_an_interval_is_named_as_it_was_made(average, label):
    ax = plots.accuracy_bars(table1("toy10").assign(average=average), toy=True)
    assert label in [text.get_text() for text in ax.get_legend().get_texts()]


def test_score_terms_mark_the_sum_also_where_terms_are_negative():
    ax = FIGURES["score_terms"](True)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.3, 0.3, 0.2])
    assert ax.get_yticklabels()[1].get_text() == "boat (right)"


def test_training_probe_leaves_out_what_was_not_measured():
    ax = plots.training_probe(PROBE, 0.05)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 5], [512, 40]])
    assert ax.lines[1].get_ydata()[0] == 5 and "toy world" in ax.get_title()


def test_similarity_histogram_counts_everything():
    ax = FIGURES["similarity_histogram"](True)
    for polygon in ax.patches[::2]:
        outline = polygon.get_xy()
        width = np.diff(np.unique(outline[:, 0]))[0]
        area = 0.5 * abs(np.dot(outline[:, 0], np.roll(outline[:, 1], 1)) - np.dot(outline[:, 1],
                                                                                   np.roll(outline[:, 0], 1)))
        assert area / width == pytest.approx(100)


def test_vectors_2d_stay_inside_with_equal_axes():
    ax = FIGURES["vectors_2d"](True)
    ax.figure.canvas.draw()
    assert ax.get_aspect() == 1
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    assert x0 < -0.9 and x1 > 1.5 and y0 < -1.0 and y1 > 1.0


def test_picture_grid_and_film_strip_place_every_picture():
    fig = plots.picture_grid([picture()] * 5, ["one", LONG, "a\nb", "", "five"], columns=4)
    assert sum(bool(ax.images) for ax in fig.axes) == 5
    assert fig.axes[1].get_title().count("\n") == 2 and fig.axes[1].get_title().endswith("…")
    assert fig.axes[2].get_title() == "a\nb"
    strip = plots.film_strip([picture()] * 10, np.arange(10) / 4, LONG)
    assert [ax.get_title() for ax in strip.axes if ax.images][:3] == ["0.0 s", "0.2 s", "0.5 s"]
    assert min(text.get_fontsize() for text in texts_of(strip)) >= 9


def test_neighbors_panel_shows_caption_and_cosine():
    fig = FIGURES["neighbors_panel"](True)
    assert fig.axes[1].get_title() == "cosine 0.900" and fig.axes[2].get_xlabel() == "(no caption)"
    assert fig.axes[1].get_xlabel().endswith("…")


def test_query_and_films_takes_a_picture_or_a_text():
    strips = [([picture()] * 4, "Blankman: The Bank Heist (cosine 0.80)"), ([picture()] * 2, "short")]
    shown = " ".join(text.get_text() for text in texts_of(plots.query_and_films("a boat", strips)))
    assert "“a boat”" in shown and "1. Blankman" in shown and "2. short" in shown
    fig = plots.query_and_films(picture(), strips)
    assert len([ax for ax in fig.findobj(plt.Axes) if ax.images]) == 1 + 4 + 2


def test_save_figure_writes_both_files_again_the_same_and_closes(tmp_path):
    for folder in ("first", "second"):
        fig = plots.training_probe(PROBE, 0.05).figure
        plots.save_figure(fig, tmp_path / folder, "probe")
        assert not plt.fignum_exists(fig.number)
    for name in ("probe.png", "probe.svg"):
        content = (tmp_path / "first" / name).read_bytes()
        assert content == (tmp_path / "second" / name).read_bytes() and len(content) > 5000
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["probe.png", "probe.svg"]
    with Image.open(tmp_path / "first" / "probe.png") as saved:
        assert saved.width > 900 and round(saved.info["dpi"][0]) == 150


def test_a_figure_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "probe.png").write_text("old")
    fig = plots.training_probe(PROBE, 0.05).figure

    def fails(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(fig, "savefig", fails)
    with pytest.raises(OSError, match="disk full"):
        plots.save_figure(fig, tmp_path, "probe")
    assert [path.name
            for path in tmp_path.iterdir()] == ["probe.png"] and (tmp_path / "probe.png").read_text() == "old"


def test_nothing_given_is_changed():
    table = table1("toy10")
    before = table.copy()
    plots.accuracy_bars(table, toy=True)
    pd.testing.assert_frame_equal(table, before)


def test_an_axes_given_is_used():
    ax = plt.figure().subplots()
    assert plots.accuracy_bars(table1("toy10"), toy=True, ax=ax) is ax
