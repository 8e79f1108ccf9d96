"""The pieces of benchmarks/: shared timing, and each script's ways at a tiny size."""

import importlib
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources")
FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name):
    """A script of benchmarks/, which isn't a package."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


# ---- timing ----

def test_ways_alternate_and_turn_around_every_second_round():
    order = []
    ways = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = load("timing").alternate(ways, rounds=3)
    assert "".join(order) == "abc" "cba" "abc" "cba"  # the first is the warm-up
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_alternate_measures_each_way_alone():
    seconds = load("timing").alternate({"slow": lambda: time.sleep(0.05), "fast": lambda: None}, rounds=2)
    assert min(seconds["slow"]) >= 0.05 > 0.02 > max(seconds["fast"])


def test_a_ratio_compares_the_same_round():
    """The machine was four times slower in the second round: the ratio doesn't see it."""
    seconds = {"base": [1.0, 4.0, 3.0], "fast": [0.5, 2.0, 1.0]}
    table = load("timing").summary(seconds, "base", per=10, unit="ms")
    assert table.loc["fast", ["ratio", "ratio min", "ratio max"]].tolist() == [2.0, 2.0, 3.0]
    assert table.loc["base", ["ratio", "ratio min", "ratio max"]].tolist() == [1.0, 1.0, 1.0]
    assert table.loc["base", ["median ms", "min ms", "max ms"]].tolist() == [300.0, 100.0, 400.0]


def test_the_rate_of_a_matrix_product():
    import torch

    started = time.perf_counter()
    rate = load("timing").matmul_rate(torch.float32, size=256, seconds=0.05)
    assert 2 * 256**3 / 1e9 / (time.perf_counter() - started) < rate < 1e6  # GFLOP/s
    assert load("timing").matmul_rate(torch.float32, size=256, seconds=0.0) > 0


def test_what_is_saved_says_on_which_machine(tmp_path, monkeypatch):
    timing = load("timing")
    monkeypatch.setattr(timing, "__file__", str(tmp_path / "timing.py"))
    table = timing.summary({"base": [1.0, 2.0], "fast": [0.5, 0.5]}, "base")
    path = timing.save("some", table, pictures=3)
    assert path == tmp_path / "some.json" and list(tmp_path.iterdir()) == [path]
    content = json.loads(path.read_text())
    assert content["pictures"] == 3 and [row["way"] for row in content["rows"]] == ["base", "fast"]
    assert content["rows"][1]["ratio"] == 3.0
    assert {"processor", "vector units", "cores", "threads", "torch", "numpy"} <= set(content["machine"])


# ---- encoding ----

@pytest.fixture(scope="module")
def small():
    inputs = load("encoding_inputs")
    return inputs.random_clip(inputs.SMALL)


@pytest.mark.parametrize("arguments", ["SMALL", "VIT_B32"])
def test_the_work_of_a_picture_is_what_torch_counts(arguments):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from impart_utils.clip_towers import encode_pixels

    inputs = load("encoding_inputs")
    with torch.device("meta"):  # shapes without numbers
        model = inputs.import_clip().model.CLIP(*getattr(inputs, arguments)).float().eval()
        pixels = torch.empty(1, 3, model.visual.input_resolution, model.visual.input_resolution)
    expected = inputs.gflop_per_picture(model.visual)
    for encode, gflop in zip((model.encode_image, lambda pixels: encode_pixels(model, pixels)), expected,
                             strict=True):
        with FlopCounterMode(display=False) as counter:
            encode(pixels)
        assert math.isclose(counter.get_total_flops() / 1e9, gflop, rel_tol=1e-6)
    if arguments == "VIT_B32":
        assert round(expected[0], 1) == 8.8


def test_photos_are_like_photos(tmp_path):
    from PIL import Image

    paths = load("encoding_inputs").photo_files(tmp_path, 70)
    assert len(paths) == 70 and len(set(paths)) == 64
    with Image.open(paths[0]) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (500, 375), "RGB")
    sizes = [path.stat().st_size for path in set(paths)]
    assert 25_000 < min(sizes) and max(sizes) < 150_000
    assert paths[0].read_bytes() != paths[1].read_bytes()


