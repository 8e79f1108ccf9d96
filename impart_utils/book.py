"""The HTML book: the executed notebooks, the report, a gallery of the run's figures, pages on the code.

`build_book` copies book/ beside them, adds the pages that are made from a run or from the modules, and calls
Sphinx; book/conf.py calls the functions at the end, which work on what Sphinx has read.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from impart_utils import config
from impart_utils.book_api import PACKAGE, write_api
from impart_utils.run_settings import Stop


def build_book(run_config, names, *, strict=False):
    """Build these executed notebooks of the profile into book/_build/html.

    Parameters
    ----------
    run_config : Config;  names : list of str, the notebooks' names without .ipynb
    strict : bool, stop at Sphinx's warnings, too

    Returns
    -------
    index : Path of index.html

    Raises
    ------
    Stop : Sphinx failed; what it said is on stderr.
    """
    from impart_utils.evidence import report  # here, since it imports pandas

    build = config.output_root() / "book" / "_build"
    source = build / "source"
    shutil.rmtree(build, ignore_errors=True)
    shutil.copytree(config.ROOT / "book", source, ignore=shutil.ignore_patterns("_build"))
    shutil.copy(run_config.results_dir / "run.json", source)
    (source / "notebooks").mkdir()
    for name in names:
        shutil.copy(run_config.executed_dir / f"{name}.ipynb", source / "notebooks")
    report.write_page(run_config, source, names)
    write_figures(run_config, source, names)
    write_api(source)
    command = [sys.executable, "-m", "sphinx", "-q", *(["-W", "--keep-going"] if strict else []),
               "-d", build / "doctrees", source, build / "html"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))}  # conf.py imports this module
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    print(done.stderr, end="", file=sys.stderr)
    if done.returncode:
        raise Stop(f"The book could not be built (see above); its sources are in {source}.")
    return build / "html" / "index.html"


# ---- Figures -----------------------------------------------------------------------------------


def write_figures(run_config, source, names):
    """Write figures.md, the gallery, with its pictures, and eq1.md, the front page's picture.

    Parameters
    ----------
    source : folder of the book's sources;  names : notebooks in the book
    """
    folder = source / "figures"
    folder.mkdir()
    parts, chapter = [], None
    paths = {path.stem: path for path in run_config.figures_dir.glob("*.png")}
    for name, (notebook, title, heading) in find_figures(run_config.executed_dir).items():
        if name not in paths:
            continue
        shutil.copy(paths[name], folder)
        link = _escaped(f"{notebook[:2]}, “{heading}”")
        if notebook in names:
            link = f"[{link}](notebooks/{notebook}.ipynb#{slug(heading)})"
        parts += [] if title == chapter else [f"## {_escaped(title)}\n"]
        chapter = title
        parts.append(f"```{{figure}} figures/{name}.png\n:name: figure-{name}\n\n"
                     f"{_escaped(picture_words(paths[name])[0])}. Made in {link}.\n```\n")
    about = ("Every figure that this run's notebooks wrote, with the section that makes it and says what to "
             "see. The results folder has the same as PNG and SVG.") if parts else "This run wrote no figure."
    (source / "figures.md").write_text("\n".join(["# Figures of this run\n", f"{about}\n", *parts]),
                                       encoding="utf-8")
    _write_eq1(paths.get("eq1_score_terms"), source)


def _write_eq1(path, source):
    """The front page's picture: this run's, or the plane of README where notebook 02 didn't run."""
    if path is None:
        text = ("```{figure} _static/eq1.png\n:alt: Arrows in a plane: a query v, three retrieved images, "
                "their three texts and v′, which lies between v and them and is longer.\n\n"
                "Eq. 1 in a plane: to the query **v** come the weighted means of the retrieved images and of "
                "their texts. The sum **v′** leans towards the neighbors.\n```\n")
    else:
        shutil.copy(path, source / "eq1.png")
        text = (f"```{{figure}} eq1.png\n\nEq. 1 on one picture. {_escaped(picture_words(path)[0])}.\n```\n\n"
                "Above, the query and its nearest references with their cosines and captions: Eq. 1 adds the "
                "weighted mean of these pictures and of these captions to the query's features **v** and "
                "gives **v′**. Below, the score of each class taken apart: what **v** alone says (blue) and "
                "what the neighbors' pictures and captions add to it, up to the score of **v′** (diamond).\n")
    (source / "eq1.md").write_text(text, encoding="utf-8")


def find_figures(folder):
    """{figure's name: (notebook, its title, heading above the cell)} of the notebooks in a folder."""
    found = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        headings = [path.stem]
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                headings += re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE)
            for name in re.findall(r'save_figure\([^\n]*figures_dir, "(\w+)"\)', text):
                found[name] = path.stem, headings[:2][-1], headings[-1]
    return found


def picture_words(path):
    """(title, description) that `save_figure` wrote into a PNG; of another file (its name, "")."""
    from PIL import Image

    if Path(path).suffix != ".png":
        return Path(path).stem, ""
    with Image.open(path) as picture:
        words = picture.info
    return words.get("Title", Path(path).stem.replace("_", " ")), words.get("Description", "")


def slug(heading):
    """The anchor that MyST gives a heading, as GitHub does."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace(" ", "-"))


def _escaped(text):
    """Text as it stands, whatever Markdown would make of it."""
    return re.sub(r"([\\`*_$\[\]<>{}#|])", r"\\\1", text)


# ---- What conf.py calls -----------------------------------------------------------------------------


def output_words(notebook):
    """{sha256 of a picture: its alternative text} of an executed notebook's outputs, parsed JSON.

    The text is what the figure said of itself (`evidence.figures.DescribedFigure`); for a picture of a
    reader's own making, the end of the cell that shows it.
    """
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                content = base64.b64decode("".join(output["data"]["image/png"]))
                own = output.get("metadata", {}).get("image/png", {}).get("alt")
                last = "".join(cell["source"]).rstrip().rpartition("\n")[2]
                found[hashlib.sha256(content).hexdigest()] = own or f"Output of a cell that ends with: {last}"
    return found


def mend(doctree, folder, words):
    """Give each picture of a page its alternative text: from `words`, or what the file says of itself.

    And take back what docutils holds for mail addresses: R@1, R1@IoU.
    """
    for link in list(doctree.findall(lambda node: node.tagname == "reference")):
        if link.get("refuri", "").startswith("mailto:"):
            link.replace_self(link.children)
    for image in doctree.findall(lambda node: node.tagname == "image"):
        path = Path(folder) / image["uri"]
        text = words.get(path.stem) or (picture_words(path)[1] if path.is_file() else "")
        if text:
            image["alt"] = text
