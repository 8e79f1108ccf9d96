"""conda, Binder, Colab: what their documented conventions ask for. None of the three is run here."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA, BINDER = ROOT / "environment.yml", ROOT / "binder" / "environment.yml"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))

# The second cell of every notebook. It keeps Colab's NumPy, torch and Jupyter: NumPy is loaded there before
# any cell runs, and a runtime whose IPython or ipykernel was replaced may not start again.
COLAB_CELL = '''import os, site, subprocess, sys
if "google.colab" in sys.modules:  # on Colab alone: fetch the kit and the packages that Colab lacks
    address = ""  # of the kit, as you would give it to "git clone"
    if not address:
        raise ValueError("Expected the kit's address in this cell. Write it between the quotes above.")
    if not os.path.isdir("/content/impart"):
        subprocess.run(["git", "clone", "--depth=1", address, "/content/impart"], check=True)
    os.chdir("/content/impart/notebooks")
    pip = "-m pip install -q --no-deps -c ../constraints.txt -e .. clip-anytorch ftfy av"
    subprocess.run([sys.executable, *pip.split()], check=True)
    site.main()  # what was installed just now is found without a restart'''
# What Colab has of what the kit imports, by the lists of packages that its makers publish.
ON_COLAB = {"IPython", "PIL", "ipywidgets", "matplotlib", "nbclient", "nbformat", "numpy", "pandas", "psutil",
            "requests", "safetensors", "scipy", "sklearn", "torch", "torchvision", "tqdm", "urllib3"}


def listed(path):
    """(conda's packages, pip's lines) of an environment file."""
    *packages, last = yaml.safe_load(path.read_text())["dependencies"]
    assert all(isinstance(package, str) for package in packages) and list(last) == ["pip"]
    return packages, last["pip"]


def bounds(distribution):
    """What pyproject.toml asks of a dependency, such as ">=2.6"."""
    (found,) = [line for line in PROJECT["dependencies"] if re.match(rf"{distribution}\b", line)]
    return found.removeprefix(distribution)


# conda

@pytest.mark.parametrize("path", [CONDA, BINDER], ids=["conda", "binder"])
def test_the_python_is_one_that_the_kit_accepts(path):
    (version,) = [package.removeprefix("python=") for package in listed(path)[0] if "python=" in package]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert re.fullmatch(r"3\.\d+", version) and int(low) <= int(version[2:]) < int(high)


@pytest.mark.parametrize("path", [CONDA, BINDER], ids=["conda", "binder"])
def test_what_pip_is_told_is_there(path):
    """Paths count from the file's folder; an extra that isn't declared would only be warned of."""
    for line in listed(path)[1]:
        option, place, extras = re.fullmatch(r"(-c|-e) ([\w./]+?)(?:\[([\w,]+)\])?", line).groups()
        target = (path.parent / place).resolve()
        assert target.is_file() if option == "-c" else target == ROOT
        assert set(extras.split(",") if extras else ()) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("path", [CONDA, BINDER], ids=["conda", "binder"])
def test_nothing_is_asked_for_twice_and_from_one_channel(path):
    packages, pip = listed(path)
    names = [re.match(r"[\w-]+", package).group() for package in packages]
    assert len(set(names)) == len(names) and "pip" in names
    assert len(set(pip)) == len(pip) and sum(line.startswith("-e") for line in pip) == 1
    assert yaml.safe_load(path.read_text())["channels"] == ["conda-forge"]
    if any(line.startswith("-c") for line in pip):  # pip pins all: from conda comes Python alone
        assert set(names) == {"python", "pip"}


def test_no_file_names_an_index():
    """Where packages come from is the user's own setting: pip's options for it, and addresses."""
    for path in (CONDA, BINDER, ROOT / "constraints.txt"):
        lines = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
        assert "://" not in lines and not re.search(r"(^|\s)(-i|-f|--\w)", lines, re.MULTILINE), path.name


# Binder (repo2docker's documentation, "Configuration files")

def test_binder_finds_its_folder_and_nothing_that_it_would_prefer():
    """binder/ and .binder/ together are an error; a Dockerfile or an R or Julia file would come first."""
    assert not (ROOT / ".binder").exists()
    assert [path.name for path in BINDER.parent.iterdir()] == ["environment.yml"]


def test_binder_installs_the_kit_after_copying_it():
    """A line of pip's on a path makes repo2docker copy the clone first; `python=` names Python."""
    packages, pip = listed(BINDER)
    assert [line for line in pip if line.split()[-1].startswith(".")] == ["-e .."]
    assert re.match(r"python\s*=+\s*([\d.]*)", packages[0]).group(1) == "3.11"  # repo2docker's own pattern


