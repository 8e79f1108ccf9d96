"""The two profiles: settings, their checks, folders, and which commit a result names."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from impart_utils import config
from impart_utils.config import MissingInput, load_config


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("IMPART_OUTPUT", raising=False)
    monkeypatch.delenv("IMPART_RUN_ID", raising=False)
    commit = config.commit
    commit.cache_clear()
    yield
    commit.cache_clear()


def test_the_two_profiles():
    demo, paper = load_config(), load_config("paper")
    assert (demo.profile, demo.clip, demo.is_toy, demo.label) == ("demo", "tiny", True, " (toy world)")
    assert demo.datasets == ("toy10", "toy100", "toy101") and demo.reference == demo.films == "toy"
    assert (paper.profile, paper.clip, paper.is_toy, paper.label) == ("paper", "ViT-B/32", False, "")
    assert paper.datasets == ("cifar10", "cifar100", "caltech101")


def test_profiles_differ_in_their_inputs_alone():
    """Only data and sizes change: the method's settings are those of the paper's code in both."""
    demo, paper = (dataclasses.asdict(load_config(profile)) for profile in ("demo", "paper"))
    different = {name for name in demo if demo[name] != paper[name]}
    assert different <= {"profile", "clip", "datasets", "reference", "films"}
    for settings in (demo, paper):
        assert (settings["top_k"], settings["image_weight"], settings["text_weight"]) == (8, 0.5, 0.05)
        assert (settings["references"], settings["pairs"], settings["fps"]) == (1000, 10_000, 4.0)
        assert (settings["ram_epochs"], settings["scale"], settings["seed"]) == (8, "unit", 0)
        assert settings["ram_seeds"] >= 3 and settings["draws"] >= 3


def test_settings_replace_the_profiles_own():
    changed = load_config("demo", top_k=16, image_weight=0.1, limit=60)
    assert (changed.top_k, changed.image_weight, changed.limit) == (16, 0.1, 60)
    assert changed == dataclasses.replace(load_config(), top_k=16, image_weight=0.1, limit=60)


def test_none_means_the_profiles_own():
    known = [field.name for field in dataclasses.fields(config.Config) if field.name != "profile"]
    for profile in ("demo", "paper"):
        assert load_config(profile, **dict.fromkeys(known)) == load_config(profile)


def test_zero_is_a_value_not_the_profiles_own():
    assert load_config(image_weight=0, text_weight=0.0, seed=0).image_weight == 0


@pytest.mark.parametrize(
    "given", ["toy10, toy101", ["toy10", "toy101"], ("toy10", "toy101"), "toy10,toy101,"]
)
def test_datasets_as_a_command_line_or_a_notebook_gives_them(given):
    assert load_config(datasets=given).datasets == ("toy10", "toy101")


def test_a_configuration_can_not_be_changed_and_can_be_a_key():
    demo = load_config(datasets=["toy10"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        demo.top_k = 3
    assert {demo: 1}[load_config(datasets="toy10")] == 1


def test_unknown_profile_lists_the_known():
    with pytest.raises(ValueError, match="Unknown profile 'full'. Known profiles: demo, paper"):
        load_config("full")


def test_unknown_setting_lists_the_known():
    with pytest.raises(
        ValueError, match="Unknown setting 'topk'. Known settings: clip, datasets, .*top_k, image_weight"
    ):
        load_config(topk=3)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"top_k": 0}, "Expected top_k to be a whole number of at least 1, got 0"),
        ({"top_k": 2.5}, "Expected top_k to be a whole number of at least 1, got 2.5"),
        ({"top_k": True}, "Expected top_k to be a whole number of at least 1, got True"),
        ({"references": -5}, "Expected references to be a whole number of at least 1, got -5"),
        ({"pairs": "many"}, "Expected pairs to be a whole number of at least 1, got 'many'"),
        ({"draws": 0}, "Expected draws to be a whole number of at least 1, got 0"),
        ({"ram_epochs": 0}, "Expected ram_epochs to be"),
        ({"ram_seeds": 0}, "Expected ram_seeds to be"),
        ({"limit": 0}, "Expected limit to be None or a whole number of at least 1, got 0"),
        ({"limit": 1.5}, "Expected limit to be None or a whole number of at least 1, got 1.5"),
        ({"limit": True}, "Expected limit to be None or a whole number of at least 1, got True"),
        (
            {"references": 11, "pairs": 10, "top_k": 2},
            "references <= pairs, got references=11 with 10 pairs. Lower references",
        ),
        (
            {"references": 7, "top_k": 8},
            "top_k <= references, got top_k=8 with 7 references. Lower top_k or raise",
        ),
        ({"scale": "log"}, "Unknown scale 'log'. Known: unit, raw, mixed"),
        ({"fps": 0}, "Expected fps > 0 frames per second, got 0"),
        ({"fps": float("nan")}, "Expected fps > 0 frames per second, got nan"),
        ({"fps": "four"}, "fps.*'four'"),
        ({"datasets": ""}, "at least one data set in `datasets`, got none"),
        ({"datasets": " , "}, "at least one data set in `datasets`, got none"),
        ({"image_weight": "half"}, "image_weight.*'half'"),
        ({"text_weight": float("nan")}, "text_weight.*nan"),
        ({"seed": -1}, "seed.*-1"),
        ({"precision": "fp8"}, "Unknown precision 'fp8'. Known: auto, fp32, fp16, bf16"),
        ({"prompts": "clip"}, "Unknown prompts 'clip'. Known: paper, openai, stored"),
        ({"prompts": ["paper"]}, r"Unknown prompts \['paper'\]. Known: paper, openai, stored"),
        ({"names": "cleaned"}, "Unknown names 'cleaned'. Known: raw, clean, stored"),
        ({"caltech": "tfds"}, "Unknown caltech 'tfds'. Known: torchvision, vtab, coop"),
        ({"average": "macro"}, "Unknown average 'macro'. Known: micro, mean per class"),
        ({"names": "stored"}, "'stored' together, got prompts='paper' and names='stored'.*Give prompts="),
        ({"prompts": "stored", "names": "raw"}, "got prompts='stored' and names='raw'"),
    ],
)
def test_values_that_can_not_work(settings, message):
    with pytest.raises(ValueError, match=message):
        load_config(**settings)


def test_protocol_switches():
    """The paper's protocol unless said otherwise; a pack's own prompts bring its own names."""
    plain = load_config("paper")
    assert (plain.prompts, plain.names) == ("paper", "raw")
    assert (plain.caltech, plain.average) == ("torchvision", "micro")
    changed = load_config(prompts="openai", names="clean", caltech="vtab", average="mean per class")
    assert (changed.prompts, changed.names, changed.caltech, changed.average) == (
        "openai", "clean", "vtab", "mean per class")
    stored = load_config(prompts="stored", names=None)  # as a notebook gives them
    assert stored.names == "stored" and stored == load_config(prompts="stored", names="stored")


def test_the_largest_settings_that_work():
    assert load_config(references=8, pairs=8, top_k=8).top_k == 8


# ---- paths ----

def test_relative_paths_mean_the_same_file_wherever_a_kernel_runs(tmp_path, monkeypatch):
    for name in ("pictures", "pairs"):
        (tmp_path / name).mkdir()
    for name in ("weights.pt", "a.npz", "b.npz"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    found = load_config("paper", datasets="folder:pictures,pack:a.npz,cifar10", reference="pack:a.npz+b.npz",
                        films="folder:pairs", clip_checkpoint="weights.pt")
    assert found.datasets == (f"folder:{tmp_path}/pictures", f"pack:{tmp_path}/a.npz", "cifar10")
    assert (
        found.reference == f"pack:{tmp_path}/a.npz+{tmp_path}/b.npz"
        and found.films == f"folder:{tmp_path}/pairs"
    )
    assert found.clip_checkpoint == str(tmp_path / "weights.pt")
    # what isn't in the working folder counts from the clone, for example from notebooks/
    assert load_config("paper", reference="folder:data/x").reference == f"folder:{config.ROOT}/data/x"
    assert load_config("paper").reference == f"folder:{config.ROOT}/data/reference/yfcc"


def test_absolute_paths_and_names_stay_as_they_are(tmp_path):
    found = load_config(
        "paper", reference=f"folder:{tmp_path}", datasets=f"caltech101:{tmp_path},cifar100", clip="ViT-B/32"
    )
    assert found.reference == f"folder:{tmp_path}" and found.clip == "ViT-B/32"
    assert found.datasets == (f"caltech101:{tmp_path}", "cifar100")
    assert load_config().reference == "toy" and load_config().clip_checkpoint is None


def test_the_home_folder_is_written_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config("paper", films="folder:~/films").films == f"folder:{tmp_path}/films"


def test_a_checkpoint_given_as_the_clip_is_a_path_too(tmp_path, monkeypatch):
    (tmp_path / "weights.pt").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert load_config("paper", clip="weights.pt").clip == str(tmp_path / "weights.pt")


def test_a_folder_with_a_plus_in_its_name(tmp_path):
    (tmp_path / "c++").mkdir()
    (tmp_path / "c++" / "a.npz").write_bytes(b"x")
    found = load_config("paper", reference=f"folder:{tmp_path}/c++", datasets=f"pack:{tmp_path}/c++/a.npz")
    assert found.reference == f"folder:{tmp_path}/c++" and found.datasets == (f"pack:{tmp_path}/c++/a.npz",)


def test_folders_lie_in_the_clone():
    demo = load_config()
    root = Path(__file__).parents[1]
    assert (
        config.ROOT == root and demo.data_dir == root / "data" and demo.cache_dir == root / "data" / "cache"
    )
    assert (
        demo.results_dir == root / "results" / "demo"
        and demo.figures_dir == root / "results" / "demo" / "figures"
    )
    assert load_config("paper").executed_dir == root / "executed" / "paper"


def test_impart_output_takes_all_that_is_written(monkeypatch, tmp_path):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    demo = load_config()
    assert (
        demo.results_dir == tmp_path / "results" / "demo"
        and demo.executed_dir == tmp_path / "executed" / "demo"
    )
    assert demo.cache_dir == tmp_path / "data" / "cache"
    assert demo.data_dir == config.ROOT / "data"  # what is read stays where it is


def test_impart_output_set_to_nothing_is_not_set(monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", "")
    assert load_config().results_dir == config.ROOT / "results" / "demo"


def test_impart_output_relative_means_one_folder_for_all_kernels(monkeypatch, tmp_path):
    monkeypatch.setenv("IMPART_OUTPUT", "out")
    here = load_config().results_dir
    monkeypatch.chdir(tmp_path)  # as a kernel runs in notebooks/
    assert load_config().results_dir == here and here.is_absolute()


def test_nothing_is_made_by_asking(tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    demo = load_config()
    assert [demo.cache_dir, demo.results_dir, demo.figures_dir, demo.executed_dir] and not list(
        tmp_path.iterdir()
    )


def test_missing_input_is_an_error_of_its_own():
    assert issubclass(MissingInput, RuntimeError) and not issubclass(MissingInput, ValueError)


# ---- which version made a result ----

@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A small repository in place of the kit's."""
    for name, content in (
        ("impart_utils/a.py", "x = 1\n"),
        ("notebooks/00.ipynb", "{}"),
        ("README.md", "hello"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(config, "ROOT", tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def git(clone, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", "-c",
                "core.hooksPath=/dev/null"]
    return subprocess.run(["git", "-C", str(clone), *identity, *arguments], check=True, capture_output=True,
                          text=True).stdout.strip()


def fresh_commit():
    config.commit.cache_clear()
    return config.commit()


def test_commit_names_head_and_the_code_that_counts(clone):
    git(clone, "init", "-q")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "one")
    head = git(clone, "rev-parse", "HEAD")
    first = fresh_commit()
    assert first == f"{head[:12]}-{config.source_hash()}"
    (clone / "README.md").write_text("changed")  # decides no number
    (clone / "results").mkdir()
    (clone / "results" / "table1.csv").write_text("x")
    assert fresh_commit() == first


def notebook(source, **cell):
    return json.dumps({"cells": [{"cell_type": "code", "metadata": {}, "source": [source], **cell}]})


def test_only_code_changes_the_commit(clone):
    """Saving a notebook in JupyterLab with outputs, other prose or other parameters makes nothing stale."""
    path, seen = clone / "notebooks" / "00.ipynb", set()
    path.write_text(notebook("x = 1"))
    first = fresh_commit()
    path.write_text(notebook("x = 1", outputs=["big"], execution_count=7))
    assert fresh_commit() == first
    path.write_text(notebook("x = 1", metadata={"tags": ["parameters"]}))
    without = fresh_commit()
    path.write_text(notebook("x = 2", metadata={"tags": ["parameters"]}))
    assert fresh_commit() == without != first
    for name, content in (("impart_utils/a.py", "x = 2\n"), ("impart_utils/a.py", "x = 3\n"),
                          ("notebooks/00.ipynb", notebook("x = 2")), ("impart_utils/new.py", "")):
        (clone / name).write_text(content)
        seen.add(fresh_commit())
    assert len(seen) == 4


def test_an_archive_inside_another_repository_is_not_that_repository(clone):
    git(clone.parent, "init", "-q")
    git(clone.parent, "commit", "--allow-empty", "-qm", "other")
    assert fresh_commit().startswith("no-git-")


def test_commit_without_git_is_a_hash_of_the_sources(clone, monkeypatch):
    first = fresh_commit()
    assert first == f"no-git-{config.source_hash()}" and len(first) == 15
    (clone / "impart_utils" / "a.py").write_text("x = 2\n")
    assert fresh_commit() != first
    monkeypatch.setenv("PATH", "")  # git isn't even installed
    assert fresh_commit().startswith("no-git-")


def test_run_info(monkeypatch):
    monkeypatch.setattr(config, "commit", lambda: "abc")
    assert config.run_info(load_config()) == {"run_id": "interactive", "commit": "abc", "profile": "demo"}
    monkeypatch.setenv("IMPART_RUN_ID", "20240101-1")
    assert config.run_info(load_config("paper")) == {
        "run_id": "20240101-1",
        "commit": "abc",
        "profile": "paper",
    }
