"""The notebooks' engine: papermill's, which writes seldom, but loses nothing at the end."""

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill import engines
from papermill.exceptions import PapermillExecutionError

from impart_utils import notebook_engine


@pytest.fixture
def written(monkeypatch):
    """How many cells had an output, of each time that the engine wrote the notebook."""
    found, write = [], engines.write_ipynb

    def count(notebook, path):
        found.append(sum(bool(cell.get("outputs")) for cell in notebook.cells))
        write(notebook, path)

    monkeypatch.setattr(engines, "write_ipynb", count)
    return found


def execute(folder, *sources):
    cells = [cell for source in sources for cell in (new_markdown_cell("Prose."), new_code_cell(source))]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / "in.ipynb")
    papermill.execute_notebook(folder / "in.ipynb", folder / "out.ipynb", progress_bar=False,
                               engine_name=notebook_engine.NAME)


def texts(folder):
    return [cell.outputs[0].text.strip() for cell in nbformat.read(folder / "out.ipynb", 4).cells
            if cell.get("outputs") and "text" in cell.outputs[0]]


def test_quick_cells_are_written_once_at_the_end(tmp_path, written, monkeypatch):
    monkeypatch.setattr(notebook_engine, "EVERY", 1e9)
    execute(tmp_path, *(f"print({number})" for number in range(9)))
    assert written == [0, 9]
    assert texts(tmp_path) == [str(number) for number in range(9)]


def test_what_is_there_is_written_now_and_then(tmp_path, written, monkeypatch):
    monkeypatch.setattr(notebook_engine, "EVERY", 0.5)
    execute(tmp_path, "print(1)", "import time; time.sleep(1)", "print(3)")
    assert 1 in written[1:-1]  # a run that is killed now leaves what it showed
    assert written[-1] == 2


def test_a_failing_notebook_keeps_its_outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(notebook_engine, "EVERY", 1e9)
    with pytest.raises(PapermillExecutionError):
        execute(tmp_path, "print('before')", "1 / 0", "print('never')")
    assert texts(tmp_path) == ["before"]
