"""Notebook 01's figures: what is drawn is what was given, in named axes with units."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from impart_utils.evidence import reference_plots  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_nearest_histogram_marks_the_threshold():
    tables = {name: pd.DataFrame({"similarity": values})
              for name, values in {"toy10": [0.5, 0.7], "pack:x": [0.9]}.items()}
    ax = reference_plots.nearest_histogram(tables, 0.8125, toy=True)
    assert ax.get_title().endswith("(toy world)") and "nearest reference" in ax.get_xlabel()
    assert "%" in ax.get_ylabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Toy-10", "x (pack)",
                                                                         "flagged from 0.812"]
    assert [line.get_xdata()[0] for line in ax.get_lines()] == [0.8125]


def test_closest_pairs_stand_above_each_other():
    test, reference = np.zeros((2, 2, 3), np.uint8), np.full((4, 4, 3), 9, np.uint8)
    fig = reference_plots.closest_pairs([test, test], [reference, reference], ["one", "two"], toy=False)
    upper, lower = fig.axes[:2], fig.axes[2:]
    assert [ax.get_title() for ax in upper] == ["one", "two"]
    assert all(ax.images[0].get_array().shape[0] == 2 for ax in upper)
    assert all(ax.images[0].get_array().shape[0] == 4 for ax in lower)
    assert upper[0].get_ylabel() == "test picture" and lower[0].get_ylabel() == "nearest reference"
    assert "toy" not in fig._suptitle.get_text()


def test_coverage_dots_are_classes_in_points():
    table = pd.DataFrame({"named": [0, 0, 7], "gain": [0.1, -0.05, 0.0]}, index=["a", "b", "c"])
    fig = reference_plots.coverage_and_gain({"toy10": table, "toy100": table.iloc[2:]}, toy=True)
    first, second = fig.axes
    dots = next(line for line in first.get_lines() if line.get_marker() == "o")
    np.testing.assert_allclose(dots.get_ydata(), [10, -5, 0])
    assert np.abs(dots.get_xdata() - [0, 0, 7]).max() <= 0.25
    assert "2 of 3 classes in no caption" in first.get_title() and "0 of 1" in second.get_title()
    assert "points" in first.get_ylabel() and "toy world" in fig._suptitle.get_text()
