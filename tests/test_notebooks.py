"""Every notebook executed by papermill, once, on the smallest sizes; and the paper profile on real input."""

import json
import os
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from demo_run import ROOT, run

SHARED = ROOT.parent / "shared" / "data"
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
CIFAR = SHARED / "clip_features" / "cifar10_test500_vitb32.npz"
UNSPLASH = SHARED / "clip_features" / "unsplash_photos_vitb32.npz"
TEXTS = SHARED / "clip_features" / "text_vocab_vitb32.npz"

pytestmark = pytest.mark.slow


def test_every_notebook_runs_and_says_so(demo):
    output, printed = demo.output, demo.printed
    record = json.loads((output / "results" / "demo" / "run.json").read_text())
    assert sorted(record["notebooks"]) == NOTEBOOKS
    for name, row in record["notebooks"].items():
        assert row["status"] == "ok" and row["cells"] > 3 and row["peak_memory_mb"] > 50
        assert name in printed
    assert (output / "book" / "_build" / "html" / "index.html").is_file()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_cell_writes_to_stderr(demo, name):
    """What a student would see as a red box: warnings, deprecations, bars."""
    notebook = nbformat.read(demo.output / "executed" / "demo" / f"{name}.ipynb", 4)
    red = [output.text for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
           if output.output_type == "stream" and output.name == "stderr"]
    assert not red, red[0][:500]


@pytest.mark.parametrize(("file", "columns"), [
    ("table1.csv", {"dataset", "method", "accuracy", "low", "high", "n", "references_id", "inputs"}),
    ("figure1.csv", {"dataset", "variant", "scale", "seed", "accuracy"}),
    ("video_retrieval.csv", {"query", "pooling", "metric", "value", "low", "high", "n", "variant"}),
    ("is_it_retrieval.csv", {"dataset", "method", "kind", "b", "c", "p", "p_holm", "equivalence"}),
    ("scenes.csv", {"query", "metric", "value", "n"}), ("characters.csv", {"query"}),
    ("scoreboard.csv", {"verdict"})])
def test_results_files(demo, file, columns):
    table = pd.read_csv(demo.output / "results" / "demo" / file)
    assert len(table) and columns <= set(table.columns)
    if "correct" in table:
        assert table["accuracy"].between(0, 1).all() and (table["low"] <= table["accuracy"]).all()
        assert (table["accuracy"] == table["correct"] / table["n"]).all()


def test_table1_has_the_methods_and_the_control(demo):
    table = pd.read_csv(demo.output / "results" / "demo" / "table1.csv")
    for dataset, rows in table.groupby("dataset"):
        assert set(rows["method"]) == {"CLIP", "RA-CLIP Vanilla", "random neighbors", "RA-CLIP (RAM)",
                                       "RA-CLIP (RAM, normalized)"}, dataset
    assert set(table["dataset"]) == {"toy10", "toy100", "toy101"}


def test_figures_are_written_as_png_and_svg(demo):
    figures = demo.output / "results" / "demo" / "figures"
    names = {path.stem for path in figures.glob("*.png")}
    assert {"table1_accuracy", "figure1_normalization", "figure2_picture_query",
            "figure3_text_query"} <= names
    assert names == {path.stem for path in figures.glob("*.svg")}


def test_the_demo_claims_nothing_of_the_paper(demo):
    board = pd.read_csv(demo.output / "results" / "demo" / "scoreboard.csv")
    assert set(board["verdict"]) == {"not run here: toy world", "not tested"}


def test_a_demo_run_leaves_the_clone_as_it_was(demo):
    assert demo.after == demo.before


def test_notebook_09_alone_says_what_to_run(tmp_path):
    done = run(tmp_path, "--only=09", "--no-book")
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(tmp_path / "executed" / "demo" / "09_scoreboard.ipynb", 4)
    text = json.dumps(notebook)
    assert "--only 04" in text


