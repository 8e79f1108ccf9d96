"""CLIP by its card: the same fields and features, no model where nothing is encoded, and no stale card."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from impart_utils import cached, clip_card, clip_model
from impart_utils.clip_card import FIELDS, CardedClip
from impart_utils.config import load_config
from impart_utils.sources import checkpoints

pytestmark = pytest.mark.skipif(not checkpoints.TINY_PATH.is_file(), reason="the tiny CLIP isn't here")


@pytest.fixture
def loads(monkeypatch):
    """The names that CLIPs were loaded by."""
    found, load = [], clip_model.load_clip

    def noted(name, **options):
        found.append(name)
        return load(name, **options)

    monkeypatch.setattr(clip_model, "load_clip", noted)
    return found


@pytest.fixture
def card(tmp_path, loads):
    """The tiny CLIP, known by its card."""
    CardedClip(tmp_path, "tiny")
    loads.clear()
    return CardedClip(tmp_path, "tiny")


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def test_the_card_says_what_the_model_says(card, loads):
    clip = clip_model.load_clip("tiny")
    assert [getattr(card, field) for field in FIELDS] == [getattr(clip, field) for field in FIELDS]
    loads.clear()
    np.testing.assert_array_equal(card.encode_images([picture()]), clip.encode_images([picture()]))
    np.testing.assert_array_equal(card.encode_texts(["a cup"]), clip.encode_texts(["a cup"]))
    assert loads == ["tiny"]  # once, by the first


def test_nothing_is_loaded_before_something_is_encoded_or_prepared(card, loads):
    prepare = card.prepare
    assert card.provenance == "the kit's tiny CLIP (toy world)" and card.key and not loads
    np.testing.assert_array_equal(prepare(picture()), clip_model.load_clip("tiny").prepare(picture()))
    assert len(loads) == 2 and card.prepare.func is clip_model.prepare_picture  # now small to send elsewhere


@pytest.mark.parametrize("changed", ["checkpoint", "code", "package", "precision", "device"])
def test_a_card_of_something_else_is_not_read(tmp_path, card, loads, monkeypatch, changed):
    options = {}
    if changed == "checkpoint":
        other = tmp_path / "toy_clip.safetensors"
        other.write_bytes(checkpoints.TINY_PATH.read_bytes())
        monkeypatch.setattr(checkpoints, "TINY_PATH", other)
        CardedClip(tmp_path, "tiny", allow_unverified=True)
        weights = other.read_bytes()
        other.write_bytes(weights[:-4] + np.float32(1.5).tobytes())  # at the same place
        loads.clear()
        options = {"allow_unverified": True}
    elif changed == "code":
        (tmp_path / "code.py").write_text("# edited")
        monkeypatch.setattr(clip_card, "CODE", [*clip_card.CODE[1:], tmp_path / "code.py"])
    elif changed == "package":
        monkeypatch.setattr(clip_card, "version", lambda package: "another")
    elif changed == "precision":
        options = {"precision": "bf16"}
    else:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(clip_model, "load_clip", lambda name, **options: loads.append(name) or card)
    CardedClip(tmp_path, "tiny", **options)
    assert loads == ["tiny"]


def test_a_card_that_cannot_be_read_is_written_anew(tmp_path, card, loads):
    (path,) = tmp_path.glob("*.json")
    path.write_text("{")
    assert CardedClip(tmp_path, "tiny").key == card.key and loads == ["tiny"]
    assert json.loads(path.read_text())["key"] == card.key


def test_weights_that_are_missing_or_unverified_are_told_as_without_a_card(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*gone.pt"):
        CardedClip(tmp_path, "tiny", checkpoint=str(tmp_path / "gone.pt"))
    other = tmp_path / "other.safetensors"
    other.write_bytes(checkpoints.TINY_PATH.read_bytes())
    for _ in range(2):  # no card keeps a refusal, or hides it
        with pytest.raises(ValueError, match="allow_unverified_clip=True"):
            CardedClip(tmp_path, "tiny", checkpoint=str(other))
    CardedClip(tmp_path, "tiny", checkpoint=str(other), allow_unverified=True)
    with pytest.raises(ValueError, match="allow_unverified_clip=True"):
        CardedClip(tmp_path, "tiny", checkpoint=str(other))


def test_a_notebook_that_finds_its_features_imports_no_clip(tmp_path, monkeypatch):
    """torchvision, on which clip stands, imports a compiler: that is what takes the time."""
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    config = load_config("demo", datasets="toy10", limit=20, pairs=40, references=20)
    code = ("import sys\n"
            "from impart_utils import cached\n"
            "from impart_utils.config import load_config\n"
            "config = load_config('demo', datasets='toy10', limit=20, pairs=40, references=20)\n"
            "cached.test_set(config, 'toy10'), cached.reference_pairs(config)\n"
            "print('clip' in sys.modules, 'torchvision' in sys.modules)")
    for there in ("True True", "False False"):
        done = subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True,
                              text=True)
        assert done.stdout.split("\n")[-2] == there
    assert list((config.cache_dir / "clip-cards").glob("*.json"))
    assert cached.clip(config).name == "tiny"
