"""One set of features under many protocols: what changes, what must not, and what can't be had."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_cached import FakeClip, save_picture

from impart_utils import cached, clip_model
from impart_utils.clip_card import FIELDS
from impart_utils.config import load_config
from impart_utils.scored_sets import chosen_texts
from impart_utils.sources import caltech, checkpoints
from impart_utils.sources.features import Pack, load_pack, save_pack
from impart_utils.sources.prompts import templates

PARTIAL = pytest.mark.filterwarnings("ignore:.*the whole set has:UserWarning")
FOLDERS = {"BACKGROUND_Google": 4, "Faces": 3, "Faces_easy": 2, "car_side": 3}


class Counting(FakeClip):
    """The fake CLIP, with the texts it was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def encode_texts(self, texts):
        self.asked += texts
        return super().encode_texts(texts)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "output"))
    clip = Counting()
    monkeypatch.setattr(cached, "clip", lambda config: clip)
    cached.test_set.cache_clear()
    yield clip
    cached.test_set.cache_clear()


@pytest.fixture
def folders(tmp_path):
    """A small Caltech101 with 4 + 3 + 2 + 3 pictures."""
    for place, (name, count) in enumerate(FOLDERS.items()):
        for row in range(1, count + 1):
            save_picture(tmp_path / "caltech" / "101_ObjectCategories" / name / f"image_{row:04d}.jpg",
                         10 * place + row)
    return f"caltech101:{tmp_path / 'caltech'}"


def settings(**changes):
    return load_config("paper", **changes)


# ---- pictures ----

@PARTIAL
def test_no_switch_encodes_a_picture_twice(fake, folders):
    seen = set()
    for protocol, classes, count in (("torchvision", 3, 8), ("vtab", 4, 12), ("coop", 2, 6)):
        for asked in ("paper", "openai"):
            for names in ("raw", "clean"):
                for average in ("micro", "mean per class"):
                    test = cached.test_set(settings(caltech=protocol, prompts=asked, names=names,
                                                    average=average), folders)
                    assert (test.split, test.names, test.average) == (protocol, names, average)
                    assert (len(test.class_names), len(test.labels), len(test.ids)) == (classes, count, count)
                    assert test.class_features.shape == (classes, 3) and test.n_available == count
                    seen.add(test.prompts)
    assert fake.images == 12 and seen == {"a photo of a {}", "openai (34 templates)"}


@PARTIAL
def test_a_picture_has_the_same_features_under_each_protocol(fake, folders):
    vectors = {}
    for protocol in ("torchvision", "vtab", "coop"):
        test = cached.test_set(settings(caltech=protocol), folders)
        for row, item in enumerate(test.ids):
            assert test.class_names[test.labels[row]] == item.split("/")[0]
            np.testing.assert_array_equal(vectors.setdefault(item, test.image_features[row]),
                                          test.image_features[row])
    assert len(vectors) == 12


@PARTIAL
def test_a_broken_picture_is_left_out_and_told_where_it_counts(fake, folders, tmp_path):
    place = tmp_path / "caltech" / "101_ObjectCategories" / "BACKGROUND_Google" / "image_0002.jpg"
    place.write_bytes(b"broken")
    vtab = cached.test_set(settings(caltech="vtab"), folders)
    assert len(vtab.labels) == 11 and "1 pictures can't be opened, the first: BACKGROUND" in vtab.notes[-1]
    usual = cached.test_set(settings(), folders)
    assert len(usual.labels) == 8 and not any("can't be opened" in note for note in usual.notes)


@PARTIAL
def test_a_limit_and_another_protocol_encode_nothing_anew(fake, folders):
    counts = []
    for protocol in ("torchvision", "vtab", "coop"):
        test = cached.test_set(settings(caltech=protocol, limit=3), folders)
        assert len(test.labels) == 3 and "a subset of 3 of" in test.notes[-1]
        counts.append(fake.images)
    assert counts == [counts[0]] * 3 and counts[0] < 12


# ---- texts ----

