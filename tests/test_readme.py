"""The README says what is so: its code prints what it shows, its links and commands lead somewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from impart_utils.evidence import readme_table
from impart_utils.evidence.results import CLASSIFICATION_COLUMNS, METHODS, write_results

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_first_example_prints_what_it_shows():
    block = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    shown = [line[2:] for line in block.splitlines() if line.startswith("# ")]
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    # as bytes: text mode would turn the carriage returns, with which a bar clears its line, into new lines
    lines = [line.split("\r")[-1].strip() for line in done.stdout.decode().split("\n")]
    assert [line for line in lines if line] == shown


@pytest.mark.parametrize("page", ["README.md", "data/README.md"])
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (impart_utils[\w.]*)", README))))
def test_commands_are_there(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT,
                          timeout=120)
    assert done.returncode == 0 and "usage" in done.stdout.lower(), done.stderr


# ---- The tables between marks


VALUES = readme_table.read_values(readme_table.VALUES)
WORLDS = json.loads(readme_table.WORLDS.read_text())


def test_tables_are_what_the_command_would_write():
    assert readme_table.written(README, VALUES, WORLDS) == README, f"run {readme_table.COMMAND}"


def test_a_changed_number_changes_the_readme():
    """The test above fails once a committed number moves: in every one of the three tables."""
    for column, row in (("accuracy", "CLIP"), ("seconds", "04_zero_shot"), ("threads", "")):
        other = VALUES.copy()
        other.loc[(VALUES["quantity"] == column) & (VALUES["row"] == row), "value"] = "0.1234"
        assert readme_table.written(README, other, WORLDS) != README, column
    worlds = {"summary": [{**row, "mean": row["mean"] + 0.01} for row in WORLDS["summary"]]}
    assert readme_table.written(README, VALUES, worlds) != README


def test_no_accuracy_stands_outside_the_marks():
    """Nothing typed twice: the table's percents occur in the README between the marks alone."""
    table = readme_table.accuracy_table(VALUES).strip()
    assert table in README
    rest = README.replace(table, "")
    assert not re.search(r"^\| (CLIP|RA-CLIP[^|]*|random neighbors) \| \d", rest, re.MULTILINE)


def test_the_first_table_has_every_notebook():
    table = readme_table.places_table(VALUES)
    assert re.findall(r"\(notebooks/(\S+)\)", table) == sorted(
        path.name for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def test_committed_accuracies_are_all_the_methods_on_all_the_sets():
    part = VALUES[VALUES["quantity"] == "accuracy"]
    assert set(part["row"]) == set(METHODS) and set(part["column"]) == set(readme_table.TITLES)
    assert len(part) == len(METHODS) * len(readme_table.TITLES)
    numbers = part[["low", "value", "high"]].astype(float)
    assert (numbers["low"] < numbers["value"]).all() and (numbers["value"] < numbers["high"]).all()


def test_what_stands_outside_the_marks_is_left_alone():
    start = f"<!-- x: written by {readme_table.COMMAND} -->"
    text = f"before\n{start}\nold\n<!-- end of x -->\nafter\n"
    new = readme_table.replaced(text, "x", "| a |\n")
    assert new == f"before\n{start}\n| a |\n\n<!-- end of x -->\nafter\n"
    assert readme_table.replaced(new, "x", "| a |") == new
    for broken in ("no marks", f"<!-- end of x -->\n{start}", f"{text}{text}"):
        with pytest.raises(ValueError, match="Expected the marks '<!-- x: written by"):
            readme_table.replaced(broken, "x", "")


def test_tables_on_a_known_answer():
    row = {"difference": "Vanilla - CLIP", "mean": -0.0077, "low": -0.0115, "high": 0.003, "worlds": 5,
           "above_zero": 1}
    table = readme_table.worlds_table({"summary": [{**row, "dataset": name} for name in readme_table.TITLES]})
    assert "| Vanilla − CLIP | −0.8 (−1.1 to +0.3), above zero in 1 |" in table
    values = pd.DataFrame([("accuracy", "CLIP", "toy10", "0.8200", "0.8026", "0.8362", "2000")],
                          columns=list(readme_table.COLUMNS))
    assert "| CLIP | 82.0 (80.3 to 83.6) |" in readme_table.accuracy_table(values)


@pytest.fixture
def run_folder(tmp_path):
    """A results folder of the demo whose accuracies are the committed ones."""
    part, rows = VALUES[VALUES["quantity"] == "accuracy"], []
    for found in part.to_dict("records"):
        n, seeds = int(found["n"]), 10 if "RAM" in found["row"] else 1
        total = round(seeds * n * float(found["value"]))
        for seed in range(seeds):  # several trainings, for their mean needn't be a whole number of pictures
            correct = (total + seed) // seeds
            rows.append({**dict.fromkeys(CLASSIFICATION_COLUMNS, ""), "n": n, "n_available": n,
                         "correct": correct, "accuracy": correct / n, "method": found["row"],
                         "dataset": found["column"], "average": "micro", "low": found["low"],
                         "high": found["high"], "seed": seed if seeds > 1 else ""})
    write_results(rows, tmp_path / "table1.csv", CLASSIFICATION_COLUMNS)
    row = {"status": "ok", "run_id": "r1", "seconds": 12.3}
    record = {"profile": "demo", "settings": {}, "threads": "2",
              "notebooks": {"00_start_here": row, "04_zero_shot": row}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    return tmp_path


def edit_record(folder, **changes):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **changes}))


