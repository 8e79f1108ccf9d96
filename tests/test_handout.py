"""Student copies without solutions, instructor's copies with open ones; both still run."""

import nbformat
import pytest

from impart_utils import handout, run
from impart_utils.config import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return handout.make(tmp_path_factory.mktemp("handout"))


def tags(cell):
    return set(cell.metadata.get("tags", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_student_gets_the_question_and_not_the_answer(folders, path):
    original, student = nbformat.read(path, 4), nbformat.read(folders["student"] / path.name, 4)
    nbformat.validate(student)
    answers = [cell.source for cell in original.cells if tags(cell) & set(handout.ANSWERS)]
    left = [cell.source for cell in student.cells]
    assert left == [cell.source for cell in original.cells if cell.source not in answers]
    assert "possible answer" not in "\n".join(left).lower()
    stubs = [source for source in left if "answer = ..." in source]
    assert len(stubs) == sum("check(" in source for source in left)  # every check stands at an open stub


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_instructor_sees_every_solution_open(folders, path):
    original, solutions = nbformat.read(path, 4), nbformat.read(folders["solutions"] / path.name, 4)
    nbformat.validate(solutions)
    assert len(solutions.cells) == len(original.cells)
    for cell in solutions.cells:
        assert "hide-cell" not in tags(cell) and "jupyter" not in cell.metadata
        assert "<details>" not in cell.source
    assert [cell.source for cell in solutions.cells if cell.cell_type == "code"] == [
        cell.source for cell in original.cells if cell.cell_type == "code"]


def test_there_is_something_to_hand_out():
    found = [cell for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells if "solution" in tags(cell)]
    assert len(found) >= len(NOTEBOOKS)


def test_folders_that_cannot_work_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebook like"):
        handout.make(tmp_path / "out", tmp_path)
    folders = handout.make(tmp_path)
    with pytest.raises(ValueError, match="would overwrite"):
        handout.make(tmp_path, folders["student"])


@pytest.mark.slow
def test_both_copies_run(tmp_path, monkeypatch):
    """02 stands for all: each notebook's own test runs every cell, and a student's copy only lacks some."""
    from impart_utils.config import load_config

    monkeypatch.setenv("IMPART_CACHE", str(load_config("demo").cache_dir))
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "before"))
    paths = [path for path in NOTEBOOKS if path.stem.startswith("02")]
    source = tmp_path / "source"
    source.mkdir()
    for path in paths:
        (source / path.name).write_bytes(path.read_bytes())
    for kind, folder in handout.make(tmp_path / "out", source).items():
        run.set_environment()
        assert run.run_copies(folder, tmp_path / kind, book=False) == 0
        executed = nbformat.read(tmp_path / kind / "executed" / "demo" / paths[0].name, 4)
        said = "".join(output.get("text", "") for cell in executed.cells
                       for output in cell.get("outputs", []))
        assert "not attempted" in said and ("correct" in said.lower()) == (kind == "solutions"), said
