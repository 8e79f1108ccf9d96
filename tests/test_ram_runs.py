"""Many trainings of RAM: one table whoever trained, nothing trained twice, failures with their reason."""

import os
import subprocess

import numpy as np
import pytest

from impart_utils import cached, ram_jobs
from impart_utils.config import load_config
from impart_utils.evidence import ram_runs
from impart_utils.reference import ReferenceSet
from impart_utils.retrieval import Retriever
from impart_utils.sources.features import Pack, save_pack
from impart_utils.zeroshot import accuracy, predict


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Pairs and two test sets of 16 dimensions as packs, three classes that the pictures follow."""
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "output"))
    rng = np.random.default_rng(0)
    centers = 3 * rng.normal(size=(3, 16))
    for name, n in (("birds_test", 30), ("fish_test", 21)):
        labels = np.arange(n) % 3
        images = (centers[labels] + 4 * rng.normal(size=(n, 16))).astype(np.float32)
        save_pack(tmp_path / f"{name}.safetensors", Pack(
            images, [f"{name}{row}" for row in range(n)], "OpenAI ViT-B/32", labels=labels,
            class_names=list("abc"), prompts=["an a", "a b", "a c"],
            class_features=centers.astype(np.float32)))
    images = (centers[np.arange(150) % 3] + rng.normal(size=(150, 16))).astype(np.float32)
    ReferenceSet(images, images[:, ::-1].copy(), [""] * 150, [str(row) for row in range(150)],
                 {"model": "OpenAI ViT-B/32"}).save(tmp_path / "pairs.safetensors")
    tests = ",".join(f"pack:{tmp_path / name}.safetensors" for name in ("birds_test", "fish_test"))
    return load_config("paper", datasets=tests, reference=f"pack:{tmp_path / 'pairs.safetensors'}",
                       references=30, pairs=150, ram_epochs=2, prompts="stored", names="stored")


JOBS = [{"seed": 0}, {"seed": 1, "normalize": "branch", "scale": "unit"},
        {"configuration": "temperature_0.07", "pairs": 60, "curve": False, "neighbors_from": "training"}]


@pytest.fixture
def no_worker(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a worker process was started")

    return lambda: monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.slow
def test_workers_train_what_the_notebook_itself_would(config, monkeypatch, tmp_path, no_worker):
    table = ram_runs.run_all(config, JOBS, progress=False)
    no_worker()
    assert ram_runs.run_all(config, JOBS, progress=False).equals(table)
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "another"))
    for job in JOBS:  # trained again, in this process
        arguments = {"evaluate": config.datasets, **job}
        cached.trained_ram(config, **arguments)
    assert list((tmp_path / "another").glob("data/cache/ram/*.safetensors"))
    again = ram_runs.run_all(config, JOBS, progress=False)
    assert again.drop(columns="seconds").equals(table.drop(columns="seconds"))


def trained_here(config):
    for job in JOBS:
        cached.trained_ram(config, **{"evaluate": config.datasets, **job})


def test_rows_are_those_of_each_job_epoch_and_test_set(config, no_worker):
    trained_here(config)
    no_worker()
    table = ram_runs.run_all(config, JOBS, progress=False)
    assert len(table) == 2 * (3 * 2) + 2  # two curves of epochs 0, 1, 2 and one last epoch; two sets each
    assert list(table["dataset"].unique()) == ["pack:birds_test.safetensors", "pack:fish_test.safetensors"]
    first, second, third = (table[table["configuration"].eq(name) & table["normalize"].eq(normalize)]
                            for name, normalize in (("paper_code", "none"), ("paper_code", "branch"),
                                                    ("temperature_0.07", "none")))
    assert list(first["epoch"]) == [0, 0, 1, 1, 2, 2] and list(third["epoch"]) == [2, 2]
    assert set(first["pairs"]) == {120} and set(third["pairs"]) == {60}
    assert set(second["scale"]) == {"unit"} and set(second["seed"]) == {1}
    assert set(third["neighbors_from"]) == {"training"} and third["temperature"].round(6).eq(0.07).all()
    assert first["loss"].isna().tolist() == [True, True, False, False, False, False]
    assert first["seconds"].iloc[0] == 0 < first["seconds"].iloc[-1]


def test_numbers_are_those_of_rams_output(config, no_worker):
    trained_here(config)
    no_worker()
    table = ram_runs.run_all(config, JOBS, progress=False)
    job = JOBS[1]
    test = cached.test_set(config, config.datasets[1])
    row = table[(table["normalize"] == "branch") & (table["dataset"] == test.name)].iloc[-1]
    augmented = cached.ram_features(config, test, **job)
    v = test.image_features / np.linalg.norm(test.image_features, axis=1, keepdims=True)  # scale="unit"
    assert row["accuracy"] == accuracy(predict(augmented, test.class_features), test.labels)
    assert row["added"] == pytest.approx(np.linalg.norm(augmented - v, axis=1).mean(), rel=1e-5)
    assert row["length"] == pytest.approx(np.linalg.norm(augmented, axis=1).mean(), rel=1e-5)
    _, history = cached.trained_ram(config, **job)
    losses = [step["loss"] for step in history if step["epoch"] == 2]
    assert row["loss"] == pytest.approx(np.mean(losses)) and row["alignment"] == history[-1]["alignment"]


def test_a_test_set_more_is_scored_without_forgetting_the_others(config, monkeypatch):
    birds, fish = config.datasets
    one = cached.trained_ram(config, evaluate=(birds,))[1]
    two = cached.trained_ram(config, evaluate=(fish,))[1]  # the same training again, other scores
    monkeypatch.setattr(ram_jobs, "train_ram", None)
    both = cached.trained_ram(config, evaluate=(birds, fish))[1]
    for row, first, second in zip(both, one, two, strict=True):
        assert row.get("tests", {}) == {**first.get("tests", {}), **second.get("tests", {})}
    assert sum("tests" in row for row in both) == 3


def test_a_broken_training_goes_on_as_a_job(config, monkeypatch):
    job, arrays = cached.ram_job(config, seed=3, evaluate=config.datasets)
    whole, whole_history = cached.trained_ram(config, seed=3, evaluate=config.datasets)
    monkeypatch.setenv("IMPART_OUTPUT", str(config.cache_dir.parents[1] / "another"))
    job, arrays = cached.ram_job(config, seed=3, evaluate=config.datasets)
    scores, calls = ram_jobs.scores, []

    def breaks(*arguments):
        calls.append(1)
        if len(calls) == 6:  # the second test set after the last epoch
            raise OSError("the disk is full")
        return scores(*arguments)

    monkeypatch.setattr(ram_jobs, "scores", breaks)
    with pytest.raises(OSError, match="disk is full"):
        ram_jobs.run(job, arrays(), progress=False)
    assert ram_jobs.history(job) is None
    ram_jobs.run(job, arrays(), progress=False)
    # two sets before training and after each of two epochs, where it broke at the last; that last set again
    # with the first of the same epoch; and both at the end. Of the earlier epochs nothing was scored again.
    assert len(calls) == 6 + 2 + 2
    again, history = ram_jobs.load(job)
    for rows in (history, whole_history):
        for row in rows:
            row.pop("seconds", None)
    assert history == whole_history
    assert all((value == whole.state_dict()[name]).all() for name, value in again.state_dict().items())
    left = sorted(path.suffix for path in (config.cache_dir / "ram").iterdir())
    assert left == [".json", ".safetensors"]  # and no checkpoint


@pytest.mark.parametrize("neighbors_from", ["references", "training"])
def test_early_stopping_by_pairs_held_out(config, neighbors_from, monkeypatch):
    job = {"validation": 40, "patience": 2, "epochs": 40, "learning_rate": 0.05, "evaluate": config.datasets,
           "neighbors_from": neighbors_from, "temperature": 0.07}
    ram, history = cached.trained_ram(config, **job)
    losses = [row["validation_loss"] for row in history if "validation_loss" in row]
    best = int(np.argmin(losses))
    assert 0 < best and len(losses) == best + 3 < 41
    last = cached.trained_ram(config, curve=False, **job)[1]
    curve = [row["tests"] for row in history if "tests" in row]
    assert last[-1]["tests"] == curve[best]  # the weights kept are the best ones
    references, pairs = cached.reference_pairs(config)
    seen, taken = references if neighbors_from == "references" else pairs.take(np.arange(80)), []
    monkeypatch.setattr(ram_jobs, "train_ram", lambda *arguments, **options: taken.extend(
        [*arguments[1:], *options["validation"]]) or history)
    arrays = cached.ram_job(config, **job)[1]()
    ram_jobs.run(cached.ram_job(config, **job, seed=1)[0], arrays, progress=False)
    v, t, R_img, R_txt, near, held_v, held_t, held_near = taken
    np.testing.assert_array_equal(v, pairs.image_features[:80])
    np.testing.assert_array_equal(held_t, pairs.text_features[80:])
    np.testing.assert_array_equal(R_img, seen.image_features)
    np.testing.assert_array_equal(held_near, Retriever(R_img).search(held_v, 8)[1])


@pytest.mark.slow
def test_a_failure_in_a_worker_is_told_and_ends_all(config):
    jobs = [{"temperature": 1e-45, "seed": 0}, *({"seed": seed} for seed in range(1, 9))]
    told = r"(?s)'temperature': 1e-45.*seed 0 failed.*exit code 1.*The loss is"
    with pytest.raises(RuntimeError, match=told):
        ram_runs.run_all(config, jobs, processes=1, progress=False)
    done = [cached.ram_job(config, evaluate=config.datasets, **job)[0] for job in jobs]
    assert not any(ram_jobs.history(job) for job in done)  # the first was the last


@pytest.mark.slow
def test_workers_wait_for_the_next_call_unless_one_failed(config):
    ram_runs.stop_workers()
    ram_runs.run_all(config, JOBS[:1], processes=1, progress=False)
    (worker,) = ram_runs._idle
    ram_runs.run_all(config, JOBS[1:2], processes=1, progress=False)
    assert ram_runs._idle == [worker] and worker.process.poll() is None
    worker.process.kill()  # as a machine short of memory would
    worker.process.wait()
    ram_runs.run_all(config, JOBS[2:], processes=1, progress=False)
    (other,) = ram_runs._idle
    assert other is not worker
    with pytest.raises(RuntimeError, match="failed"):
        ram_runs.run_all(config, [{"seed": 7, "learning_rate": 1e30}], processes=1, progress=False)
    assert ram_runs._idle == [] and other.process.poll() is not None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")
def test_a_worker_is_not_in_the_kernels_process_group():
    """A kernel that leaves waits up to ten seconds for those that are."""
    ram_runs.stop_workers()
    ram_runs.start_workers(1)
    worker = ram_runs._idle.pop()
    assert os.getpgid(worker.process.pid) != os.getpgrp()
    with worker.errors, worker.process:  # closes its standard input, as when its parent is killed
        pass
    assert worker.process.returncode == 0


def test_a_worker_that_dies_is_told(config, monkeypatch, tmp_path):
    ram_runs.stop_workers()
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no memory left >&2\nexit 7\n")
    script.chmod(0o755)
    monkeypatch.setattr(ram_runs.sys, "executable", str(script))
    with pytest.raises(RuntimeError, match=r"(?s)seed 0 failed.*exit code 7.*no memory left"):
        ram_runs.run_all(config, [{"seed": 0}], progress=False)


@pytest.fixture
def started(monkeypatch):
    """The trainings that `run_all` starts, in this process."""
    started = []

    def train(jobs, processes, progress):
        started.extend(jobs)
        for job, arrays in jobs:
            ram_jobs.run(job, arrays, progress=False)

    monkeypatch.setattr(ram_runs, "_train", train)
    return started


def test_jobs_that_are_the_same_are_trained_once(config, started):
    birds, fish = config.datasets
    jobs = [{"evaluate": (birds,)}, {"evaluate": (fish,), "curve": False}, {"evaluate": (birds, fish)},
            {"normalize": "none", "evaluate": (fish,)}]
    table = ram_runs.run_all(config, jobs, progress=False)
    assert len(started) == 1 and len(table) == 3 + 1 + 6 + 3
    last = table[table["epoch"] == 2].groupby("dataset")["accuracy"]
    assert list(last.size()) == [2, 3] and list(last.nunique()) == [1, 1]
    assert ram_runs.run_all(config, [], progress=False).empty


def test_a_curve_is_scored_at_the_epochs_that_are_asked_for(config, started):
    table = ram_runs.run_all(config, [{"epochs": 6, "curve": 2}, {"epochs": 6, "curve": 3}], progress=False)
    assert len(started) == 1  # one training for both
    assert list(table["epoch"][::2]) == [0, 2, 4, 6, 0, 3, 6]
    assert ram_runs.run_all(config, [{"epochs": 6}], progress=False)["epoch"].nunique() == 7
    assert len(started) == 1  # epochs 1 and 5 were scored, too: the greatest common step is 1

    sparse = ram_runs.run_all(config, [{"seed": 1, "epochs": 6, "curve": 2}], progress=False)
    dense = ram_runs.run_all(config, [{"seed": 1, "epochs": 6}], progress=False)
    assert len(started) == 3  # scores that weren't kept need another training
    same = dense[dense["epoch"] % 2 == 0].reset_index(drop=True)
    assert sparse.drop(columns="seconds").equals(same.drop(columns="seconds"))
