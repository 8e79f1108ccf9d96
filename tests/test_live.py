"""Cells with controls: a still picture headlessly, working controls live.

The second half runs the code of every notebook that has such a cell, up to it, moves the controls and
compares what is drawn with what the package computes. (test_live_figures.py has the figures on small
made-up data, test_live_browser.py notebook 02 in a real JupyterLab.)
"""

import ast
import io
import re
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import matplotlib
import nbformat
import numpy as np
import pytest
from demo_run import SMALLEST

matplotlib.use("Agg")

from impart_utils import cached  # noqa: E402
from impart_utils.gallery import film_gallery, text_features  # noqa: E402
from impart_utils.live import explore  # noqa: E402
from impart_utils.reference import scaled  # noqa: E402
from impart_utils.vanilla import augment  # noqa: E402
from impart_utils.zeroshot import predict, unit  # noqa: E402

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


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


def test_after_an_error_no_figure_is_left_open(monkeypatch):
    """Else the notebook would show the broken one under the next."""
    from matplotlib import pyplot as plt

    monkeypatch.setenv("IMPART_RUN_ID", "run")

    def broken(x):
        plt.figure()
        raise ValueError("no picture for this one")

    with pytest.raises(ValueError, match="no picture for this one"):
        explore(broken, x=(0, 3, 1))
    assert plt.get_fignums() == []


def test_a_dollar_is_a_dollar(monkeypatch):
    """matplotlib takes two of them for the ends of a formula, and refuses a formula that it can't read."""
    monkeypatch.setenv("IMPART_RUN_ID", "run")

    def titled(query):
        fig = matplotlib.pyplot.figure()
        fig.suptitle(query)
        fig.text(0, 0, query)
        return fig

    fig = explore(titled, query=r"$\nosuchsymbol$ for $5")
    fig.savefig(io.BytesIO())
    assert fig.get_suptitle() == r"$\nosuchsymbol$ for $5" and not fig.texts[0].get_parse_math()


