"""For the classroom: notebooks without solutions for students, with open ones for the instructor."""

import argparse
import copy
from pathlib import Path

from impart_utils.config import ROOT
from impart_utils.sources.files import atomic_path

ANSWERS = ("solution", "possible-answer")  # tags of the cells that give an exercise away


def student_copy(notebook):
    """A copy of a notebook without its solutions and possible answers, and without outputs.

    What is left runs from top to bottom: an exercise that wasn't attempted says so and stops nothing.
    """
    student = _without_outputs(notebook)
    student.cells = [cell for cell in student.cells if not set(ANSWERS) & set(_tags(cell))]
    return student


def solutions_copy(notebook):
    """A copy of a notebook whose solutions and possible answers are open instead of folded."""
    solutions = _without_outputs(notebook)
    for cell in solutions.cells:
        if set(ANSWERS) & set(_tags(cell)):
            cell.metadata.pop("jupyter", None)
            cell.metadata["tags"] = [tag for tag in _tags(cell) if tag != "hide-cell"]
            cell.source = cell.source.replace("<details>", "<details open>")
    return solutions


def make(out, notebooks=ROOT / "notebooks"):
    """Write OUT/student and OUT/solutions, one copy of every notebook each.

    Returns
    -------
    folders : dict, "student" and "solutions" -> Path

    Raises
    ------
    FileNotFoundError : no notebook in `notebooks`.
    ValueError : `out` is the folder of the notebooks themselves.
    """
    import nbformat

    paths = sorted(Path(notebooks).glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"There is no notebook like 00_name.ipynb in {notebooks}.")
    folders = {"student": Path(out) / "student", "solutions": Path(out) / "solutions"}
    if Path(notebooks).resolve() in [folder.resolve() for folder in folders.values()]:
        raise ValueError(f"{out} would overwrite the notebooks. Give another folder with --out.")
    for kind, make_copy in (("student", student_copy), ("solutions", solutions_copy)):
        for path in paths:
            with atomic_path(folders[kind] / path.name) as temporary:
                nbformat.write(make_copy(nbformat.read(path, 4)), temporary)
    return folders


def _without_outputs(notebook):
    clean = copy.deepcopy(notebook)
    for cell in clean.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return clean


def _tags(cell):
    return list(cell.metadata.get("tags", []))


def main(arguments=None):
    """Make copies of the notebooks for students, without solutions, and for instructors, with open ones.

    Returns
    -------
    folders : dict, kind -> Path of the copies;  run : bool, whether to run them
    """
    parser = argparse.ArgumentParser(prog="./run_all.sh handout", description=main.__doc__.splitlines()[0])
    parser.add_argument("--out", default="handout", help="folder for student/ and solutions/")
    parser.add_argument("--run", action="store_true", help="run both in the demo profile, and build the "
                        "book of solutions")
    given = parser.parse_args(arguments)
    folders = make(Path(given.out).expanduser().resolve())
    for kind, folder in folders.items():
        print(f"{kind}: {folder}", flush=True)
    return folders, given.run