@PARTIAL
def test_only_the_texts_that_are_asked_for_are_encoded(fake, folders):
    cached.test_set(settings(), folders)
    assert sorted(fake.asked) == sorted(f"a photo of a {name}" for name in FOLDERS)
    texts = cached.class_texts(settings(), folders)
    assert set(texts) == {("paper", "raw"), ("paper", "clean"), ("openai", "raw"), ("openai", "clean")}
    assert len(fake.asked) == len(FOLDERS) * (2 + 34 + 34)  # paper/raw was there
    assert {block.shape for block in texts.values()} == {(4, 3)}  # the background too
    cached.class_texts(settings(caltech="vtab", average="mean per class"), folders)
    assert len(fake.asked) == len(FOLDERS) * 70
    assert "a photo of a off-center face" in fake.asked and "a toy side of a car." in fake.asked


@PARTIAL
def test_class_texts_are_means_over_templates(fake, folders):
    texts = cached.class_texts(settings(), folders)
    one = FakeClip()
    for row, name in enumerate(["background", "off-center face", "centered face", "side of a car"]):
        vectors = one.encode_texts([template.replace("{}", name) for template in templates("openai",
                                                                                           "caltech101")])
        mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(texts["openai", "clean"][row], mean / np.linalg.norm(mean), rtol=1e-5)
    test = cached.test_set(settings(prompts="openai", names="clean", caltech="coop"), folders)
    np.testing.assert_array_equal(test.class_features, texts["openai", "clean"][[1, 3]])
    np.testing.assert_array_equal(test.class_rows, [1, 3])


def test_class_names_of_any_kind(fake, tmp_path):
    """Braces and percent signs in folder names; a slash can't be in one, but in a pack's names."""
    for row, name in enumerate(("{}", "100%", "a_b {c}")):
        save_picture(tmp_path / "odd" / name / "x.png", row)
    test = cached.test_set(settings(prompts="openai", names="clean"), f"folder:{tmp_path / 'odd'}")
    assert test.class_names == ["100%", "a_b {c}", "{}"]
    assert {"itap of a 100%.", "itap of a a b {c}.", "itap of a {}."} <= set(fake.asked)
    assert (test.split, test.prompts) == ("test", "openai (7 templates)")


def test_names_that_are_clean_already_are_not_encoded_twice(fake, tmp_path):
    for name in ("cat", "dog"):
        save_picture(tmp_path / "pets" / name / "x.png", 1)
    texts = cached.class_texts(settings(), f"folder:{tmp_path / 'pets'}")
    assert len(fake.asked) == 2 * (1 + 7)
    np.testing.assert_array_equal(texts["openai", "raw"], texts["openai", "clean"])


def test_pictures_have_no_stored_texts(fake, tmp_path):
    save_picture(tmp_path / "pets" / "cat" / "x.png", 1)
    with pytest.raises(ValueError, match="folder:pets has no stored names: only a feature pack"):
        cached.test_set(settings(prompts="stored"), f"folder:{tmp_path / 'pets'}")


def test_clip_is_loaded_once_for_all_protocols(monkeypatch, tmp_path):
    loaded, card = [], SimpleNamespace(**dict.fromkeys(FIELDS, "fake"))
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    monkeypatch.setattr(checkpoints, "find_checkpoint", lambda *arguments, **options: Path(__file__))
    monkeypatch.setattr(clip_model, "load_clip", lambda name, **options: loaded.append(options) or card)
    cached._clip.cache_clear()
    first = cached.clip(settings())
    assert cached.clip(settings(prompts="openai", names="clean", caltech="coop", limit=3)) is first
    assert len(loaded) == 1
    assert cached.clip(settings(precision="bf16")) is not first and loaded[1]["precision"] == "bf16"
    cached._clip.cache_clear()


# ---- packs ----

def pack_file(folder, name="birds_test", **changes):
    rng = np.random.default_rng(0)
    unit = np.eye(3, dtype=np.float32)
    content = {"labels": np.arange(12) % 3, "class_names": ["TCP/IP", "{}", "100%"],
               "class_texts": {"paper/raw": unit, "openai/clean": unit[::-1].copy()}, **changes}
    features = rng.normal(size=(12, 3)).astype(np.float32)
    pack = Pack(features, [f"t{row}" for row in range(12)], "weights", **content)
    save_pack(folder / f"{name}.safetensors", pack)
    return f"pack:{folder / name}.safetensors"


