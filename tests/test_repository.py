"""The repository as a whole: layout, import directions, what lies in git, metadata that agree."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import impart_utils

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "impart_utils"
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
           for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def listed_by_git():
    """Paths that are in git or would be added, without ignored ones; skips the test where there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"],
                              text=True, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git clone, or git isn't installed")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


# Layout

def test_top_level_is_that_of_the_design():
    known = {"README.md", "LICENSE", "CITATION.cff", "pyproject.toml", "environment.yml", "constraints.txt",
             "run_all.sh", "notebooks", "impart_utils", "data", "book", "benchmarks", "tests", "binder",
             ".ci", ".github", ".gitignore"}
    assert {path.relative_to(ROOT).parts[0] for path in listed_by_git()} == known


def test_no_file_is_larger_than_ten_megabytes():
    assert [path.name for path in listed_by_git() if path.stat().st_size > 10e6] == []


def test_what_runs_make_is_ignored_by_git():
    made = ["executed/demo/00_x.ipynb", "results/demo/table1.csv", "book/_build/html/index.html", ".venv/x",
            "data/downloads/x", "data/cache/x", "data/packs/x", "data/reference/x", "data/films/x"]
    listed_by_git()
    done = subprocess.run(["git", "-C", str(ROOT), "check-ignore", "--no-index", *made], text=True,
                          capture_output=True)
    assert done.stdout.split() == made


def test_scripts_can_be_run():
    for name in ("run_all.sh", ".ci/run"):
        assert (ROOT / name).stat().st_mode & 0o111 == 0o111, name
        assert subprocess.run(["bash", "-n", str(ROOT / name)]).returncode == 0


def test_no_machine_path_and_no_address_of_an_index():
    """Neither survives on another machine; where packages come from is each user's own setting."""
    words = ["/ho" + "me/", "/Us" + "ers/", "/ro" + "ot/", "/wo" + "rk/", "C:" + "\\\\", "py" + "pi.org",
             "python" + "hosted", "index" + "-url", "download." + "pytorch.org", "anaconda" + ".org"]
    found = []
    for path in listed_by_git():
        if path.suffix in (".safetensors", ".png"):
            continue
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in words if word in text]
    assert found == []


# Notebooks