@pytest.mark.parametrize("there", [True, False])
def test_captions_are_as_long_as_the_papers(tmp_path, monkeypatch, there):
    inputs = load("encoding_inputs")
    if there and not inputs.CSV.is_file():
        pytest.skip("shared/data/metadata/yfcc1k.csv isn't beside the clone")
    monkeypatch.setattr(inputs, "CSV", inputs.CSV if there else tmp_path / "none.csv")
    captions = inputs.captions(400)
    assert captions == inputs.captions(400) and len(captions) == 400
    lengths = inputs.import_clip().tokenize(captions, truncate=True).argmax(dim=1) + 1
    assert 14 < lengths.float().mean() < 25 and lengths.max() > 50


def test_all_ways_give_the_same_features(tmp_path, small):
    encoding, inputs = load("encoding"), load("encoding_inputs")
    paths = inputs.photo_files(tmp_path, 5)
    slow = encoding.pictures_one_at_a_time(small, paths)
    fast = encoding.pictures_by_the_kit(small, paths, workers=0, cache=tmp_path / "cache")
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    again = encoding.pictures_by_the_kit(small, paths, workers=0, cache=tmp_path / "cache")
    np.testing.assert_array_equal(again, fast)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # computed twice, not read
    texts = inputs.captions(5)
    exact, rough = small.encode_texts(texts), inputs.lowered(small, "bf16").encode_texts(texts)
    np.testing.assert_allclose(exact, encoding.texts_one_at_a_time(small, texts), atol=1e-5)
    assert not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.1)


def test_each_table_has_a_baseline_and_its_figures(tmp_path, small):
    encoding, inputs = load("encoding"), load("encoding_inputs")
    gflop = inputs.gflop_per_picture(small.model.visual)
    every = encoding.tables_of_ways(small, inputs.photo_files(tmp_path, 3), inputs.captions(3),
                                    tmp_path / "cache", precisions=("fp32", "bf16"), workers=(0,))
    # a small product: without units for bf16 a CPU takes minutes for the usual one
    tables = {title: encoding.measure(ways, count, rounds=2, precisions=("fp32", "bf16"), seconds=0.0,
                                      size=64, gflop=gflop if title == "prepared pictures" else None)
              for title, (ways, count) in every.items() if title != "JPEG files"}
    table = tables["prepared pictures"]
    assert list(table.index) == ["one at a time fp32", "batches fp32", "batches bf16"]
    assert table["ratio"].iloc[0] == 1 and (table["share"] > 0).all()
    base, fast, _ = table.to_dict("records")
    assert math.isclose(base["share"], base["share of done work"])
    assert math.isclose(fast["share of done work"] / fast["share"], gflop[1] / gflop[0])
    assert math.isclose(fast["items/s"], 1e3 / fast["median ms"])
    lines = encoding.verdicts(tables)
    assert len(lines) == 8 and all(line.endswith((": met", ": missed")) for line in lines)


def test_a_missed_target_is_told():
    import pandas as pd

    rows = {"one at a time fp32": {"ratio": 1.0, "share": 0.34, "share of done work": 0.34},
            "batches fp32": {"ratio": 1.79, "share": 0.75, "share of done work": 0.7}}
    first, second, base = load("encoding").verdicts({"prepared pictures": pd.DataFrame(rows).T})
    assert first == "prepared pictures, batches fp32: 1.79 times one at a time, target 1.80: missed"
    assert second.endswith("0.70 of the rate, target 0.70: met") and base.endswith(": missed")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_is_told_with_the_features_share(tmp_path):
    encoding = load("encoding")
    load("encoding_inputs").photo_files(tmp_path, 2)
    row = encoding.peak_memory(6, 0, tmp_path)
    assert row["pictures"] == 6 and row["peak MB"] > 50
    assert row["of these the features"] == 6 * 512 * 4 / 2**20
