"""Cells with controls: a still picture headlessly, working controls live."""

import ipywidgets
import matplotlib
import pytest

matplotlib.use("Agg")

from impart_utils.live import explore  # noqa: E402


def draw(row, weight, layer):
    return f"row {row}, weight {weight}, layer {layer}"


CHOICES = {"row": (0, 9, 3), "weight": (0.0, 1.0, 0.5), "layer": [("first", 1), ("second", 2)]}


def test_a_headless_run_shows_the_start(monkeypatch):
    monkeypatch.setenv("IMPART_RUN_ID", "run")
    assert explore(draw, **CHOICES) == "row 3, weight 0.5, layer 1"


@pytest.mark.parametrize("live", [False, True])
def test_a_figure_is_shown_once(live, monkeypatch):
    """An open figure would be shown again at the end of the cell."""
    from matplotlib import pyplot as plt

    monkeypatch.delenv("IMPART_RUN_ID", raising=False)
    if not live:
        monkeypatch.setenv("IMPART_RUN_ID", "run")
    drawn = []

    def figure(x):
        drawn.append(plt.figure())
        return drawn[-1]

    shown = explore(figure, x=(0, 3, 1))
    assert plt.get_fignums() == [] and len(drawn) == 1
    assert live or shown is drawn[0]


def test_live_controls_draw_again(monkeypatch):
    monkeypatch.delenv("IMPART_RUN_ID", raising=False)
    seen = []
    box = explore(lambda **values: seen.append(values), **CHOICES, query="a red circle")
    row, weight, layer, query, _ = box.children
    assert [type(control) for control in box.children[:4]] == [
        ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.Dropdown, ipywidgets.Text]
    assert seen == [{"row": 3, "weight": 0.5, "layer": 1, "query": "a red circle"}]
    row.value, layer.value, query.value = 7, 2, "snow"
    weight.value = 0.75
    assert seen[-1] == {"row": 7, "weight": 0.75, "layer": 2, "query": "snow"}


@pytest.mark.parametrize("choice", [(5, 1, 3), (0, 1), [], 4, (0, 3, 9)])
def test_other_choices_are_refused(choice):
    with pytest.raises(ValueError, match="Expected row to be"):
        explore(lambda row: row, row=choice)
