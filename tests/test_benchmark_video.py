"""The pieces of benchmarks/video.py, at tiny size."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from impart_utils.clip_model import load_clip

pytest.importorskip("av")


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield importlib.import_module("video")


@pytest.fixture(scope="module")
def film(benchmark, tmp_path_factory):
    return benchmark.make_film(tmp_path_factory.mktemp("film") / "film.mp4", 3, (160, 90))


def test_both_ways_encode_the_same_frames(benchmark, film):
    clip = load_clip("tiny", device="cpu")
    papers, ours = benchmark.papers_way(clip, film), benchmark.kit_way(clip, film)
    assert papers.shape == ours.shape == (13, 64)  # every sixth of 75
    found = benchmark.deviation(papers, ours)
    assert 0.999 < found["least cosine"] <= found["mean cosine"] < 1  # JPEG files change a little
    scaled = benchmark.deviation(benchmark.kit_way(clip, film, "decoder"), ours)
    assert 0.99 < scaled["least cosine"] < 1
    assert benchmark.deviation(ours, ours) == pytest.approx(
        {"mean cosine": 1, "least cosine": 1, "mean distance": 0, "frames": 13})


def test_deviation_worked_by_hand(benchmark):
    found = benchmark.deviation(np.array([[3.0, 4], [0, 2]]), np.array([[5.0, 0], [0, 1]]))
    assert found == pytest.approx({"mean cosine": 0.8, "least cosine": 0.6, "frames": 2,
                                   "mean distance": (20**0.5 / 5 + 1) / 2})


def test_the_random_model_is_of_full_size_and_bf16_leaves_it_alone(benchmark):
    clip = benchmark.random_clip()
    assert sum(value.numel() for value in clip.model.parameters()) == 151_277_313
    half = benchmark.in_bf16(clip)
    assert str(half.model.visual.conv1.weight.dtype) == "torch.bfloat16"
    assert str(clip.model.visual.conv1.weight.dtype) == "torch.float32"


def test_speed_names_its_baseline(benchmark, film):
    table = benchmark.speed(load_clip("tiny", device="cpu"), film, rounds=1)
    assert table.loc[benchmark.PAPERS_WAY, "ratio"] == 1 and len(table) == 7