@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_clean(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert re.fullmatch(r"0\d_[a-z0-9_]+", path.stem)
    assert notebook.metadata.kernelspec.name == "python3"
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and re.search(r'^profile = "demo"', tagged[0], re.MULTILINE)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert "raises-exception" not in cell.metadata.get("tags", [])  # papermill stops there


def test_notebook_parameters_mean_the_same_everywhere():
    """`--set top_k=4` goes to each notebook that has it: one name, one default."""
    defaults = {}
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            if "parameters" in cell.metadata.get("tags", []):
                for node in ast.parse(cell.source).body:
                    name, value = node.targets[0].id, ast.literal_eval(node.value)
                    assert defaults.setdefault(name, value) == value, (path.stem, name)
    assert defaults


# Import directions

CORE = {"vanilla", "ram", "zeroshot", "film_scores", "config"}  # import nothing of the kit
SOURCES = {name for name in MODULES if name.startswith("sources.")}
TOY_WORLD = {name for name in MODULES if name.startswith("toy_world.")}
EVIDENCE = {name for name in MODULES if name.startswith("evidence.")}
FIGURES = {"evidence.plots", "evidence.picture_plots", "evidence.figures", "evidence.ram_plots",
           "evidence.figure_words",
           "evidence.reference_plots", "evidence.retrieval_plots", "evidence.protocol_plots",
           "evidence.film_plots", "evidence.live_figures"}  # matplotlib: notebooks only
NEVER_IMPORTED = {"run", "evidence.checks"} | FIGURES
ALLOWED = {
    **dict.fromkeys(CORE, set()),
    "search_backends": set(),
    "retrieval": {"search_backends", "zeroshot"},
    "video": {"film_scores"},
    "scene_windows": {"film_scores"},
    "outros": {"scene_windows"},
    "contrastive": set(),
    "ram_variants": set(),
    "adam": set(),
    "ram_gradient": {"contrastive", "ram"},
    "ram_files": {"adam", "ram", "sources.files"},
    "training": {"adam", "contrastive", "ram", "ram_files", "ram_gradient", "ram_variants", "sources.files"},
    "ram_jobs": {"training", "ram_files", "ram_variants", "reference", "zeroshot", "sources.files"},
    "clip_model": {"clip_towers", "config"} | SOURCES,
    "clip_towers": set(),
    "reference": {"vanilla", "retrieval", "search_backends", "zeroshot", "clip_model", "config"} | SOURCES,
    **dict.fromkeys(SOURCES, {"config"} | SOURCES),
    "sources.prompts": {"config", "zeroshot"},
    "sources.datasets": {"config"} | SOURCES | TOY_WORLD,
    **dict.fromkeys(TOY_WORLD, {"config", "sources.features", "sources.files"} | TOY_WORLD),
    "toy_world.drawing": set(),
    "toy_world.train_clip": {"config", "sources.features", "clip_model"} | TOY_WORLD,
    "evidence.figure_words": set(),
    "evidence.figures": {"evidence.figure_words", "sources.features"},
    "evidence.picture_plots": {"evidence.figures"},
    "evidence.ram_plots": {"evidence.figures", "evidence.plots"},
    "evidence.retrieval_plots": {"evidence.figures", "evidence.plots"},
    "evidence.reference_plots": {"evidence.figures", "evidence.plots"},
    "evidence.film_plots": {"evidence.figures", "evidence.plots"},
    "evidence.protocol_plots": {"evidence.figures", "evidence.plots", "evidence.claims"},
    "evidence.live_figures": {"evidence.figures", "evidence.plots", "evidence.metrics", "reference",
                              "retrieval", "zeroshot"},
    "evidence.exercises": SOURCES,
    "evidence.checks": {"evidence.exercises"},
    "evidence.plots": {"evidence.figures", "evidence.intervals", "evidence.picture_plots",
                       "evidence.claims"} | SOURCES,
}
ANYTHING = set(MODULES) - NEVER_IMPORTED  # for the rest: evidence, cached, gallery, run and what run uses


def imports(path):
    """(module, at top level or inside a function) of each import, but those of command-line entry points."""
    def walk(node, top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef) and child.name == "main":
                continue
            if isinstance(child, ast.If) and "__name__" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                for alias in child.names:
                    deeper = f"{child.module}.{alias.name}"
                    is_module = deeper.removeprefix("impart_utils.") in MODULES
                    yield (deeper if is_module else child.module), top
            else:
                yield from walk(child, top and not isinstance(child, ast.FunctionDef))

    return set(walk(ast.parse(path.read_text()), True))


def kit_imports(name):
    found = {module.removeprefix("impart_utils.") for module, _ in imports(MODULES[name])
             if module.startswith("impart_utils.")}
    assert found <= set(MODULES), f"{name} imports {found - set(MODULES)}, which is no module of the kit"
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_the_way_of_the_design(name):
    assert kit_imports(name) <= ALLOWED.get(name, ANYTHING)


def test_imports_have_no_cycle():
    graph = {name: kit_imports(name) for name in MODULES}
    while graph:
        free = {name for name, needs in graph.items() if not needs & set(graph)}
        assert free, f"a cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in free}


@pytest.mark.parametrize(("name", "top", "inside"), [
    ("vanilla", {"numpy"}, set()), ("zeroshot", {"numpy"}, set()), ("ram", {"torch"}, set()),
    ("retrieval", {"numpy", "sklearn"}, {"sklearn", "torch", "faiss"}), ("video", {"numpy", "av"}, {"av"}),
    ("film_scores", {"numpy"}, set()),
    ("config", set(), set()), ("training", {"numpy", "torch"}, set()),
    ("contrastive", {"torch"}, set()), ("ram_files", {"torch"}, {"safetensors"})])
def test_third_party_packages_of_the_core(name, top, inside):
    found = {(module.split(".")[0], at_top) for module, at_top in imports(MODULES[name])}
    third = {(module, at_top) for module, at_top in found
             if module not in sys.stdlib_module_names and module != "impart_utils"}
    assert {module for module, at_top in third if at_top} <= top
    assert {module for module, at_top in third if not at_top} <= inside


def test_the_paper_is_three_short_files():
    lines = {name: len(MODULES[name].read_text().splitlines()) for name in ("vanilla", "retrieval", "ram")}
    assert sum(lines.values()) < 400, lines


def test_importing_does_nothing(tmp_path):
    """No model, no folder, no network, no figure library; and torch only where a module is about torch."""
    code = f"""
import socket, sys, importlib
def refuse(*arguments, **options):
    raise AssertionError("network at import")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
torch_modules = {{"adam", "ram", "ram_gradient", "contrastive", "ram_files", "training", "ram_jobs",
                 "clip_model", "clip_towers", "toy_world.train_clip"}}
for name in {sorted(MODULES)}:
    if name not in torch_modules | {FIGURES}:
        importlib.import_module("impart_utils." + name)
        assert "torch" not in sys.modules and "matplotlib" not in sys.modules, name
for name in torch_modules:
    importlib.import_module("impart_utils." + name)
assert "clip" not in sys.modules and "matplotlib" not in sys.modules
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "IMPART_OUTPUT": str(tmp_path / "out"), "PYTHONPATH": str(ROOT),
                   "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=home, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == [] and not (tmp_path / "out").exists()


# Dependencies and metadata

def distribution(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower()


def declared(*extras):
    project = PYPROJECT["project"]
    found = [*project["dependencies"]] if "base" in extras else []
    for extra in extras:
        found += project["optional-dependencies"].get(extra, [])
    return {distribution(requirement) for requirement in found}


def packages_of(paths):
    names = {"PIL": "pillow", "sklearn": "scikit-learn", "clip": "clip-anytorch", "faiss": "faiss-cpu",
             "yt_dlp": "yt-dlp", "yaml": "pyyaml", "urllib3": "requests", "IPython": "ipykernel",
             "websocket": "websocket-client"}
    own = {"impart_utils", "__future__", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    found = set()
    for path in paths:
        for module, at_top in imports(path):
            first = module.split(".")[0]
            if first not in sys.stdlib_module_names and first not in own:
                found.add((names.get(first, first).lower(), at_top))
    return found


def test_every_imported_package_is_declared():
    """At the top of a module: a dependency; inside a function: an extra will do."""
    kit = packages_of(MODULES.values())
    assert {package for package, at_top in kit if at_top} <= declared("base")
    assert {package for package, _ in kit} <= declared("base", "scale", "youtube")
    tests = {package for package, _ in packages_of((ROOT / "tests").glob("*.py"))}
    assert tests <= declared("base", "book", "test", "scale")


def test_notebooks_need_only_the_base_install(tmp_path):
    code = tmp_path / "cells.py"
    for path in NOTEBOOKS:
        cells = nbformat.read(path, 4).cells
        code.write_text("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
        assert {package for package, _ in packages_of([code])} <= declared("base"), path.stem


def test_each_dependency_says_what_needs_it():
    text = (ROOT / "pyproject.toml").read_text()
    for line in re.findall(r'^    "[^"]*".*$', text.split("[tool.setuptools]")[0], re.MULTILINE):
        assert re.search(r",\s+# \S", line), line


def pins():
    """(name, specifier, marker) of each line of constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    found = []
    for line in lines:
        pin, _, marker = line.partition(" ; ")
        name, version = pin.split("==")
        found.append((name.lower(), version, marker))
    return found


def test_constraints_pin_every_dependency_once_per_python():
    pinned = [name for name, _, _ in pins()]
    assert declared("base", "book", "test", "dev", "scale") <= set(pinned)
    assert [name for name, _, marker in pins() if pinned.count(name) > 1 and not marker] == []
    torch = {name: version for name, version, _ in pins()}["torch"]
    assert "+" not in torch  # == 2.14.1 is met by 2.14.1+cpu, the other way round it isn't


def test_environment_files_defer_to_pyproject():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, pip = conda["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[book,test]"]}
    python = [package for package in packages if package != "pip"]
    assert python == ["python=3.11"] and PYPROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    binder = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())
    assert binder["dependencies"][-1] == {"pip": ["-e .."]} and "python=3.11" in binder["dependencies"]