def test_a_pack_gives_the_texts_that_are_asked_for(tmp_path):
    place = pack_file(tmp_path)
    test = cached.test_set(settings(), place)
    assert (test.prompts, test.names, test.split) == ("a photo of a {}", "raw", "test")
    np.testing.assert_array_equal(test.class_features, np.eye(3))
    other = cached.test_set(settings(prompts="openai", names="clean"), place)
    assert other.prompts == "openai (7 templates)" and other.key != test.key
    np.testing.assert_array_equal(other.class_features, np.eye(3)[::-1])
    assert set(cached.class_texts(settings(), place)) == {("paper", "raw"), ("openai", "clean")}


@pytest.mark.parametrize("asked, names, remedy", [
    ("paper", "clean", "--set prompts=paper --set names=raw"), ("stored", "stored", "--set prompts=paper"),
    ("openai", "raw", "--set prompts=paper")])
def test_texts_that_a_pack_lacks_are_named_with_what_it_has(tmp_path, asked, names, remedy):
    with pytest.raises(ValueError) as error:
        cached.test_set(settings(prompts=asked, names=names), pack_file(tmp_path))
    told = str(error.value)
    assert f"no texts for prompts={asked!r} with names={names!r}" in told and "birds_test.safetensors" in told
    assert "It has openai/clean, paper/raw" in told or "It has paper/raw, openai/clean" in told
    assert remedy.split()[0] in told


def test_a_foreign_pack_has_its_own_texts_alone(tmp_path):
    np.savez(tmp_path / "cifar10_mine.npz", image_features=np.eye(3, dtype=np.float32), labels=np.arange(3),
             label_names=np.array(["a", "b", "c"]), text_features=2 * np.eye(3, dtype=np.float32),
             text_prompts=np.array(["the a", "the b", "the c"]), model=np.array("OpenAI CLIP ViT-B/32"))
    place = f"pack:{tmp_path / 'cifar10_mine.npz'}"
    with pytest.raises(ValueError, match="cifar10_mine.npz has no texts for prompts='paper' with "
                                         "names='raw'. It has stored/stored. .*--set prompts=stored"):
        cached.test_set(settings(), place)
    test = cached.test_set(settings(prompts="stored"), place)
    assert (test.prompts, test.names, test.title) == ("as stored: 'the a', 'the b', …", "stored", "CIFAR-10")
    assert test.name == "pack:cifar10_mine.npz" and test.notes == ["features from cifar10_mine.npz"]
    np.testing.assert_allclose(test.class_features, np.eye(3))
    with pytest.raises(ValueError, match="Ask for what it has"):
        chosen_texts({("stored", "stored"): np.eye(3)}, settings(), "x")


def caltech_pack(folder, **changes):
    """A pack of all pictures of a small Caltech101, as `picture_features` has them."""
    names = list(FOLDERS)
    labels = np.repeat(np.arange(4), list(FOLDERS.values()))
    ids = [f"{names[label]}/image_{row:04d}.jpg" for row, label in enumerate(labels)]
    rng = np.random.default_rng(0)
    pack = Pack(rng.normal(size=(12, 4)).astype(np.float32), ids, "OpenAI ViT-B/32", labels=labels, **{
        "class_names": names, "class_texts": {"paper/raw": np.eye(4, dtype=np.float32)}, **changes})
    save_pack(folder / "caltech101.safetensors", pack)
    return f"pack:{folder / 'caltech101.safetensors'}", pack


