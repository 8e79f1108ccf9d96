"""benchmarks/ram.py: both ways compute the same, and the figures are what the parts make them."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from impart_utils.adam import Adam
from impart_utils.contrastive import contrastive_loss
from impart_utils.retrieval import Retriever

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources")
FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def ram():
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("ram")
    finally:
        sys.path.remove(str(FOLDER))


def test_the_papers_way_is_the_kits_in_other_steps(ram):
    v, t, R_img, R_txt = (torch.from_numpy(block) for block in ram.random_features(50, 30, 16))
    torch.testing.assert_close(ram.papers_loss(v, t), contrastive_loss(v, t))
    np.testing.assert_array_equal(ram.papers_retrieval(v, R_img),
                                  Retriever(R_img.numpy()).search(v.numpy(), ram.TOP_K)[1])
    near, weights = ram.papers_retrieval(v, R_img), []
    for step, optimizer in ((ram.papers_step, torch.optim.Adam), (ram.kit_step, Adam)):
        module = ram.new_ram(16, seed=0, heads=2)
        adam = optimizer(module.parameters())
        for _ in range(3):
            step(module, adam, v, R_img[near], R_txt[near], t)
        weights.append(module.text_attention[0].out_proj.weight)
    torch.testing.assert_close(*weights, atol=1e-5, rtol=1e-4)


def test_ratios_are_made_of_the_parts(ram, monkeypatch):
    """400 pairs of which 20 were encoded; two rounds, the second twice as slow but for the search."""
    seconds = {"paper: open and encode": [2.0, 4.0], "paper: retrieve and step": [0.5, 1.0],
               "kit: open and encode, fp32": [1.0, 2.0], "kit: open and encode, bf16": [0.2, 0.4],
               "kit: search": [0.1, 0.1], "kit: an epoch": [0.25, 0.5]}
    asked = []
    monkeypatch.setattr(ram, "alternate", lambda ways, rounds: asked.extend(ways) or seconds)
    parts, whole = ram.training(pairs=20, rounds=2, sizes=ram.SMALL, n=400, m=100, dim=64)
    assert asked == list(seconds)
    epoch = 400 * (2.0 / 20 + 0.5 / 100)  # a step of 100 was measured: 42 s
    assert whole.loc["a further epoch", "ratio"] == pytest.approx(epoch / 0.25)
    fp32 = [8 * epoch / (20 + 0.1 + 2), 16 * epoch / (40 + 0.1 + 4)]
    assert whole.loc["whole training, fp32", "ratio min"] == pytest.approx(min(fp32))
    assert whole.loc["whole training, fp32", "ratio max"] == pytest.approx(max(fp32))
    assert whole.loc["whole training, bf16", "kit s"] == pytest.approx((4 + 0.1 + 2 + 8 + 0.1 + 4) / 2)
    assert parts.loc["paper: open and encode"].tolist() == pytest.approx([20, 3.0, 150.0])
    assert set(ram.GOALS) >= set(whole.index)


def test_every_part_runs_at_a_tiny_size(ram, monkeypatch):
    parts, whole = ram.training(pairs=4, rounds=1, sizes=ram.SMALL, n=110, m=20, dim=64)
    assert (parts["median s"] > 0).all() and (whole["ratio"] > 0).all()
    table = ram.steps(dim=64, count=1, rounds=1, images=120)
    assert set(table.index.get_level_values("job")) <= set(ram.GOALS)
    assert table.loc[("a step", "paper"), "ratio"] == 1
    plain = table.loc["inference"].drop("kit")
    assert plain.loc[plain["median ms"].idxmin(), "ratio"] == 1  # the faster of both is the baseline


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_pairs_on_disk_are_searched_and_trained_on(ram, monkeypatch, tmp_path):
    monkeypatch.setattr(ram.ram_large.tempfile, "tempdir", str(tmp_path))
    row = ram.ram_large.large(pairs=12_000, dim=64, steps=7)
    assert (row["pairs"], row["steps"]) == (12_000, 7)
    assert row["files GB"] == pytest.approx(12_000 * 64 * 8 / 1e9, rel=1e-3)
    assert row["first loss"] == pytest.approx(9.21, abs=0.3)
    assert 0.1 < row["own GB"] < row["peak resident GB"] < 3
    assert list(tmp_path.iterdir()) == []
