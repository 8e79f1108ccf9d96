"""Figures in words: what stands on them comes back, in order, on one line."""

import base64

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image

from impart_utils.evidence import figure_words, figures, plots
from impart_utils.evidence.figure_words import describe, title_of


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_bars_with_names_and_lines_with_a_range():
    fig, panels = figures.panel_grid(1, 2, (6, 3))
    left, right = panels[0]
    left.bar(["Toy-10", "Toy-100"], [60, 40])
    left.set(title="Accuracy\n(toy world)", ylabel="accuracy (%)", ylim=(0, 100))
    right.plot([1, 8], [0.25, 0.5], label="CLIP")
    right.axhline(0.9)  # across the panel: no data of its own
    right.set(title="By k", xlabel="top k", xscale="log")
    right.legend()
    assert describe(fig) == ("Accuracy (toy world); bars; x axis: Toy-10, Toy-100; y axis: accuracy (%), "
                             "0 to 60. By k; lines; x axis: top k, 1 to 8; legend: CLIP.")
    assert title_of(fig) == "Accuracy (toy world); By k"
    fig.suptitle("Both")
    assert title_of(fig) == "Both" and describe(fig).startswith("Both. Accuracy")


@pytest.mark.parametrize(("draw", "kind"), [
    (lambda ax: ax.bar([1, 2], [3, 4]), "bars"),
    (lambda ax: ax.plot([1, 2], [3, 4]), "lines"),
    (lambda ax: ax.plot([1, 2], [3, 4], "o"), "points"),
    (lambda ax: ax.scatter([1, 2], [3, 4]), "points"),
    (lambda ax: ax.hist([1, 2, 2], histtype="stepfilled"), "a histogram"),
    (lambda ax: ax.stairs([1, 2, 2]), "a histogram"),
    (lambda ax: ax.quiver([0], [0], [1], [1]), "arrows"),
    (lambda ax: ax.pcolormesh(np.eye(3)), "a map of colors"),
    (lambda ax: ax.fill_between([1, 2], [0, 1], [2, 3]), "bands"),
    (lambda ax: ax.errorbar([1, 2], [3, 4], yerr=1, fmt="none"), "points with intervals")])
def test_what_is_drawn(draw, kind):
    fig = figures.new_figure((3, 3))
    ax = fig.subplots()
    draw(ax)
    ax.set_xlabel("k")
    assert describe(fig).split("; ")[0].lower() == kind


def test_pictures_are_told_by_their_texts():
    picture = np.zeros((4, 4, 3), np.uint8)
    fig = plots.neighbors_panel(picture, [picture] * 2, ["a boat", ""], [0.9, 0.8], query_title="ship")
    assert describe(fig) == ("A query and its nearest references. 3 pictures: query – ship; "
                             "cosine 0.900 – a boat; cosine 0.800 – (no caption).")
    films = plots.query_and_films("a bank", [([picture] * 3, "Heist")])
    assert describe(films) == "A query and the films found. Text query; “a bank”. 1. Heist. 3 pictures."


def test_colorbar_and_legend_of_the_figure():
    fig = figures.new_figure((3, 3))
    ax = fig.subplots()
    fig.colorbar(ax.pcolormesh(np.array([[-2.0, 0.0], [1.0, 2.0]])), label="points against CLIP")
    fig.legend([plt.Line2D([], [])], ["the paper's value"])
    assert describe(fig) == ("A map of colors. Colors: points against CLIP, -2 to 2. "
                             "Legend: the paper's value.")


def test_many_names_and_long_texts_are_cut():
    fig = figures.new_figure((3, 3))
    fig.subplots().set_xticks(range(40), [f"class number {n}" for n in range(40)])
    text = describe(fig)
    assert "class number 11 and 28 more" in text and "number 12" not in text
    fig.suptitle("word " * 1000)
    assert len(describe(fig)) <= figure_words.LONGEST and describe(fig).endswith("…")


def test_a_saved_figure_and_a_shown_one_carry_the_same_words(tmp_path):
    fig = figures.new_figure((3, 3))
    fig.subplots().set(title="v′ – “quoted”", xlabel="k")
    shown = DisplayFormatter()
    shown.formatters["image/png"].for_type(type(fig), lambda fig: b"png")
    data, metadata = shown.format(fig)
    figures.save_figure(fig, tmp_path, "some_name")
    with Image.open(tmp_path / "some_name.png") as saved:
        assert saved.info["Title"] == "v′ – “quoted”"
        assert saved.info["Description"] == describe(fig) == "V′ – “quoted”; x axis: k, 0 to 1."
    assert "image/png" in data and metadata == {"image/png": {"alt": describe(fig)}}
    assert "V′ – “quoted”; x axis: k, 0 to 1." in (tmp_path / "some_name.svg").read_text()


def test_a_saved_figure_is_shown_as_its_file_and_a_changed_one_is_drawn(tmp_path):
    shell = InteractiveShell.instance()
    fig = figures.new_figure((3, 2))
    ax = fig.subplots()
    figures.save_figure(fig, tmp_path, "some_name")
    with capture_output() as seen:
        assert shell.display_formatter.format(fig) == ({}, {})  # it has shown itself
    (shown,) = seen.outputs
    content = (tmp_path / "some_name.png").read_bytes()
    assert base64.b64decode(shown.data["image/png"]) == content and "text/plain" in shown.data
    with Image.open(tmp_path / "some_name.png") as saved:
        width = round(saved.width * fig.dpi / 150)  # as wide as one that isn't saved
    assert shown.metadata == {"image/png": {"alt": describe(fig), "width": width}}
    ax.set_title("another")
    with capture_output() as seen:
        assert "text/plain" in shell.display_formatter.format(fig)[0] and not seen.outputs


def test_a_figure_without_a_title_is_named_after_its_file(tmp_path):
    figures.save_figure(figures.new_figure((3, 3)), tmp_path, "some_name")
    with Image.open(tmp_path / "some_name.png") as saved:
        assert saved.info["Title"] == "some name"
