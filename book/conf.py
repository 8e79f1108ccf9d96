"""Sphinx settings of the HTML book, which works from file:// and without a network.

impart_utils/book.py copies this folder, the executed notebooks and run.json into book/_build/source, adds
the pages that are made from them, and builds there.
"""

import json
from pathlib import Path

from impart_utils import book

run = json.loads((Path(__file__).parent / "run.json").read_text())

project = "IMPART"
author = "The IMPART kit's authors"
copyright = "The IMPART kit's authors, MIT license"
html_title = f"IMPART, {run['profile']} profile"

extensions = ["myst_nb", "sphinx-mathjax-offline"]
exclude_patterns = ["eq1.md"]   # included in index.md
nb_execution_mode = "off"       # the notebooks were executed by papermill
nb_merge_streams = True
nb_ipywidgets_js = {}           # live widgets would load their code from the web
myst_enable_extensions = ["dollarmath", "amsmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {name: run[name] for name in ("run_id", "profile", "commit", "seed")}
smartquotes = False               # "none" stays what can be typed
default_role = "py:obj"           # `name` in a docstring is code, and a link where the name is found
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_domain_indices = False       # the page "The code" lists the modules
html_static_path = ["_static"]
html_show_search_summary = False  # it would fetch pages, which a browser refuses from file://
html_css_files = ["impart.css"]
html_context = {"default_mode": "auto"}  # light or dark as the reader's system; unset, an error
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "use_download_button": True,  # the executed notebook
    "use_fullscreen_button": False,
    "navbar_persistent": [],      # one search field, in the sidebar
}
words = {}  # sha256 of a picture in a notebook -> alternative text


def prepare_notebook(app, docname, source):
    """Fold cells tagged `solution` (stub first, answer on request) and take down what pictures say."""
    if not docname.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    words.update(book.output_words(notebook))
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "solution" in tags and cell["cell_type"] == "code" and "hide-cell" not in tags:
            cell["metadata"]["tags"] = [*tags, "hide-cell"]
    source[0] = json.dumps(notebook)


def setup(app):
    app.connect("source-read", prepare_notebook)
    app.connect("doctree-read", lambda app, doctree: book.mend(doctree, app.srcdir, words))