def test_run_all_installs_what_the_files_say():
    script = (ROOT / "run_all.sh").read_text()
    assert 'EXTRAS="[book,test]"' in script and "-c constraints.txt" in script
    assert {"book", "test", "dev", "scale", "youtube"} == set(PYPROJECT["project"]["optional-dependencies"])


def test_workflow_runs_the_same_as_ci_on_three_pythons():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["run"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["google-chrome --version", "bash .ci/run"]  # so that no browser test skips
    uploads = [step["with"]["path"] for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert "executed/" in uploads[0] and "book/_build/html/" in uploads[0]
    assert (ROOT / ".ci" / "run").read_text().endswith("./run_all.sh\n./run_all.sh test\n")


def test_license_and_citation():
    license_text = (ROOT / "LICENSE").read_text()
    assert license_text.startswith("MIT License") and "notebooks" in license_text.split("----")[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == impart_utils.__version__ and citation["license"] == "MIT"
    (paper,) = citation["references"]
    assert paper["title"] == "IMPART: Image Matching and Pairing with Adapted RA-CLIP Technology"
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Vutukuru", "Pradeep", "Bantupalli", "Manivannan"]


def test_the_book_takes_up_every_notebook():
    """The table of book/index.md names the number of each notebook."""
    numbers = re.findall(r"^\| (\d\d) \|", (ROOT / "book" / "index.md").read_text(), re.MULTILINE)
    assert numbers == [path.name[:2] for path in NOTEBOOKS]
    assert json.loads(NOTEBOOKS[0].read_text())["nbformat"] == 4