def test_paper_profile_without_data_stops_with_one_message(tmp_path):
    environment_home = tmp_path / "home"  # no weights in ~/.cache/clip there
    environment_home.mkdir()
    sets = ",".join(f"{name}:{tmp_path}" for name in ("cifar10", "cifar100", "caltech101"))
    nowhere = [f"--set=datasets={sets}",
               f"--set=reference=folder:{tmp_path / 'pairs'}", f"--set=films=folder:{tmp_path / 'films'}"]
    command = [sys.executable, "-m", "impart_utils.run", "--profile", "paper", *nowhere]
    done = subprocess.run(command, cwd=ROOT,
                          env={**os.environ, "IMPART_OUTPUT": str(tmp_path), "HOME": str(environment_home)},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for missing in ("ViT-B/32", "cifar10", "cifar100", "caltech101", "reference set", "films"):
        assert missing in done.stderr, missing
    assert not (tmp_path / "executed").exists()


@pytest.mark.skipif(not CIFAR.exists(), reason=f"real CLIP features are not at {CIFAR}")
def test_real_features_give_the_known_accuracies(tmp_path):
    """The command of README: CIFAR-10's 500 real pictures against 1000 real photographs, from packs alone."""
    done = run(tmp_path, "--profile=paper", "--only=02,04", "--no-book", datasets=f"pack:{CIFAR}",
               reference=f"pack:{UNSPLASH}+{TEXTS}", prompts="stored", ram_epochs=1, ram_seeds=1, draws=5)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(tmp_path / "results" / "paper" / "table1.csv").set_index("method")
    clip = table.loc["CLIP"]
    assert (clip["correct"], clip["n"]) == (449, 500)
    assert clip["prompts"].startswith("as stored: 'a airplane', 'a car'")
    assert -0.015 <= table.loc["RA-CLIP Vanilla", "accuracy"] - clip["accuracy"] <= 0.009


@pytest.fixture(scope="module")
def random_checkpoint(tmp_path_factory):
    """A full-size ViT-B/32 of random weights: what can be had of the real thing without a download."""
    import torch

    from impart_utils.sources.checkpoints import import_clip

    torch.manual_seed(0)
    model = import_clip().model.CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)
    path = tmp_path_factory.mktemp("weights") / "random-vit-b-32.pt"
    torch.save({name: value.half() for name, value in model.state_dict().items()}, path)
    return path


@pytest.mark.skipif(not (SHARED / "caltech101").exists(),
                    reason=f"real pictures are not at {SHARED / 'caltech101'}")
def test_real_pictures_through_a_full_size_checkpoint(tmp_path, random_checkpoint):
    """caltech101 and cifar10_test of the shared data, encoded by a ViT-B/32 given by path, to 04's end."""
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    lines = ["file,caption"]
    for path in sorted((SHARED / "cifar10_test").glob("*/000*.jpg"))[:40]:
        name = f"{path.parent.name}-{path.name}"
        (pairs / name).write_bytes(path.read_bytes())
        lines.append(f"{name},a photo of a {path.parent.name}")
    (pairs / "captions.csv").write_text("\n".join(lines) + "\n")
    arguments = ("--profile=paper", "--only=04", "--no-book")
    settings = dict(datasets=f"caltech101:{SHARED / 'caltech101'},folder:{SHARED / 'cifar10_test'}",
                    reference=f"folder:{pairs}", references=20, pairs=40, limit=30, draws=1, ram_epochs=1,
                    ram_seeds=1, clip_checkpoint=random_checkpoint)
    refused = run(tmp_path / "refused", *arguments, **settings)
    assert refused.returncode == 1 and "isn't OpenAI's file" in refused.stdout + refused.stderr
    done = run(tmp_path / "out", *arguments, **settings, allow_unverified_clip=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(tmp_path / "out" / "results" / "paper" / "table1.csv")
    assert set(table["dataset"]) == {"caltech101", "folder:cifar10_test"} and (table["n"] == 30).all()
    assert set(table[table["dataset"] == "caltech101"]["n_available"]) == {808}
    printed = (tmp_path / "out" / "executed" / "paper" / "04_zero_shot.ipynb").read_text()
    assert "unverified weights" in printed  # said where accuracy is printed


def test_films_of_ones_own_without_descriptions(tmp_path):
    """A folder of films and nothing else: no films.csv, one file that is no film."""
    from impart_utils.toy_world.films import make_films

    films = tmp_path / "my films"
    films.mkdir()
    for film in make_films(tmp_path / "toy", seed=0)[:3]:
        (films / f"clip {film.id}.mp4").write_bytes(film.path.read_bytes())
    (films / "broken.mp4").write_text("no film")
    done = run(tmp_path / "out", "--only=06", "--no-book", films=f"folder:{films}", references=50, pairs=100,
               fps=2.0)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(tmp_path / "out" / "results" / "demo" / "video_retrieval.csv")
    assert set(table["gallery"]) == {"folder:my films"} and set(table["n"]) == {3}
    printed = (tmp_path / "out" / "executed" / "demo" / "06_video_retrieval.ipynb").read_text()
    assert "broken.mp4" in printed