def test_caltechs_protocols_run_from_a_pack(tmp_path):
    place, pack = caltech_pack(tmp_path)
    for protocol, rows, classes in (
            ("torchvision", range(4, 12), [1, 2, 3]), ("vtab", range(12), [0, 1, 2, 3]),
            ("coop", [4, 5, 6, 9, 10, 11], [1, 3])):
        test = cached.test_set(settings(caltech=protocol), place)
        assert test.split == protocol and test.ids == [pack.ids[row] for row in rows]
        np.testing.assert_array_equal(test.image_features, pack.image_features[list(rows)])
        np.testing.assert_array_equal(test.class_features, np.eye(4)[classes])
        assert [test.class_names[label] for label in test.labels] == [name.split("/")[0] for name in test.ids]
    part = cached.test_set(settings(caltech="coop", limit=2), place)
    assert len(part.labels) == 2 and part.n_available == 6 and "a subset of 2 of 6 pictures" in part.notes
    assert "features from caltech101.safetensors" in part.notes  # of unknown making: no data set of the paper


def test_the_list_of_test_pictures_lies_beside_the_pack(tmp_path):
    place, _ = caltech_pack(tmp_path)
    split = {"test": [["Faces/image_0005.jpg", 0, "face"]]}
    (tmp_path / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    assert cached.test_set(settings(caltech="coop"), place).ids == ["Faces/image_0005.jpg"]


def test_a_caltech_pack_with_classes_of_its_own(tmp_path):
    place, _ = caltech_pack(tmp_path, class_names=["nothing", "face", "face again", "car"])
    assert cached.test_set(settings(), place).split == "as stored"
    with pytest.raises(ValueError, match="classes named after Caltech101's folders for caltech='vtab', got "
                                         "'nothing', …. Leave that setting out"):
        cached.test_set(settings(caltech="vtab"), place)


@PARTIAL
def test_a_pack_that_the_kit_made_is_the_data_set_itself(fake, folders, tmp_path, monkeypatch):
    """Same name, labels, notes and hash as from the pictures: 04 and 09 can't tell them apart."""
    config = settings(caltech="coop", prompts="openai", names="clean")
    test = cached.test_set(config, folders)
    dataset, image_features, ids, _ = cached.picture_features(config, folders)
    texts = {"/".join(key): block for key, block in cached.class_texts(config, folders).items()}
    protocol = {"dataset": dataset.name, "n_available": dataset.n_available, "notes": dataset.notes}
    save_pack(tmp_path / "mine.safetensors", Pack(
        image_features, ids, fake.provenance, labels=dataset.labels, class_names=dataset.class_names,
        class_texts=texts, protocol=protocol, made_by="impart-kit"))
    assert load_pack(tmp_path / "mine.safetensors").dataset == "caltech101"
    again = cached.test_set(config, f"pack:{tmp_path / 'mine.safetensors'}")
    for name in ("name", "title", "ids", "class_names", "prompts", "names", "split", "weights", "n_available",
                 "notes", "key"):
        assert getattr(again, name) == getattr(test, name), name


def test_a_pack_of_a_limited_data_set_stays_a_subset(tmp_path):
    protocol = {"dataset": "cifar10", "n_available": 10_000, "notes": ["a subset of 12 of 10000 pictures"]}
    place = pack_file(tmp_path, protocol=protocol, made_by="impart-kit")
    test = cached.test_set(settings(), place)
    assert (test.name, test.title, test.n_available) == ("cifar10", "CIFAR-10", 10_000)
    assert test.notes == ["a subset of 12 of 10000 pictures"] and test.prompts == "a photo of a {}"
    assert cached.test_set(settings(limit=5), place).notes[-1] == "a subset of 5 of 10000 pictures"


def test_pairs_are_no_test_set(tmp_path):
    place = pack_file(tmp_path, labels=None, class_names=None, class_texts={})
    with pytest.raises(ValueError, match="birds_test.safetensors has no labels or no class features"):
        cached.test_set(settings(), place)


def test_grey_pictures_and_palettes_are_encoded_as_rgb(fake, tmp_path):
    for mode in ("L", "P"):
        place = tmp_path / "modes" / mode / "x.png"
        place.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (51, 51, 51)).convert(mode).save(place)  # a color of the web palette
    test = cached.test_set(settings(), f"folder:{tmp_path / 'modes'}")
    np.testing.assert_allclose(test.image_features, 52, atol=1)


def test_every_protocol_of_the_settings_is_known_to_caltech():
    from impart_utils.config import CALTECH

    assert tuple(caltech.LEFT_OUT) == CALTECH
