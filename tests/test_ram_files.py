"""RAM on disk: what is saved comes back to the bit, and a broken training goes on as if it hadn't broken."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_training import assert_same_weights, problem, timeless, trained

from impart_utils.ram import RAM
from impart_utils.ram_files import load_history, load_ram, save_ram
from impart_utils.training import apply_ram, new_ram, train_ram


def test_saved_and_loaded_ram_gives_the_same_bits(tmp_path):
    options = {"heads": 4, "layers": 3, "normalize": "branch", "between": "none", "gate": "zero"}
    ram = new_ram(16, seed=0, **options)
    with torch.no_grad():
        ram.gate += 0.5
    images, _, R_img, R_txt, indices = problem(n=20)
    history = [{"epoch": 1, "step": 1, "loss": 0.1 + 0.2}]
    save_ram(tmp_path / "new" / "ram.safetensors", ram, options, history)
    again, again_history = load_ram(tmp_path / "new" / "ram.safetensors")
    assert isinstance(again, RAM) and not again.training
    assert again_history == history == load_history(tmp_path / "new" / "ram.safetensors")
    np.testing.assert_array_equal(apply_ram(again, images, R_img, R_txt, indices),
                                  apply_ram(ram, images, R_img, R_txt, indices))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ram.safetensors"]


def test_loading_what_is_no_ram(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors holds no RAM.*save_ram"):
        load_ram(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        load_ram(tmp_path / "nowhere.safetensors")


# ---- checkpoints ----

LEARNED = {"temperature": 0.07, "learn_temperature": True, "schedule": "cosine"}


class Break(Exception):
    """Stands for whatever ends a training early."""


def broken_after(epoch_of_break):
    def each_epoch(epoch, ram):
        if epoch == epoch_of_break:
            raise Break
        return {"mark": epoch}

    return each_epoch


@pytest.mark.parametrize("settings", [{}, LEARNED, {"patience": 2}], ids=["paper", "learned", "patience"])
def test_a_training_that_broke_ends_with_the_same_bits(tmp_path, settings):
    images, texts, R_img, R_txt, indices = problem(n=320)
    data = images[:250], texts[:250], R_img, R_txt, indices[:250]
    settings = {"epochs": 6, "validation": (images[250:], texts[250:], indices[250:]), **settings}
    whole, whole_history, _ = trained(data=data, each_epoch=broken_after(-1), **settings)
    path = tmp_path / "part.safetensors"
    for epoch in (1, 2, 4):  # what the broken epoch had done is lost, and done again
        with pytest.raises(Break):
            trained(data=data, each_epoch=broken_after(epoch), checkpoint=path, **settings)
    ram, history, _ = trained(data=data, each_epoch=broken_after(-1), checkpoint=path, **settings)
    assert timeless(history) == timeless(whole_history)
    assert_same_weights(ram, whole)
    assert [row["seconds"] for row in history if "seconds" in row] == sorted(
        row["seconds"] for row in history if "seconds" in row)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_training import trained

def each_epoch(epoch, ram):
    if epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return {{}}

trained(epochs=5, each_epoch=each_epoch, checkpoint={path!r})
"""


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_with_the_same_bits(tmp_path):
    path = str(tmp_path / "part.safetensors")
    code = KILLED.format(tests=os.path.dirname(__file__), path=path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())})
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["part.safetensors"]
    seen = []
    ram, history, _ = trained(epochs=5, checkpoint=path,
                              each_epoch=lambda epoch, copy: seen.append(epoch) or {})
    assert seen == [3, 4, 5]
    whole, whole_history, _ = trained(epochs=5, each_epoch=lambda epoch, copy: {})
    assert timeless(history) == timeless(whole_history)
    assert_same_weights(ram, whole)


def test_a_finished_training_may_go_on_but_not_back(tmp_path):
    path, data = tmp_path / "part.safetensors", problem(n=120)
    trained(data=data, epochs=2, checkpoint=path)
    ram, history, _ = trained(data=data, epochs=4, checkpoint=path)
    whole, whole_history, _ = trained(data=data, epochs=4)
    assert timeless(history) == timeless(whole_history)
    assert_same_weights(ram, whole)
    again, again_history, _ = trained(data=data, epochs=4, checkpoint=path)  # nothing is left to do
    assert again_history == history
    assert_same_weights(again, whole)
    with pytest.raises(ValueError, match="has 8 steps behind it, more than the 6 asked for"):
        trained(data=data, epochs=3, checkpoint=path)


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"ram_seed": 1}, {"options": {"heads": 4}}, {"learning_rate": 0.01}, {"temperature": 0.5},
    {"batch_size": 50}, {"schedule": "cosine"}, "pictures", "neighbors"], ids=str)
def test_another_trainings_checkpoint_is_refused(tmp_path, change):
    path, data = tmp_path / "part.safetensors", problem(n=120)
    trained(data=data, epochs=1, checkpoint=path)
    before = path.read_bytes()
    if change == "pictures":
        data[0][-1, -1] += 1e-3
    if change == "neighbors":
        data[4][7, 0] = (data[4][7, 0] + 1) % 100
    with pytest.raises(ValueError, match="part.safetensors belongs to another training"):
        trained(data=data, epochs=1, checkpoint=path, **(change if isinstance(change, dict) else {}))
    assert path.read_bytes() == before


def test_a_checkpoint_holds_ram_alone(tmp_path):
    from safetensors import safe_open

    path, data = tmp_path / "part.safetensors", problem(n=120)
    ram, history, _ = trained(data=data, epochs=1, checkpoint=path)
    with safe_open(path, "np") as file:
        header, sizes = file.metadata(), {name: file.get_tensor(name).size for name in file.keys()}
    weights = sum(value.numel() for value in ram.parameters())
    assert sum(size for name, size in sizes.items() if name.startswith("ram.")) == weights
    adam = sum(size for name, size in sizes.items() if name.startswith("adam."))
    assert adam == 2 * weights + len(list(ram.parameters()))  # two moments each, and the number of steps
    assert set(sizes) - {name for name in sizes if name.startswith(("ram.", "adam."))} == {
        "log_temperature", "order"}
    assert json.loads(header["history"]) == history


def test_what_is_no_checkpoint_is_refused(tmp_path):
    data = problem(n=20)
    save_ram(tmp_path / "ram.safetensors", new_ram(16, seed=0, heads=2), {"heads": 2})
    with pytest.raises(ValueError, match="ram.safetensors is no checkpoint of a training"):
        train_ram(new_ram(16, seed=0, heads=2), *data, seed=0, progress=False,
                  checkpoint=tmp_path / "ram.safetensors")