def test_pip_is_content_with_condas_torch():
    """The same bounds as pyproject.toml's: what conda chooses is never too old, so pip fetches no other."""
    packages, _ = listed(BINDER)
    assert f"pytorch-cpu{bounds('torch')}" in packages and f"torchvision{bounds('torchvision')}" in packages
    assert not any(package.startswith("pytorch") and "cpu" not in package for package in packages)


# Colab

@pytest.fixture
def colab(monkeypatch):
    """Runs the cell with recorded commands; `colab.calls` says what it did, `there` which folders exist."""
    calls, there = [], set()
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command) or check or 1 / 0)
    monkeypatch.setattr("os.chdir", lambda folder: calls.append(("chdir", folder)))
    monkeypatch.setattr("os.path.isdir", lambda folder: folder in there)
    monkeypatch.setattr("site.main", lambda: calls.append("site.main"))

    def run(*, here, address=""):
        for name in ("google", "google.colab"):
            monkeypatch.delitem(sys.modules, name, raising=False)
            if here:
                monkeypatch.setitem(sys.modules, name, ModuleType(name))
        exec(COLAB_CELL.replace('address = ""', f'address = "{address}"'), {})
        return calls

    return SimpleNamespace(run=run, calls=calls, there=there)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_the_same_cell_before_any_other_code(path):
    cells = nbformat.read(path, 4).cells
    first = next(cell for cell in cells if cell.cell_type == "code")
    assert first.source == COLAB_CELL and first is cells[1]
    assert first.metadata.get("tags") == ["remove-cell"]  # not in the book


def test_elsewhere_the_cell_does_nothing(colab):
    before = list(sys.path)
    assert colab.run(here=False) == [] and sys.path == before
    assert colab.run(here=False, address="somewhere") == []


def test_on_colab_it_clones_moves_and_installs_in_this_order(colab):
    clone, move, install, last = colab.run(here=True, address="https://example.org/impart.git")
    assert clone == ["git", "clone", "--depth=1", "https://example.org/impart.git", "/content/impart"]
    assert move == ("chdir", "/content/impart/notebooks") and last == "site.main"
    assert install[:5] == [sys.executable, "-m", "pip", "install", "-q"]
    assert install[5:] == ["--no-deps", "-c", "../constraints.txt", "-e", "..", "clip-anytorch", "ftfy", "av"]


def test_a_second_run_does_not_clone_again(colab):
    colab.there.add("/content/impart")
    assert [call[0] for call in colab.run(here=True, address="x")] == ["chdir", sys.executable, "s"]


def test_without_an_address_it_says_what_to_fill_in(colab):
    with pytest.raises(ValueError, match="kit's address in this cell. Write it between the quotes above"):
        colab.run(here=True)
    assert colab.calls == []


def test_what_colab_lacks_is_installed_and_nothing_that_it_has():
    """Every package that the kit or a notebook imports at the top of a file, but those of the runner."""
    from test_repository import MODULES, imports, pins

    names = {"clip": "clip-anytorch"}
    installed = set(re.search(r"-e \.\. (.*?)\"", COLAB_CELL)[1].split())
    runner = {"notebook_engine", "run", "run_settings"}
    imported = {module.split(".")[0] for name, path in MODULES.items() if name not in runner
                for module, at_top in imports(path) if at_top}
    code = "\n".join(cell.source for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells
                     if cell.cell_type == "code")
    imported |= set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE))
    lacking = {names.get(name, name) for name in imported - set(sys.stdlib_module_names) - ON_COLAB}
    # av and clip are imported inside functions; ftfy, which clip imports, isn't a dependency of the kit's own
    assert lacking - {"impart_utils", "__future__"} <= installed
    assert installed <= {name for name, _, _ in pins()}  # each in a version that the kit was tested with
    assert not installed & {"torch", "torchvision", "numpy", "ipython", "ipykernel", "ipywidgets"}
