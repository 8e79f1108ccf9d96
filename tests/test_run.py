"""The runner: its options, messages and record; and what run_all.sh says before it sets up."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from impart_utils import config, run, run_record
from impart_utils.sources.packs import Pack, save_pack

ROOT = Path(__file__).resolve().parents[1]


def write_notebook(path, *sources, parameters="profile = 'demo'"):
    """A notebook with a `parameters` cell and these code cells; a source that starts with # is text."""
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [new_markdown_cell(s) if s.startswith("# ") else new_code_cell(s) for s in sources]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                "language_info": {"name": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two notebooks 00 and 02, with outputs below tmp_path."""
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "out"))
    monkeypatch.delenv("IMPART_RUN_ID", raising=False)
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    write_notebook(notebooks / "00_first.ipynb", "print(top_k)", parameters="profile = 'demo'\ntop_k = 8")
    write_notebook(notebooks / "02_second.ipynb", "print(datasets)",
                   parameters="profile = 'demo'\ndatasets = None  # (str)\ntop_k = 8")
    return notebooks


def run_in(folder, *arguments):
    return run.run_notebooks(run.parse(["--no-book", *arguments]), notebooks=folder)


def read_record(folder, profile="demo"):
    return json.loads((folder.parent / "out" / "results" / profile / "run.json").read_text())


@pytest.fixture
def without_kernels(monkeypatch):
    """Replaces the execution of a notebook; returns what would have run, and whose failure to pretend."""
    calls, failures = [], {}

    def pretend(path, parameters, run_config, record, label):
        calls.append((path.stem, parameters))
        status = "failed" if path.stem in failures else "ok"
        record["notebooks"][path.stem] = {"status": status, "run_id": record["run_id"]}
        run.save_record(record, run_config)
        return failures.get(path.stem)

    monkeypatch.setattr(run, "run_notebook", pretend)
    return calls, failures


# Options

@pytest.mark.parametrize(("text", "value"), [
    ("16", 16), ("-1", -1), ("0.5", 0.5), ("1e-3", 0.001), ("null", None), ("None", None), ("true", True),
    ("False", False), ("unit", "unit"), ("'16'", "16"), ("[1, 2]", [1, 2]), ("007", "007"), ("", ""),
    ("pack:a/b.npz+c.npz", "pack:a/b.npz+c.npz"), ("toy10,toy100", "toy10,toy100"), ("1,2", "1,2"),
    ("a=b", "a=b")])
def test_set_reads_literals_and_keeps_the_rest_as_text(text, value):
    parsed = run.parse_settings([f"name={text}"])["name"]
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize("pair", ["top_k", "=3", "top-k=3"])
def test_set_without_name_and_value(pair):
    with pytest.raises(run.Stop, match=re.escape(f"Expected --set NAME=VALUE, got '{pair}'")):
        run.parse_settings([pair])


def test_only_takes_numbers_in_any_order_once(folder):
    paths = sorted(folder.glob("*.ipynb"))
    assert [path.stem for path in run.choose(paths, "2, 0,02")] == ["00_first", "02_second"]
    assert run.choose(paths, None) == paths
    with pytest.raises(run.Stop, match="Unknown notebook '07'. Known: 00_first, 02_second."):
        run.choose(paths, "00,7")
    with pytest.raises(run.Stop, match="Found no notebooks"):
        run.choose([], None)


def test_settings_go_to_the_notebooks_that_have_them(folder, without_kernels):
    assert run_in(folder, "--set", "top_k=4", "--set", "datasets=toy10") == 0
    assert dict(without_kernels[0]) == {"00_first": {"profile": "demo", "top_k": 4},
                                        "02_second": {"profile": "demo", "top_k": 4, "datasets": "toy10"}}


def test_unknown_setting_lists_the_known_and_where_they_are(folder, without_kernels):
    with pytest.raises(run.Stop, match=r"parameter 'k'. Known, and where: datasets \(02\); top_k \(00, 02\)"):
        run_in(folder, "--set", "k=4")
    with pytest.raises(run.Stop, match=r"Known, and where: top_k \(00\)\."):  # of the chosen notebooks alone
        run_in(folder, "--only", "00", "--set", "datasets=toy10")
    with pytest.raises(run.Stop, match="--profile demo or --profile paper"):
        run_in(folder, "--set", "profile=paper")
    assert not without_kernels[0] and not (folder.parent / "out").exists()


def test_a_value_that_cannot_work_stops_before_the_first_notebook(folder, without_kernels):
    with pytest.raises(run.Stop, match="Expected top_k <= references, got top_k=5000"):
        run_in(folder, "--set", "top_k=5000")
    with pytest.raises(run.Stop, match="Unknown profile 'full'. Known profiles: demo, paper"):
        run_in(folder, "--profile", "full")
    assert not without_kernels[0]


def test_relative_paths_count_from_where_the_command_is_given(folder, without_kernels, tmp_path, monkeypatch):
    pictures = tmp_path / "here" / "pictures"
    (pictures / "cat").mkdir(parents=True)
    (pictures / "cat" / "one.png").touch()
    monkeypatch.chdir(pictures.parent)
    assert run_in(folder, "--only", "02", "--set", "datasets=folder:pictures") == 0
    assert without_kernels[0][0][1]["datasets"] == f"folder:{pictures}"


# Packs instead of pictures and weights

def write_packs(folder):
    """A pack of toy10 and one of pairs, as the kit makes them, and a stranger's of CIFAR-100."""
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    parts = {"image_features": x, "ids": list("abcd"), "model": "tiny", "made_by": "impart-kit 0"}
    save_pack(folder / "one.safetensors", Pack(
        **parts, labels=np.array([0, 1, 1, 0]), class_names=["a", "b"], class_texts={"paper/raw": np.eye(
            3, dtype=np.float32)[:2]}, protocol={"dataset": "toy10", "n_available": 4, "notes": []}))
    save_pack(folder / "two.safetensors", Pack(**parts, text_features=x, protocol={"dataset": "pairs"}))
    np.savez(folder / "cifar100_theirs.npz", image_features=x, labels=[0, 1, 1, 0], label_names=["a", "b"],
             text_features=x[:2])
    return folder


@pytest.fixture
def packs(folder):
    """DIR, and a notebook 06, which needs films, beside 00 and 02."""
    write_notebook(folder / "06_films.ipynb", "print(films)", parameters="profile = 'demo'\nfilms = None")
    (folder.parent / "packs").mkdir()
    return write_packs(folder.parent / "packs")


def test_features_give_each_notebook_the_packs_it_asks_for(folder, packs, without_kernels, capsys):
    assert run_in(folder, "--features", str(packs), "--set", "top_k=2") == 0
    calls = dict(without_kernels[0])
    assert calls["02_second"]["datasets"] == f"pack:{packs / 'one.safetensors'}"
    assert calls["00_first"] == {"profile": "demo", "top_k": 2} and "06_films" not in calls
    told = capsys.readouterr().out
    assert f"Features from {packs}:" in told and "toy10: one.safetensors, made by impart-kit 0" in told
    assert "toy100: no pack, left out" in told and "2 of 3 notebooks ran, 1 skipped" in told
    assert f"Skipped 06_films: no pack of films in {packs}" in told
    record = read_record(folder)
    assert record["notebooks"]["06_films"]["status"] == "skipped"
    assert "no pack of films" in record["notebooks"]["06_films"]["reason"]
    assert {row["file"] for row in record["packs"]} == {"one.safetensors", "two.safetensors"}


def test_features_of_others_by_their_names(folder, packs, without_kernels):
    write_notebook(folder / "02_second.ipynb", parameters="profile = 'demo'\ndatasets = None\nprompts = None")
    theirs = ["--profile", "paper", "--only", "02", "--features", str(packs)]
    with pytest.raises(run.Stop, match="theirs.npz has no texts for prompts=.paper.*prompts=stored"):
        run_in(folder, *theirs)
    assert run_in(folder, *theirs, "--set", "prompts=stored") == 0
    assert without_kernels[0][0][1]["datasets"] == f"pack:{packs / 'cifar100_theirs.npz'}"
    assert read_record(folder, "paper")["packs"][0] == {
        "file": "cifar100_theirs.npz", "holds": "cifar100", "weights": "", "made_by": "", "hash": ""}


def test_a_relative_folder_of_features(folder, packs, without_kernels, monkeypatch):
    monkeypatch.chdir(packs.parent)
    assert run_in(folder, "--only", "02", "--features", "packs") == 0
    assert without_kernels[0][0][1]["datasets"] == f"pack:{packs / 'one.safetensors'}"


def test_features_that_serve_nothing_stop_before_the_first_notebook(folder, packs, without_kernels):
    with pytest.raises(run.Stop, match="No notebook of this run can run from these packs.\nSkipped 06_films"):
        run_in(folder, "--only", "06", "--features", str(packs))
    with pytest.raises(run.Stop, match="There is no folder .*nowhere. Give --features the folder"):
        run_in(folder, "--features", str(packs / "nowhere"))
    (packs / "empty").mkdir()
    with pytest.raises(run.Stop, match="No pack in .*empty serves this run: .*no pack of toy10, toy100"):
        run_in(folder, "--features", str(packs / "empty"))
    content = bytearray((packs / "one.safetensors").read_bytes())
    content[-1] ^= 1
    (packs / "one.safetensors").write_bytes(content)
    with pytest.raises(run.Stop, match="one.safetensors was changed since it was written"):
        run_in(folder, "--features", str(packs))
    assert not without_kernels[0] and not (folder.parent / "out").exists()


def test_without_features_nothing_is_skipped(folder, without_kernels, monkeypatch, tmp_path):
    from impart_utils.sources import checkpoints

    monkeypatch.setattr(checkpoints, "clip_cache_path", lambda name: tmp_path / "nowhere.pt")
    with pytest.raises(run.Stop, match="The paper profile can't start"):
        run_in(folder, "--profile", "paper")
    assert not without_kernels[0]


def test_command_line_errors_are_messages(capsys):
    assert run.main(["tests"]) == 1
    assert "Unknown command 'tests'. Known: test, lab" in capsys.readouterr().err
    assert run.main(["--profile", "full", "--no-book"]) == 1
    assert "Known profiles" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        run.main(["--onyl", "02"])
    assert stopped.value.code == 2


def test_what_is_not_installed_is_named_with_the_way_to_get_it(monkeypatch):
    with pytest.raises(run.Stop) as stopped:
        run.require("json", "no_such_module_a", "no_such_module_b")
    message = str(stopped.value)
    assert "no_such_module_a, no_such_module_b" in message and "json" not in message
    assert 'pip install -c constraints.txt -e ".[book,test]"' in message and str(ROOT) in message


def test_test_and_lab_hand_over_with_their_arguments(monkeypatch):
    became = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: became.append((os.getcwd(), arguments)))
    monkeypatch.chdir(ROOT / "tests")
    run.main(["test", "-m", "not slow"])
    run.main(["lab", "--no-browser"])
    assert became == [(str(ROOT), [sys.executable, "-m", "pytest", "-m", "not slow"]),
                      (str(ROOT), [sys.executable, "-m", "jupyterlab", f"--notebook-dir={ROOT / 'notebooks'}",
                                   "--no-browser"])]


