"""The book of a run with one small notebook: its pages, pictures and words."""

import base64
import hashlib
import importlib
import inspect
import json
import re
import zlib

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from impart_utils import book, book_api, config, run, run_record
from impart_utils.evidence.figures import save_figure

NAME = "02_small"
TITLE = "accuracy of v′ [%], $k$ = *8*"  # each sign means something in Markdown


def png(folder, value):
    """A picture's bytes in base64, as an output has them."""
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(folder / "some.png")
    return base64.b64encode((folder / "some.png").read_bytes()).decode()


def shown(data, metadata=None):
    return new_output("display_data", {"image/png": data, "text/plain": "<Figure>"}, metadata=metadata or {})


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A config whose results hold one executed notebook, its figure and its record."""
    folder = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMPART_OUTPUT", str(folder))
        made = config.load_config("demo")
        made.executed_dir.mkdir(parents=True)
        made.results_dir.mkdir(parents=True)
        fig = plt.figure()
        fig.subplots().set(title=TITLE, xlabel="k", ylabel="accuracy (%)")
        save_figure(fig, made.figures_dir, "small")
        text = ("# 02 · Small\n\nInline $x^2$.\n\n$$v' = v + w$$\n\n## 1 · `Eq. 1` by hand\n\n"
                f"See [the start]({NAME}.ipynb).")
        words = {"image/png": {"alt": "Lines; x axis: k, 1 to 8; y axis: accuracy (%)."}}
        table = {"text/html": "<table><tr><td>3</td></tr></table>", "text/plain": "3"}
        cells = [
            new_markdown_cell(text),
            new_code_cell("top_k = 8", metadata={"tags": ["parameters"]}, execution_count=1),
            new_code_cell("1 + 2", execution_count=2,
                          outputs=[new_output("execute_result", table, execution_count=2)]),
            new_code_cell("answer = 'the solution'", metadata={"tags": ["solution"]}, execution_count=3),
            new_code_cell('plots.save_figure(fig, config.figures_dir, "small")\nfig', execution_count=4,
                          outputs=[shown(png(folder, 10), words)]),
            new_code_cell("a = 1\nplt.plot(mine)", execution_count=5, outputs=[shown(png(folder, 20))])]
        language = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                    "language_info": {"name": "python"}}
        path = made.executed_dir / f"{NAME}.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata=language), path)
        record = run_record.start_record(made, {}, [path], keep_others=False)
        record["notebooks"] = {NAME: {"status": "ok", "run_id": record["run_id"]}}
        run_record.save_record(record, made)
        yield made


@pytest.fixture(scope="module")
def html(settings):
    return book.build_book(settings, [NAME], strict=True).parent


def images(page):
    return [(re.search(r'src="([^"]*)"', tag).group(1), re.search(r'alt="([^"]*)"', tag).group(1))
            for tag in re.findall(r"<img[^>]*>", page.read_text())]


# Pages

def test_book_works_without_a_network(settings, html):
    page = (html / "notebooks" / f"{NAME}.html").read_text()
    for text in (path.read_text() for path in html.rglob("*.html")):
        assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', text)
    scripts = [html / "notebooks" / name for name in re.findall(r'<script[^>]*src="([^"?]+)', page)]
    assert any("mathjax" in str(script).lower() for script in scripts) and all(s.is_file() for s in scripts)
    (folded,) = re.findall(r'<details class="[^"]*hide.*?</details>', page, re.DOTALL)
    assert "the solution" in folded and "the solution" not in page.replace(folded, "")
    index = (html / "index.html").read_text()
    assert json.loads((settings.results_dir / "run.json").read_text())["run_id"] in index
    assert f"notebooks/{NAME}.html" in index and "01_reference_set.html" not in index
    assert html == settings.results_dir.parents[1] / "book" / "_build" / "html"


def test_every_public_function_and_class_has_its_place_on_the_pages(html):
    """Compared with what importing the modules finds; the pages are made without importing."""
    inventory = zlib.decompress((html / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    documented = {line.split()[0] for line in inventory.splitlines() if " py:" in line}
    modules = {name for _, names in book_api.api_pages().values() for name in names}
    files = {".".join(path.relative_to(book_api.PACKAGE).with_suffix("").parts)
             for path in book_api.PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    assert modules == files
    public = set()
    for name in modules:
        module = importlib.import_module(f"impart_utils.{name}")
        for key, value in vars(module).items():
            if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__:
                if value.__qualname__ == key and not key.startswith("_") and key != "main":
                    public.add(f"{module.__name__}.{key}")
    assert len(public) > 500
    assert public - documented == set()  # but `main`, the command lines: --help describes them


def test_docstrings_are_rendered(html):
    page = (html / "api" / "paper.html").read_text()
    augment = page[page.index('id="impart_utils.vanilla.augment"'):].split("augment_fused</span>")[0]
    assert r"\frac{w_{img}}{k}" in re.search(r'<div class="math.*?</div>', augment, re.DOTALL).group()
    for section in ("Parameters", "Returns", "Raises"):
        assert f"{section}<span" in augment
    entries = re.findall(r"<li><p><code[^>]*>(.*?)</code> : (.*?)</p>", augment, re.DOTALL)
    names = [" ".join(re.sub("<.*?>", "", name).split()) for name, _ in entries]
    assert names == ["image_features", "retrieved_image_features, retrieved_text_features",
                     "image_weight, text_weight", "augmented_features", "ValueError"]
    assert entries[2][1].startswith("float, w_img and w_txt.\nThe paper names no values")
    for path in (html / "api").glob("*.html"):
        text = re.sub(r"<pre>.*?</pre>", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"^-{3,}$|:math:|\.\. math|; {2}\w+ :|mailto:", text, re.MULTILINE), path.name


# Pictures

def test_a_figure_of_the_notebook_has_the_words_it_said_of_itself(html):
    words = dict(images(html / "notebooks" / f"{NAME}.html"))
    assert sorted(words.values()) == ["Lines; x axis: k, 1 to 8; y axis: accuracy (%).",
                                      "Output of a cell that ends with: plt.plot(mine)"]


def test_gallery_shows_the_figure_its_title_and_where_it_is_made(settings, html):
    ((source, text),) = images(html / "figures.html")
    assert source.endswith("small.png") and (html / source).is_file()
    assert text == f"{TITLE}; x axis: k, 0 to 1; y axis: accuracy (%), 0 to 1.".capitalize()
    page = (html / "figures.html").read_text()
    caption = re.sub("<.*?>", "", re.search(r"<figcaption>.*?</figcaption>", page, re.DOTALL).group())
    assert caption.split("\n")[1].startswith(f"{TITLE}. Made in 02, “1 · `Eq. 1` by hand”.")
    link = re.search(r'href="notebooks/02_small\.html#([\w-]+)"', page).group(1)
    assert f'id="{link}"' in (html / "notebooks" / f"{NAME}.html").read_text()


def test_gallery_of_a_run_without_figures(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    book.write_figures(config.load_config("demo"), tmp_path, [])
    assert "This run wrote no figure." in (tmp_path / "figures.md").read_text()


def test_front_page_shows_this_runs_picture_or_the_plane(settings, html, tmp_path):
    ((source, text),) = images(html / "index.html")
    assert source.endswith("eq1.png") and text.startswith("Arrows in a plane: a query v")
    (tmp_path / "figures").mkdir()
    fig = plt.figure()
    fig.subplots().set(title="v says star, v′ says tree", xlabel="score")
    save_figure(fig, tmp_path / "figures", "eq1_score_terms")
    book._write_eq1(tmp_path / "figures" / "eq1_score_terms.png", tmp_path)
    page = (tmp_path / "eq1.md").read_text()
    assert "v says star, v′ says tree" in page and "{figure} eq1.png" in page
    assert (tmp_path / "eq1.png").read_bytes() == (tmp_path / "figures" / "eq1_score_terms.png").read_bytes()


def test_words_of_pictures(tmp_path):
    data = png(tmp_path, 30)
    assert book.picture_words(tmp_path / "some.png") == ("some", "")
    assert book.picture_words(tmp_path / "other.svg") == ("other", "")
    cell = {"source": ["a\n", "show(b)\n"], "outputs": [{"data": {"image/png": [data]}, "metadata": {}}]}
    key = hashlib.sha256((tmp_path / "some.png").read_bytes()).hexdigest()
    assert book.output_words({"cells": [{"source": "text"}, cell]}) == {
        key: "Output of a cell that ends with: show(b)"}


@pytest.mark.slow
def test_a_broken_link_is_printed_and_with_strict_stops(settings, html, capfd):
    path = settings.executed_dir / f"{NAME}.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[0].source += "\n\n[gone](07_gone.ipynb)"
    nbformat.write(notebook, path)
    assert book.build_book(settings, [NAME]).is_file()
    assert "07_gone" in capfd.readouterr().err
    with pytest.raises(run.Stop, match="could not be built"):
        book.build_book(settings, [NAME], strict=True)
