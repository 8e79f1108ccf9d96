"""Packs: what they hold comes back, what was changed is noticed, what could run code stays closed."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from impart_utils import cached, clip_card, clip_model
from impart_utils.config import load_config
from impart_utils.sources import checkpoints, datasets
from impart_utils.sources.pack_files import read_arrays, read_header, write_arrays
from impart_utils.sources.packs import (
    Pack,
    check_pack,
    grey_tile,
    load_pack,
    preprocessing_hash,
    save_pack,
)

needs_weights = pytest.mark.skipif(not checkpoints.TINY_PATH.is_file(),
                                   reason="data/toy_clip.safetensors isn't here")


def unit_rows(c, d, seed):
    x = np.random.default_rng(seed).normal(size=(c, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def make_pack(**changes):
    rng = np.random.default_rng(0)
    parts = dict(
        image_features=rng.normal(size=(4, 3)).astype(np.float32), ids=["a/0", "a/1", "b/0", "b/1"],
        model="fake CLIP", labels=np.array([0, 0, 1, 1]), class_names=["a", "b_c"],
        class_texts={f"{asked}/{names}": unit_rows(2, 3, seed)
                     for seed, (asked, names) in enumerate([("paper", "raw"), ("openai", "clean")])},
        protocol={"dataset": "cifar10", "n_available": 4, "notes": [], "templates": {"paper": ["ünï {}"]}},
        license=["by", "by-sa", "by", "none"], source="four pictures", made_by="impart-kit 0.1.0 (commit x)")
    return Pack(**{**parts, **changes})


@pytest.fixture
def saved(tmp_path):
    save_pack(tmp_path / "four.safetensors", make_pack())
    return tmp_path / "four.safetensors"


# ---- what a pack holds ----

def test_all_parts_come_back_bit_for_bit(saved):
    pack, again = make_pack(), load_pack(saved)
    for name in ("ids", "model", "class_names", "protocol", "license", "source", "made_by", "metadata"):
        assert getattr(again, name) == getattr(pack, name), name
    assert set(again.class_texts) == {"paper/raw", "openai/clean"}
    for key, block in pack.class_texts.items():
        np.testing.assert_array_equal(again.class_texts[key], block, strict=True)
    assert again.image_features.tobytes() == pack.image_features.tobytes() and again.key == pack.key


def test_the_key_depends_on_every_part():
    changes = {"image_features": make_pack().image_features[::-1].copy(), "ids": list("abcd"), "model": "b",
               "labels": np.array([0, 1, 1, 1]), "class_names": ["a", "b"], "source": "elsewhere",
               "class_texts": {"paper/raw": unit_rows(2, 3, 7)}, "license": "by", "made_by": "me",
               "protocol": {"dataset": "cifar100"}}
    packs = [make_pack(), *(make_pack(**{name: value}) for name, value in changes.items())]
    assert len({pack.key for pack in packs}) == len(packs)


def test_class_features_of_others_are_known_as_stored():
    W = np.array([[3.0, 0, 4], [0, 2, 0]], np.float32)
    pack = make_pack(class_features=W, prompts=["a a", "a c"])
    np.testing.assert_allclose(pack.class_texts["stored/stored"], [[0.6, 0, 0.8], [0, 1, 0]], atol=1e-7)
    assert set(pack.class_texts) == {"stored/stored", "paper/raw", "openai/clean"}
    np.testing.assert_array_equal(pack.class_features, W)  # not touched


def test_only_the_kits_own_pack_is_a_data_set_by_its_protocol():
    assert make_pack().dataset == "cifar10"
    assert make_pack(made_by="").dataset == "" and make_pack(protocol={}).dataset == ""


def test_a_pack_is_readable_by_others_and_holds_no_pickle(saved):
    assert saved.stat().st_mode & 0o777 == 0o666 & ~_umask()
    with safe_open(saved, "np") as file:
        assert set(file.metadata()) == {"impart_pack", "hash", "toy"}
        assert json.loads(file.metadata()["impart_pack"])["source"] == "four pictures"
    assert len(load_file(saved)) == 4


def _umask():
    import os

    before = os.umask(0)
    os.umask(before)
    return before


def test_toy_packs_say_so_in_their_header(tmp_path):
    for toy, word in ((True, "yes"), (False, "no")):
        save_pack(tmp_path / "p.safetensors", make_pack(protocol={"toy": toy}))
        with safe_open(tmp_path / "p.safetensors", "np") as file:
            assert file.metadata()["toy"] == word


@pytest.mark.parametrize(("changes", "message"), [
    ({"class_texts": {"paper/raw": unit_rows(3, 3, 0)}}, "each of 2 class names, got 'paper/raw' with 3"),
    ({"class_texts": {"paper": unit_rows(2, 3, 0)}}, "named 'prompts/names'"),
    ({"class_texts": {"paper/raw": unit_rows(2, 4, 0)}}, r"paper/raw with 3 columns, got shape \(2, 4\)"),
    ({"class_texts": {"paper/raw": 9 * unit_rows(2, 3, 0)}}, "class_texts paper/raw of unit length, got 9"),
    ({"class_texts": {"paper/raw": 0 * unit_rows(2, 3, 0)}}, "row 0 of class_texts paper/raw is zero"),
    ({"license": ["by", "by"]}, "one license for all or 4, got 2"),
    ({"class_names": None, "labels": None}, "for each of 0 class names")])
def test_parts_that_do_not_fit_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"the file: .*{message}"):
        check_pack(make_pack(**changes), "the file")
    with pytest.raises(ValueError, match=message):
        save_pack(tmp_path / "p.safetensors", make_pack(**changes))
    assert list(tmp_path.iterdir()) == []


# ---- what was changed is noticed ----

def test_any_changed_byte_is_noticed(saved):
    """Each byte of the file in turn: refused, or (space between JSON's parts) the same content."""
    whole, key, refused = saved.read_bytes(), load_pack(saved).key, 0
    for place in range(len(whole)):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        try:
            assert load_pack(saved).key == key, place
        except ValueError as error:
            assert "four.safetensors" in str(error), place
            refused += 1
    assert refused > 0.98 * len(whole)


@pytest.mark.parametrize("change", ["a row of features", "two rows exchanged", "a label", "a class text",
                                    "an array left out"])
def test_a_file_written_anew_around_changed_arrays(saved, change):
    arrays = load_file(saved)
    with safe_open(saved, "np") as file:
        header = file.metadata()
    if change == "a row of features":
        arrays["image_features"][2] += 1e-6
    elif change == "two rows exchanged":
        arrays["image_features"] = arrays["image_features"][[1, 0, 2, 3]]
    elif change == "a label":
        arrays["labels"][0] = 1
    elif change == "a class text":
        arrays["class_texts/paper/raw"] = arrays["class_texts/openai/clean"]
    else:
        del arrays["class_texts/openai/clean"]
    save_file(arrays, saved, metadata=header)
    with pytest.raises(ValueError, match="four.safetensors was changed since it was written"):
        load_pack(saved)


def test_changed_words_are_noticed(saved):
    arrays = load_file(saved)
    with safe_open(saved, "np") as file:
        header = file.metadata()
    for old, new in (("four pictures", "fine pictures"), ("cifar10", "cifar1o"), ("by-sa", "by-nc")):
        save_file(arrays, saved, metadata={**header, "impart_pack": header["impart_pack"].replace(old, new)})
        with pytest.raises(ValueError, match="was changed"):
            load_pack(saved)
    for gone in ("hash", "toy"):
        save_file(arrays, saved, metadata={name: text for name, text in header.items() if name != gone})
        with pytest.raises(ValueError, match="was changed"):
            load_pack(saved)
    save_file(arrays, saved, metadata={**header, "toy": "yes"})
    with pytest.raises(ValueError, match="was changed"):
        load_pack(saved)


def test_packs_from_before_the_hash_are_read(tmp_path):
    x = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    lists = {"ids": list("abcd"), "model": "m", "captions": None, "class_names": ["c", "d"],
             "prompts": ["c", "d"], "metadata": {"source": "then"}}
    save_file({"image_features": x, "labels": np.array([0, 1, 1, 0]), "class_features": x[:2]},
              tmp_path / "old.safetensors", metadata={"impart_pack": json.dumps(lists)})
    pack = load_pack(tmp_path / "old.safetensors")
    assert pack.ids == list("abcd") and list(pack.class_texts) == ["stored/stored"] and pack.dataset == ""
    assert pack.license == "not stated"


def test_packs_of_another_version_say_what_is_not_known(tmp_path):
    path = tmp_path / "new.safetensors"
    write_arrays(path, {"image_features": np.ones((1, 2), np.float32), "masks": np.ones(1)}, {"ids": ["a"]})
    with pytest.raises(ValueError, match="new.safetensors is no feature pack that this .* holds 'masks'"):
        load_pack(path)
    write_arrays(path, {"labels": np.ones(1)}, {"ids": ["a"]})
    with pytest.raises(ValueError, match="it has no image_features"):
        load_pack(path)
    write_arrays(path, {"frame_features": np.ones((1, 2))}, {"kind": "films"})
    with pytest.raises(ValueError, match="is a pack of films, not of pictures"):
        load_pack(path)


def test_the_header_alone(saved, tmp_path):
    header = read_header(saved)
    assert header["protocol"]["dataset"] == "cifar10" and header["hash"] == load_pack(saved).key
    save_file({"weight": np.ones(2)}, tmp_path / "weights.safetensors")
    assert read_header(tmp_path / "weights.safetensors") == {}
    (tmp_path / "cut.safetensors").write_bytes(saved.read_bytes()[:90])
    with pytest.raises(ValueError, match="cut.safetensors is not a whole safetensors file"):
        read_header(tmp_path / "cut.safetensors")


def test_arrays_and_words_come_back_as_written(tmp_path):
    arrays = {"b": np.arange(6).reshape(2, 3), "a": np.ones((0, 4), np.float32)}
    write_arrays(tmp_path / "x.safetensors", arrays, {"kind": "test", "pair": (1, 2)})
    again, lists = read_arrays(tmp_path / "x.safetensors")
    assert lists == {"kind": "test", "pair": [1, 2]} and again["a"].shape == (0, 4)
    np.testing.assert_array_equal(again["b"], arrays["b"])


# ---- what could run code stays closed ----

class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["features.pkl", "features.pt", "features.npy", "features"])
def test_a_pickle_is_never_opened(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"image_features": Bomb(tmp_path / "exploded")}))
    with pytest.raises(ValueError, match=rf"ends in .safetensors or .npz, got .*{name}. .* could run code"):
        load_pack(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("array", ["image_features", "captions"])
def test_a_pickled_npz_is_refused_with_the_reason_and_the_remedy(tmp_path, array):
    arrays = {"image_features": np.ones((1, 2)), "captions": np.array(["a"])}
    arrays[array] = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    np.savez(tmp_path / "bomb.npz", **arrays)
    message = "bomb.npz is not an .npz of plain arrays.*Python objects.*is refused: ask for plain arrays"
    with pytest.raises(ValueError, match=message):
        load_pack(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


def test_an_npz_of_others_has_its_stored_texts_alone(tmp_path):
    np.savez(tmp_path / "cifar10_x.npz", image_features=np.eye(3, dtype=np.float16), labels=[0, 1, 1],
             label_names=["a", "b"], text_features=[[0, 3, 4], [2, 0, 0]], text_prompts=["an a", "a b"])
    pack = load_pack(tmp_path / "cifar10_x.npz")
    assert list(pack.class_texts) == ["stored/stored"] and pack.dataset == "" and pack.made_by == ""
    np.testing.assert_allclose(pack.class_texts["stored/stored"], [[0, 0.6, 0.8], [1, 0, 0]])
    assert (pack.license, pack.source) == ("not stated", "cifar10_x.npz")


# ---- the key of the cache ----

def picture(size, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def test_preprocessing_hash_tells_preprocessings_apart():
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    def steps(size=16, how=InterpolationMode.BICUBIC, mean=0.5):
        return Compose([Resize(size, interpolation=how), CenterCrop(size), ToTensor(),
                        Normalize([mean] * 3, [1] * 3)])

    hashes = [preprocessing_hash(steps(**changes)) for changes in (
        {}, {"size": 17}, {"how": InterpolationMode.BILINEAR}, {"mean": 0.51})]
    assert len(set(hashes)) == 4 and preprocessing_hash(steps()) == hashes[0]
    assert preprocessing_hash(lambda picture: steps()(picture).numpy()) == hashes[0]  # what it makes counts


@needs_weights
@pytest.mark.parametrize("changed", ["checkpoint", "preprocessing", "precision", "data set"])
def test_the_profiles_own_key_holds_each_part(tmp_path, monkeypatch, changed):
    """Pictures under another checkpoint, preprocessing or precision, or others, are never read from disk."""
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "out"))
    settings = {"datasets": "folder:" + str(tmp_path / "pets"), "clip": "tiny"}
    for row in range(3):
        (tmp_path / "pets" / "cat").mkdir(parents=True, exist_ok=True)
        picture((40, 50), row).save(tmp_path / "pets" / "cat" / f"{row}.png")

    def features(**more):
        cached._clip.cache_clear()
        cached.test_set.cache_clear()
        config = load_config("paper", **settings, **more)
        return cached.test_set(config, config.datasets[0]).image_features

    first = features()
    more = {}
    if changed == "checkpoint":
        state, _ = checkpoints.read_checkpoint(checkpoints.TINY_PATH, "tiny")
        state["visual.conv1.weight"] = state["visual.conv1.weight"] * 1.5
        from safetensors.torch import save_file as save_weights

        save_weights({name: torch.as_tensor(value).contiguous() for name, value in state.items()},
                     tmp_path / "other.safetensors")
        more = {"clip_checkpoint": str(tmp_path / "other.safetensors"), "allow_unverified_clip": True}
    elif changed == "precision":
        more = {"precision": "bf16"}
    elif changed == "data set":
        picture((40, 50), 9).save(tmp_path / "pets" / "cat" / "1.png")
    else:
        monkeypatch.setattr(clip_card, "version", lambda package: "another")  # what changes it is a package
        made = checkpoints.import_clip().clip._transform
        monkeypatch.setattr(checkpoints.import_clip().clip, "_transform", lambda size: _nearest(made(size)))
    changed_features = features(**more)
    assert np.abs(changed_features - first).max() > 1e-4

    def refuse(*arguments, **options):
        raise AssertionError("encoded a second time")

    monkeypatch.setattr(clip_model.Clip, "_in_batches", refuse)
    np.testing.assert_array_equal(changed_features, features(**more))  # found again under its own key


def _nearest(compose):
    from torchvision.transforms import InterpolationMode, Resize

    compose.transforms[0] = Resize(compose.transforms[0].size, interpolation=InterpolationMode.NEAREST)
    return compose


# ---- what stands for pictures ----

def test_grey_tiles_say_their_id():
    one, other = (np.asarray(grey_tile(name)) for name in ("cifar10-test-00012", "cifar10-test-00013"))
    assert one.shape == (64, 64, 3) and not np.array_equal(one, other)
    assert (one == 211).mean() > 0.7 and np.asarray(grey_tile("a\nb")).min() < 150
    assert np.asarray(grey_tile("x" * 300)).shape == (64, 64, 3)


def test_pictures_of_packs_are_grey_tiles_with_their_ids(tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    save_pack(tmp_path / "set.safetensors", make_pack())
    config = load_config("paper", datasets=f"pack:{tmp_path / 'set.safetensors'}", limit=3)
    ids = cached.test_set(config, config.datasets[0]).ids
    shown = cached.test_pictures(config, config.datasets[0], np.array([2, 0]))
    assert len(shown) == 2
    for tile, name in zip(shown, (ids[2], ids[0]), strict=True):
        assert np.array_equal(tile, grey_tile(name))
    reference = SimpleNamespace(reference="pack:anything")
    assert np.array_equal(cached.pictures_of(reference, ["r7"])[0], grey_tile("r7"))
    assert datasets.TITLES["cifar10"] == cached.test_set(config, config.datasets[0]).title