def test_environment_keeps_the_users_threads_and_puts_this_kernel_first(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("JUPYTER_PATH", "/elsewhere")
    monkeypatch.setenv("IMPART_OUTPUT", "relative")
    monkeypatch.chdir(tmp_path)
    run.set_environment()
    run.set_environment()  # twice: nothing piles up
    assert os.environ["OMP_NUM_THREADS"] == "3" and os.environ["MKL_NUM_THREADS"] == "3"
    ours = str(Path(sys.prefix, "share", "jupyter"))
    assert os.environ["JUPYTER_PATH"].split(os.pathsep) == [ours, "/elsewhere"]
    assert os.environ["IMPART_OUTPUT"] == str(tmp_path / "relative")


# The record

def test_the_run_stops_at_the_first_failure(folder, without_kernels, capsys):
    calls, failures = without_kernels
    failures["00_first"] = "In [2]:\n    1 / 0\nZeroDivisionError: division by zero"
    with pytest.raises(run.Stop) as stopped:
        run_in(folder)
    assert [name for name, _ in calls] == ["00_first"]
    message = str(stopped.value)
    assert "ZeroDivisionError" in message and "0 of 2 notebooks ran, 00_first did not" in message
    assert str(folder.parent / "out" / "executed" / "demo" / "00_first.ipynb") in message
    assert "notebooks ran" not in capsys.readouterr().out


def test_the_end_says_where_to_look(folder, without_kernels, capsys):
    assert run_in(folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"Results: {folder.parent / 'out' / 'results' / 'demo'}" in lines
    assert f"Report: {folder.parent / 'out' / 'results' / 'demo' / 'report.md'}" in lines
    assert re.fullmatch(r"2 of 2 notebooks ran, \d+ s", lines[-1])


def test_record_of_a_run(folder, without_kernels):
    run_in(folder, "--set", "top_k=4")
    record = read_record(folder)
    assert record["profile"] == "demo" and record["seed"] == 0 and record["settings"] == {"top_k": 4}
    assert record["run_id"] == os.environ["IMPART_RUN_ID"] and record["commit"] == config.commit()
    recorded = {"python", "platform", "torch", "numpy", "scikit-learn", "clip-anytorch", "papermill"}
    assert recorded <= set(record["versions"])
    assert set(record["machine"]) == {"processor", "cores", "memory_gb", "gpu"}
    assert record["machine"]["processor"] and record["machine"]["memory_gb"] > 0.5
    assert record["threads"] == os.environ["OMP_NUM_THREADS"] and record["seconds"] >= 0


def test_only_keeps_other_rows_with_their_own_run_id(folder, without_kernels):
    run_in(folder)
    first = read_record(folder)
    run_in(folder, "--only", "02")
    second = read_record(folder)
    assert second["run_id"] != first["run_id"] and second["selected"] == ["02_second"]
    assert second["notebooks"]["00_first"] == first["notebooks"]["00_first"]
    assert second["notebooks"]["02_second"]["run_id"] == second["run_id"]
    without_kernels[1]["00_first"] = "failed"
    with pytest.raises(run.Stop):
        run_in(folder)
    assert list(read_record(folder)["notebooks"]) == ["00_first"]  # a whole run begins anew


def test_inputs_are_hashed_and_those_of_the_notebooks_taken_up(folder, without_kernels, monkeypatch):
    data = folder.parent / "data"
    data.mkdir()
    (data / "paper_values.csv").write_bytes(b"abc")
    monkeypatch.setattr(config, "ROOT", folder.parent)
    results = folder.parent / "out" / "results" / "demo"
    results.mkdir(parents=True)
    (results / "inputs.json").write_text(json.dumps({"references": "0123"}))
    run_in(folder, "--only", "00")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180-2
    assert read_record(folder)["inputs"] == {"paper_values.csv": sha256, "references": "0123"}
    left = {path.name for path in results.iterdir()}
    assert left == {"inputs.json", "run.json", "report.md"}  # no temporary file
    run_in(folder)  # a whole run states its inputs anew
    assert read_record(folder)["inputs"] == {"paper_values.csv": sha256}


def test_a_failure_is_described_by_its_cell_and_error():
    source = "\n".join(f"line_{number}" for number in range(20))
    text = run.describe(7, source, "ValueError", "got 3")
    assert text.startswith("In [7]:\n    line_0\n") and text.endswith("ValueError: got 3")
    assert "line_7" in text and "line_8" not in text
    assert run.describe(7, source, "MissingInput", "get it there") == "get it there"


def test_peak_memory_sees_what_a_child_uses():
    with run_record.peak_memory(interval=0.02) as peak:
        code = "import time; x = b'1' * 200_000_000; time.sleep(0.3)"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert 200 < peak["mb"] < 300


# With kernels

@pytest.mark.slow
def test_run_with_kernels(folder, tmp_path, monkeypatch, capsys):
    """Progress, outputs and rows; a user's own kernel named python3 isn't taken."""
    spec = tmp_path / "user" / "kernels" / "python3"
    spec.mkdir(parents=True)
    users = {"argv": ["false"], "display_name": "x", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(users))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    write_notebook(folder / "00_first.ipynb", "# text", "import os, sys",
                   "print(sys.executable, os.getcwd(), os.environ['IMPART_RUN_ID'], top_k, datasets)",
                   "for i in range(3):\n    print(f'\\r{i}', end='', file=sys.stderr, flush=True)", "",
                   parameters="profile = 'demo'\ntop_k = 8\ndatasets = None")
    assert run_in(folder, "--set", "top_k=4") == 0
    printed = capsys.readouterr()
    assert re.search(r"^\[1/2\] 00_first \.\.\. 4 cells, [\d.]+ s$", printed.out, re.MULTILINE)
    assert printed.err == ""
    record = read_record(folder)
    row = record["notebooks"]["00_first"]
    assert row["status"] == "ok" and row["cells"] == 4
    assert row["parameters"] == {"profile": "demo", "top_k": 4}
    assert 20 < row["peak_memory_mb"] < 2000 and 0 < row["seconds"] < 120
    notebook = nbformat.read(config.load_config("demo").executed_dir / "00_first.ipynb", 4)
    outputs = [output.text for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs[0].split() == [sys.executable, str(folder), record["run_id"], "4", "None"]
    assert outputs[1:] == ["2"] or outputs[1:] == ["\r2"]  # a progress bar leaves its last state


@pytest.mark.slow
@pytest.mark.parametrize(("source", "shown", "hidden"), [
    ("x = 1\nraise ValueError('got 3')", ["In [3]:", "x = 1", "ValueError: got 3"], "Traceback"),
    ("class MissingInput(RuntimeError):\n    pass\nraise MissingInput('get it')", ["\nget it\n"], "In ["),
    ("import os\nos._exit(1)", ["In [3]:", "os._exit(1)", "DeadKernelError"], "Traceback")])
def test_a_failing_notebook(folder, source, shown, hidden):
    write_notebook(folder / "00_first.ipynb", source, "print('never')")
    with pytest.raises(run.Stop) as stopped:
        run_in(folder)
    for text in shown:
        assert text in str(stopped.value)
    assert hidden not in str(stopped.value)
    record = read_record(folder)
    assert record["notebooks"]["00_first"]["status"] == "failed" and "02_second" not in record["notebooks"]
    partial = Path(str(stopped.value).rsplit(": ", 1)[1])
    *_, failing, never = nbformat.read(partial, 4).cells
    assert failing.source == source and failing.execution_count != 0 and never.outputs == []


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_leaves_a_true_record(folder):
    write_notebook(folder / "02_second.ipynb", "import time\ntime.sleep(60)")
    code = ("import sys; from pathlib import Path; from impart_utils import run\n"
            "real = run.run_notebooks\n"
            f"run.run_notebooks = lambda options: real(options, notebooks=Path({str(folder)!r}))\n"
            "sys.exit(run.main(['--no-book']))")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    path = folder.parent / "out" / "executed" / "demo" / "02_second.ipynb"
    for _ in range(600):
        if path.exists() and '"running"' in path.read_text():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Stopped." in err and "Traceback" not in err
    assert "[2/2] 02_second" in out and "stopped" in out
    rows = read_record(folder)["notebooks"]
    assert {name: row["status"] for name, row in rows.items()} == {"00_first": "ok", "02_second": "stopped"}


# run_all.sh before anything is installed

@pytest.fixture
def clone(tmp_path):
    """A copy of what run_all.sh needs, in a folder with a space; beside it a PATH without Python."""
    copy = tmp_path / "a clone"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "impart_utils", copy / "impart_utils", ignore=ignore)
    for name in ("run_all.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "sh", "dirname", "awk", "cat", "tail", "mkdir", "chmod", "cp"):
        (tools / name).symlink_to(shutil.which(name))
    script(tools / "df", "echo header; echo /dev/x 1 1 99000000 1% /")
    return copy


def script(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def run_all(clone, *arguments, **variables):
    environment = {"PATH": str(clone.parent / "tools"), "HOME": str(clone.parent), **variables}
    return subprocess.run(["bash", str(clone / "run_all.sh"), *arguments], env=environment, cwd=clone.parent,
                          text=True, timeout=60, capture_output=True)


def fake_base(clone, *, pip="exit 0"):
    """A Python whose environments hold a stand-in: pip does as told, the runner prints its arguments."""
    child = script(clone.parent / "child", f"""
echo "$@" >> "{clone.parent}/calls"
case "$*" in
    "-m pip"*) {pip} ;;
    "-m impart_utils.run"*) echo "ran: $*" ;;
    *) exec "{sys.executable}" "$@" ;;
esac""")
    return script(clone.parent / "base", f"""
case "$*" in
    "-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "{child}" "$last/bin/python" ;;
    *) exec "{sys.executable}" "$@" ;;
esac""")


def test_no_python_that_is_new_enough(clone):
    done = run_all(clone)
    assert done.returncode == 1 and "needs Python 3.11, 3.12 or 3.13, but no Python was found." in done.stderr
    script(clone.parent / "tools" / "python3", "echo 3.10.4")
    script(clone.parent / "tools" / "python3.13", "echo 'command not found' >&2; exit 127")  # as a shim says
    done = run_all(clone)
    assert done.returncode == 1 and "python3 is 3.10.4" in done.stderr and "PYTHON=" in done.stderr
    done = run_all(clone, PYTHON="no-such-python")
    assert done.returncode == 1 and "no-such-python was not found" in done.stderr
    assert not (clone / ".venv").exists()


def test_missing_venv_module_names_the_package(clone):
    body = f'case "$*" in *ensurepip*) exit 1 ;; esac; exec "{sys.executable}" "$@"'
    base = script(clone.parent / "a base", body)
    done = run_all(clone, PYTHON=str(base))
    assert done.returncode == 1 and str(base) in done.stderr
    assert "sudo apt install python3-venv" in done.stderr
    assert not (clone / ".venv").exists()


def test_little_disk_names_the_folder_and_what_is_free(clone):
    script(clone.parent / "tools" / "df", "echo header; echo /dev/x 1 1 4200000 1% /")
    done = run_all(clone, PYTHON=sys.executable)
    assert done.returncode == 1 and f"needs 10 GB of free disk, but {clone} has 4 GB" in done.stderr
    place = clone.parent / "else" / "where"  # a relative IMPART_VENV counts from the working folder
    done = run_all(clone, PYTHON=sys.executable, IMPART_VENV="else/where")
    assert f"but {clone.parent} has 4 GB" in done.stderr and not place.exists()


def test_help_sets_nothing_up(clone):
    done = run_all(clone, "--help", PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    for option in ("--profile", "--only", "--set", "--no-book", "test", "lab"):
        assert option in done.stdout
    assert not (clone / ".venv").exists()


def test_set_up_once_then_again_only_where_something_changed(clone):
    base = fake_base(clone)
    done = run_all(clone, "--only", "02", "--set", "a=b c", PYTHON=str(base))
    assert done.returncode == 0, done.stderr
    assert "Setting up in" in done.stdout
    assert done.stdout.endswith("ran: -m impart_utils.run --only 02 --set a=b c\n")
    calls = (clone.parent / "calls").read_text()
    assert "-m pip install --no-input" in calls and " -c constraints.txt -e .[book,test]\n" in calls
    for arguments in (["test", "-x"], []):
        done = run_all(clone, *arguments)  # no Python on PATH: none is needed
        assert done.returncode == 0 and "Setting up" not in done.stdout, done.stderr
    with open(clone / "constraints.txt", "a") as constraints:
        constraints.write("# changed\n")
    assert "Setting up in" in run_all(clone).stdout
    assert (clone.parent / "calls").read_text().count("-m pip install") == 2


def test_failed_install_shows_the_end_of_the_log_and_is_tried_again(clone):
    base = fake_base(clone, pip="echo ERROR: no space; exit 1")
    done = run_all(clone, PYTHON=str(base))
    assert done.returncode == 1 and "ERROR: no space" in done.stderr and "impart-setup.log" in done.stderr
    assert "ran:" not in done.stdout and not (clone / ".venv" / "impart-setup.key").exists()
    base = fake_base(clone)
    assert run_all(clone, PYTHON=str(base)).stdout.endswith("ran: -m impart_utils.run\n")


def test_active_environment_is_used_only_where_this_clone_is_installed(clone):
    active = clone.parent / "active"

    def activate(path):
        script(active / "bin" / "python", f"""
case "$*" in
    "-m impart_utils.run"*) echo "ran in active: $*" ;;
    *) PYTHONPATH="{path}" PYTHONDONTWRITEBYTECODE=1 exec "{sys.executable}" "$@" ;;
esac""")

    activate(clone)
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        done = run_all(clone, "test", **{variable: str(active)})
        assert done.stdout == "ran in active: -m impart_utils.run test\n", done.stderr
    assert not (clone / ".venv").exists()
    other = clone.parent / "other"
    shutil.copytree(clone / "impart_utils", other / "impart_utils")
    activate(other)
    done = run_all(clone, VIRTUAL_ENV=str(active), PYTHON=str(fake_base(clone)))
    assert "Setting up" in done.stdout and done.stdout.endswith("ran: -m impart_utils.run\n"), done.stderr