@pytest.mark.slow
def test_a_kernel_shows_the_error_and_then_the_next_picture(monkeypatch):
    """In a real kernel the output below the controls holds a picture, the error in its place, a picture."""
    from nbclient import NotebookClient

    monkeypatch.delenv("IMPART_RUN_ID", raising=False)  # a run in this process may have left it
    cells = ["""
from impart_utils.live import explore
import matplotlib.pyplot as plt
%matplotlib inline

def draw(x):
    fig, _ = plt.subplots()
    if x == 2:
        raise ValueError("no picture for 2")
    return fig

box = explore(draw, x=(0, 3, 1))
box"""]
    for value in (1, 2, 3):
        cells += [f"box.children[0].value = {value}",
                  "[(each['output_type'], each.get('evalue')) for each in box.children[-1].outputs]"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    shown = [ast.literal_eval(cell.outputs[0]["data"]["text/plain"]) for cell in notebook.cells[2::2]]
    assert shown == [[("display_data", None)], [("error", "no picture for 2")], [("display_data", None)]]


@pytest.mark.slow
def test_figures_of_later_cells_are_still_shown(monkeypatch):
    """A kernel's very first figure switches showing on; `explore` drawing it must not switch it off again."""
    from nbclient import NotebookClient

    monkeypatch.setenv("IMPART_RUN_ID", "headless")
    cells = ["from impart_utils.live import explore\nimport matplotlib.pyplot as plt\n"
             "explore(lambda x: plt.figure(), x=(0, 3, 1))", "plt.plot([1, 2]);"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    assert any("image/png" in output.get("data", {}) for output in notebook.cells[1].outputs)


# ---- The notebooks' cells, on the smallest sizes ---------------------------------------------------


def is_live_cell(cell):
    return cell.cell_type == "code" and re.search(r"^(live\.)?explore\(", cell.source, re.MULTILINE)


LIVE = [path.stem for path in sorted(NOTEBOOKS.glob("0*.ipynb"))
        if any(map(is_live_cell, nbformat.read(path, 4).cells))]
ODD = ["", "🦊 Ünïcödé\t%s {0} <b>", r"$\nosuchsymbol$ for $5", "one word and " * 200]


def run_to_live_cell(name, **parameters):
    """Run a notebook's code here, up to and with its live cell; returns its names and what the cell shows."""
    names = {"__name__": "__main__"}
    for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells:
        if cell.cell_type != "code":
            continue
        *lines, last = ast.parse(cell.source).body
        if not is_live_cell(cell):
            exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names.update({key: value for key, value in parameters.items() if key in names})
            continue
        exec(compile(ast.Module(lines, []), name, "exec"), names)
        return SimpleNamespace(**names), eval(compile(ast.Expression(last.value), name, "eval"), names)
    raise AssertionError(f"{name} has no live cell")


@pytest.fixture(scope="module")
def live():
    """live(name): a notebook's names, its controls by name, and the list of what was drawn, newest last."""
    found = {}

    def start(name, **parameters):
        key = name, *parameters.items()
        if key not in found:
            shown = []
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("IMPART_RUN_ID", raising=False)
                patch.chdir(NOTEBOOKS)
                patch.setattr("IPython.display.display", lambda *objects, **options: shown.extend(objects))
                names, box = run_to_live_cell(name, **(SMALLEST | parameters))
            controls = {control.description.replace(" ", "_"): control for control in box.children[:-1]}
            matplotlib.pyplot.close("all")
            found[key] = SimpleNamespace(names=names, controls=controls, shown=shown)
        return found[key]

    return start


@pytest.fixture
def move(live, monkeypatch):
    """move(name, control=value, …): set the controls one after the other; returns what was drawn last."""
    def to(name, **values):
        cell = live(name)
        monkeypatch.setattr("IPython.display.display", lambda *objects: cell.shown.extend(objects))
        for control, value in values.items():
            before = cell.controls[control].value, len(cell.shown)
            cell.controls[control].value = value
            assert len(cell.shown) - before[1] == (before[0] != cell.controls[control].value)
        cell.shown[-1].savefig(io.BytesIO())  # as the notebook does: some errors come only with the picture
        return cell.shown[-1]

    return to


def notebook(number):
    (name,) = [name for name in LIVE if name.startswith(number)]
    return name


def pictures(fig):
    return [(ax.get_title(), ax.get_xlabel(), np.asarray(ax.images[0].get_array())) for ax in fig.axes
            if ax.images]


def test_the_notebooks_with_live_cells_are_known():
    assert [name[:2] for name in LIVE] == ["00", "02", "03", "06", "08", "09"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")  # the font has no fox
@pytest.mark.parametrize("name", LIVE)
def test_every_control_can_go_to_both_ends(live, move, name):
    cell = live(name)
    assert len(cell.shown) == 1  # the start
    for key, control in cell.controls.items():
        if isinstance(control, ipywidgets.Text):
            ends = ODD
        elif isinstance(control, ipywidgets.Dropdown):
            ends = [each[-1] if isinstance(each, tuple) else each for each in control.options[-1:]]
        else:
            ends = [control.min, control.max]
        start = control.value
        for value in [*ends, start]:
            assert move(name, **{key: value}) is cell.shown[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", ["02", "03"])
@pytest.mark.parametrize("top_k", [1, 16])
def test_a_k_from_outside_is_where_the_slider_starts(live, number, top_k):
    assert live(notebook(number), top_k=top_k).controls[{"02": "top_k", "03": "k"}[number]].value == top_k


@pytest.mark.slow
def test_02_shows_what_the_package_computes(live, move):
    cell = live(notebook("02"))
    config = cell.names.config
    test, (pairs, _) = cached.test_set(config, config.datasets[0]), cached.reference_pairs(config)
    v, R_img, R_txt = scaled(test.image_features, pairs, config.scale)
    cosines = unit(test.image_features) @ unit(pairs.image_features).T
    rows = [row for _, row in cell.controls["row"].options]
    for row, k, w_img, w_txt in [(rows[-1], 5, 1.0, 0.25), (rows[1], 1, 0.25, 0.05), (rows[0], 16, 0.0, 0.0)]:
        fig = move(notebook("02"), row=row, top_k=k, image_weight=w_img, text_weight=w_txt)
        nearest = np.argsort(-cosines[row], kind="stable")[:k]
        query, *neighbors = pictures(fig)
        assert query[:2] == ("query", test.class_names[test.labels[row]])
        np.testing.assert_array_equal(query[2], cached.test_pictures(config, config.datasets[0], [row])[0])
        assert [title for title, _, _ in neighbors] == [f"cosine {cosines[row, i]:.2f}" for i in nearest[:8]]
        for (_, caption, shown), i in zip(neighbors, nearest, strict=False):
            assert caption.replace("\n", " ")[:15] == (pairs.captions[i] or "(no caption)")[:15]
            np.testing.assert_array_equal(shown, cached.pictures_of(config, [pairs.ids[i]])[0])
        augmented = augment(v[[row]], R_img[nearest][None], R_txt[nearest][None], image_weight=w_img,
                            text_weight=w_txt)
        before, after = (test.class_names[predict(some, test.class_features)[0]]
                         for some in (v[[row]], augmented))
        assert f"v says {before}, v′ says {after}" in " ".join(fig.get_suptitle().split())
        ax = fig.axes[-1]
        classes = [label.get_text().removesuffix(" (right)") for label in ax.get_yticklabels()]
        (diamonds,) = [line.get_xdata() for line in ax.lines if line.get_marker() == "D"]
        W = test.class_features[[test.class_names.index(name) for name in classes]]
        np.testing.assert_allclose(diamonds, W @ augmented[0], atol=1e-5)
        np.testing.assert_allclose([bar.get_width() for bar in ax.containers[0]], W @ v[row], atol=1e-5)


@pytest.mark.slow
def test_03_shows_rams_own_weights(live, move):
    import torch

    names = live(notebook("03")).names
    config = names.config
    test, (references, _) = cached.test_set(config, config.datasets[0]), cached.reference_pairs(config)
    blocks = scaled(test.image_features, references, names.scale)
    cosines = unit(test.image_features) @ unit(references.image_features).T
    for query, k, layer in [(0, 2, 1), (7, 5, 2), (149, 12, 1)]:
        fig = move(notebook("03"), query=query, k=k, layer=layer)
        nearest = np.argsort(-cosines[query], kind="stable")[:k]
        v, r_img, r_txt = (torch.tensor(np.asarray(block, np.float32)) for block in (
            blocks[0][[query]], blocks[1][nearest][None], blocks[2][nearest][None]))
        text, image = names.ram.attention_weights(v, r_img, r_txt)[layer - 1]
        (ax,) = [ax for ax in fig.axes if ax.containers]
        drawn = {bars.get_label().split()[0]: [bar.get_height() for bar in bars] for bars in ax.containers}
        np.testing.assert_allclose(drawn["text"], 100 * text[0].mean(0), rtol=1e-5)
        np.testing.assert_allclose(drawn["image"], 100 * image[0].mean(0), rtol=1e-5)
        assert ax.lines[0].get_ydata()[0] == pytest.approx(100 / k)
        found = pictures(fig)
        assert found[0][1].replace("\n", " ") == test.class_names[test.labels[query]] and len(found) == k + 1
        for (_, caption, shown), i in zip(found[1:], nearest, strict=True):
            assert caption.replace("\n", " ")[:12] == (references.captions[i] or "(no caption)")[:12]
            np.testing.assert_array_equal(shown, cached.pictures_of(config, [references.ids[i]])[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
def test_06_ranks_the_films_by_the_typed_text(live, move):
    config = live(notebook("06")).names.config
    gallery = film_gallery(config)
    labels = [f"{movie}: {title}" for movie, title in zip(gallery.movies, gallery.titles, strict=True)]
    means = np.stack([frames.mean(axis=0) for frames in gallery.frame_features])  # the paper's pooling
    for query in [gallery.descriptions[3], "snow", "a red circle at night", *ODD]:
        fig = move(notebook("06"), query=query)
        cosines = unit(means) @ unit(text_features(config, gallery, [query]))[0]
        left, right = fig.subfigs
        best = np.argsort(-cosines, kind="stable")[:len(right.subfigs)]
        asked = "".join(left.axes[0].texts[0].get_text().split())
        assert asked and f"“{''.join(query.split())}”".startswith(asked.removesuffix("…"))
        for place, (part, film) in enumerate(zip(right.subfigs, best, strict=True), start=1):
            title = " ".join(part.get_suptitle().split())
            assert title.startswith(f"{place}. {labels[film]} (cosine {cosines[film]:.2f})")


@pytest.mark.slow
def test_08_marks_the_scene_where_it_is_known(live, move):
    from impart_utils import scene_windows
    from impart_utils.toy_world.films import make_films

    cell = live(notebook("08"))
    config, start = cell.names.config, cell.controls["query"].value
    gallery = film_gallery(config)
    films = {film.id: film for film in make_films(config.cache_dir / "toy_films", seed=0)}
    (film, scene), *_ = [(gallery.ids.index(name), scene) for name, film in films.items()
                         for scene in film.scenes if scene.description == start]
    for query in ["nobody ever drew this", start]:
        fig = move(notebook("08"), query=query)
        found = scene_windows.find_windows(text_features(config, gallery, [query]), gallery.timestamps[film],
                                           gallery.frame_features[film])[0]
        curve = next(ax for ax in fig.axes if ax.get_ylabel() == "cosine with the query")
        np.testing.assert_allclose(curve.lines[0].get_ydata(), found.curve)
        spans = [patch for patch in curve.patches if patch.get_alpha() == 0.3]
        drawn = [(span.get_x(), span.get_x() + span.get_width()) for span in spans]
        assert drawn == ([pytest.approx((scene.start, scene.end))] if query == start else [])


@pytest.mark.slow
def test_00_and_09_follow_their_sliders(live, move):
    fig = move(notebook("00"), angle=16.0, length=2.0, scale=10)
    cosines = live(notebook("00")).names.W @ [np.cos(np.radians(16.0)), np.sin(np.radians(16.0))]
    shares = np.exp(10 * cosines) / np.exp(10 * cosines).sum()
    np.testing.assert_allclose([bar.get_width() for bar in fig.axes[1].patches], 100 * shares, rtol=1e-5)
    paper = live(notebook("09")).names.paper
    ax = move(notebook("09"), ours=paper - 2).axes[0]
    assert f"{paper - 2:.2f} %" in ax.get_title()
    assert ax.lines[1].get_ydata()[0] == pytest.approx(paper - 2, abs=0.5)  # whole pictures of 100
    assert "100" in [label.get_text() for label in ax.get_xticklabels()]  # no formula: live turns them off