def test_check_knows_its_own_numbers(run_folder, capsys):
    assert readme_table.main(["--check", str(run_folder)]) == 0
    assert "Every accuracy is that of the README" in capsys.readouterr().out
    found = readme_table.demo_values(run_folder, whole=True)
    assert found[found["quantity"] == "seconds"]["value"].tolist() == ["12", "12"]


@pytest.mark.parametrize(("method", "within", "beyond"), [("CLIP", 3, 4), ("RA-CLIP (RAM)", 30, 32)])
def test_check_holds_the_tolerances(run_folder, capsys, method, within, beyond):
    table = pd.read_csv(run_folder / "table1.csv", dtype=str, keep_default_na=False)
    which = (table["method"] == method) & (table["dataset"] == "toy10")
    before = table.loc[which, "correct"].astype(int)
    for change, code in ((within, 0), (-beyond, 1)):
        table.loc[which, "correct"] = (before + change).astype(str)
        table.loc[which, "accuracy"] = ((before + change) / 2000).astype(str)
        table.to_csv(run_folder / "table1.csv", index=False)
        assert readme_table.main(["--check", str(run_folder)]) == code
    assert f"{method} on toy10: " in capsys.readouterr().out
    table[~which].to_csv(run_folder / "table1.csv", index=False)
    assert readme_table.main(["--check", str(run_folder)]) == 1
    assert f"{method} on toy10: only in the committed numbers" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "told"), [
    ({"profile": "paper"}, "Expected a run of the demo as it comes, got profile 'paper'"),
    ({"settings": {"limit": 150}}, "with settings {'limit': 150}. Run ./run_all.sh first."),
    ({"notebooks": {"00_a": {"status": "ok", "run_id": "r1"}, "04_b": {"status": "ok", "run_id": "r2"}}},
     "Expected all notebooks of one run, got those of 2: r1, r2. Run ./run_all.sh without --only.")])
def test_numbers_of_another_run_are_refused(run_folder, capsys, change, told):
    edit_record(run_folder, **change)
    assert readme_table.main(["--from", str(run_folder)]) == 1  # and nothing was written:
    assert told in capsys.readouterr().err
    assert readme_table.read_values(readme_table.VALUES).equals(VALUES)
    assert (ROOT / "README.md").read_text() == README


def test_the_command_writes_values_and_readme(run_folder, tmp_path, monkeypatch):
    for name in ("VALUES", "README"):
        monkeypatch.setattr(readme_table, name, tmp_path / f"copy of {name}")
    (tmp_path / "copy of README").write_text(README)
    assert readme_table.main(["--from", str(run_folder)]) == 0
    new = (tmp_path / "copy of README").read_text()
    assert readme_table.written(new, readme_table.read_values(tmp_path / "copy of VALUES"), WORLDS) == new
    assert "| `./run_all.sh --only 00` | 12 |" in new and new != README
    assert readme_table.accuracy_table(VALUES).strip() in new  # the same accuracies


@pytest.mark.slow
def test_a_fresh_run_has_the_committed_accuracies(tmp_path):
    done = subprocess.run([sys.executable, "-m", "impart_utils.run", "--only", "04", "--no-book"], cwd=ROOT,
                          env={**os.environ, "IMPART_OUTPUT": str(tmp_path)}, capture_output=True, text=True,
                          timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    values = readme_table.demo_values(tmp_path / "results" / "demo")
    assert readme_table.differences(values, VALUES) == []
