"""Copies of test pictures among the references: both detectors, on planted and on real ones."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from impart_utils.config import load_config
from impart_utils.evidence import leakage
from impart_utils.evidence.leakage import (
    MAX_BITS,
    accuracy_without,
    copies,
    copies_found,
    flag_counts,
    near_duplicates,
    nearest_hash,
    perceptual_hash,
    similarity_threshold,
)
from impart_utils.reference import ReferenceSet
from impart_utils.toy_world import scenes

CALTECH = Path(__file__).parents[2] / "shared" / "data" / "caltech101" / "101_ObjectCategories"


def noise(seed, size=(40, 32)):
    """A picture of blurred noise, such that its low frequencies say something."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def saved(picture, quality=50):
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out)


# ---- the hash


def test_the_hash_equals_a_slow_cosine_transform():
    grays = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    low = np.empty((16, 16))
    for row in range(16):
        for column in range(16):
            wave = np.outer(np.cos(np.pi * row * (2 * np.arange(32) + 1) / 64),
                            np.cos(np.pi * column * (2 * np.arange(32) + 1) / 64))
            scale = np.prod([np.sqrt((1 if index == 0 else 2) / 32) for index in (row, column)])
            low[row, column] = scale * np.sum(wave * grays)
    low = low.ravel()[1:]
    found = perceptual_hash([grays])
    assert found.shape == (1, 255) and found.dtype == bool
    np.testing.assert_array_equal(found[0], low > np.median(low))
    assert found.sum() == 127  # half of them, by the median


def test_the_hash_takes_any_mode_and_size():
    picture = noise(1)
    expected = perceptual_hash([picture])[0]
    others = [picture.convert(mode) for mode in ("RGBA", "L", "P", "CMYK")]
    for other in [*others, np.asarray(picture), picture.resize((200, 160)), picture.resize((20, 16))]:
        assert (perceptual_hash([other])[0] != expected).sum() <= MAX_BITS
    assert perceptual_hash([]).shape == (0, 255)


def test_copies_are_near_and_others_far():
    pictures = [noise(seed) for seed in range(60)]
    hashes = perceptual_hash(pictures)
    for alter in (saved, lambda p: p.resize((20, 16)), lambda p: saved(p.resize((80, 64)), 75)):
        assert (perceptual_hash(list(map(alter, pictures))) != hashes).sum(axis=1).max() <= MAX_BITS
    apart = (hashes[:, None] != hashes[None]).sum(axis=2)
    assert apart[~np.eye(60, dtype=bool)].min() > 2.5 * MAX_BITS
    mirrored = perceptual_hash([ImageOps.mirror(picture) for picture in pictures])
    assert (mirrored != hashes).sum(axis=1).min() > MAX_BITS  # a hash doesn't see that


def test_the_nearest_hash_equals_the_slow_loop():
    rng = np.random.default_rng(2)
    hashes, references = rng.random((2100, 31)) < 0.5, rng.random((17, 31)) < 0.5  # three blocks
    bits, rows = nearest_hash(hashes, references)
    apart = (hashes[:, None] != references[None]).sum(axis=2)
    np.testing.assert_array_equal(bits, apart.min(axis=1))
    np.testing.assert_array_equal(rows, apart.argmin(axis=1))  # of equal ones the first
    assert bits.dtype == rows.dtype == np.int64


# ---- both detectors


def test_the_threshold_is_what_one_reference_in_a_hundred_exceeds():
    angles = np.radians([0, 10, 30, 60, 100])  # nearest others: 10, 10, 20, 30, 40 degrees away
    references = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1], [5], [2], [1], [9]]
    nearest = np.cos(np.radians([10, 10, 20, 30, 40]))
    assert similarity_threshold(references, share=0.0) == pytest.approx(nearest[0], abs=1e-6)
    assert similarity_threshold(references, share=0.5) == pytest.approx(nearest[2], abs=1e-6)
    assert similarity_threshold(references) == pytest.approx(np.quantile(nearest, 0.99), abs=1e-6)


def test_near_duplicates_by_hand():
    references = np.array([[1, 0], [0, 1]])
    queries = np.array([[3, 0], [0.8, 0.6], [0.6, 0.8], [0, 2]])
    reference_hashes = np.array([[1] * 8, [0] * 8], bool)
    hashes = np.array([[1, 1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1],
                       [1, 1, 1, 1, 0, 0, 0, 0]], bool)
    table = near_duplicates(queries, references, min_similarity=0.9, hashes=hashes,
                            reference_hashes=reference_hashes, max_bits=2)
    assert list(table["reference"]) == [0, 0, 1, 1]
    np.testing.assert_allclose(table["similarity"], [1, 0.8, 0.8, 1], atol=1e-6)
    assert list(table["bits_apart"]) == [1, 6, 3, 4]     # from the nearest by cosine
    assert list(table["fewest_bits"]) == [1, 2, 3, 4] and list(table["hash_reference"]) == [0, 1, 1, 0]
    assert list(table["by_similarity"]) == [True, False, False, True]
    assert list(table["by_hash"]) == [True, True, False, False]
    assert list(table["flagged"]) == [True, True, False, True]
    counts = flag_counts({"toy10": table, "toy100": table.iloc[1:3]})
    assert counts.loc["toy10"].tolist() == [4, pytest.approx(0.9), pytest.approx(1), 1, 2, 2, 1]
    assert counts.loc["toy100", ["pictures", "by similarity", "by hash", "by both"]].tolist() == [2, 0, 1, 0]


def test_without_pictures_similarity_alone_flags():
    table = near_duplicates(np.eye(3), np.eye(3)[:2], min_similarity=0.5)
    assert list(table["flagged"]) == list(table["by_similarity"]) == [True, True, False]
    assert table["bits_apart"].isna().all() and not table["by_hash"].any()
    assert (table["hash_reference"] == -1).all()


def test_the_toy_world_shares_no_scene_and_planted_copies_are_found():
    """Nothing is flagged by hash among test pictures; exactly the copies are, once they are planted."""
    pairs = [Image.fromarray(picture) for picture in scenes.pictures(
        [pair.scene for pair in scenes.pairs(150)], size=64)]
    references = perceptual_hash(pairs)
    for name in scenes.CLASS_NAMES:
        tests = list(scenes.pictures(scenes.test_set(name).scenes[:150]))
        clean = nearest_hash(perceptual_hash(tests), references)[0]
        assert clean.min() > MAX_BITS
        planted = {7: saved(pairs[3]), 80: pairs[20].resize((32, 32)), 149: pairs[140].convert("L")}
        for row, picture in planted.items():
            tests[row] = picture
        bits, rows = nearest_hash(perceptual_hash(tests), references)
        assert list(np.flatnonzero(bits <= MAX_BITS)) == list(planted)
        assert list(rows[list(planted)]) == [3, 20, 140]


def test_accuracy_with_and_without_by_hand():
    labels = np.array([0, 1, 1, 0, 1])
    predictions = {"CLIP": np.array([0, 1, 0, 0, 0]), "Eq. 1": labels}
    table = accuracy_without([True, False, False, False, True], labels, predictions)
    table = table.set_index(["method", "pictures"])
    assert table.loc[("CLIP", "all"), ["n", "correct", "accuracy"]].tolist() == [5, 3, 0.6]
    assert table.loc[("CLIP", "not flagged"), ["n", "correct"]].tolist() == [3, 2]
    assert table.loc[("CLIP", "flagged"), ["n", "correct", "accuracy"]].tolist() == [2, 1, 0.5]
    assert (table.loc["Eq. 1", "accuracy"] == 1).all()
    assert ((table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])).all()
    none = accuracy_without(np.zeros(5, bool), labels, {"CLIP": labels})
    assert list(none["pictures"]) == ["all", "not flagged"]  # an accuracy of no picture is none


# ---- planted copies


def test_copies_are_what_their_names_say():
    picture = noise(3, (40, 20))
    made = copies(picture)
    assert made["as it is"].tobytes() == picture.tobytes()
    assert made["shrunk to half"].size == (20, 10) and made["5 % cut at each edge"].size == (36, 18)
    assert made["gray"].mode == "L" and made["saved as JPEG, quality 50"].format == "JPEG"
    np.testing.assert_array_equal(np.asarray(made["mirrored"]), np.asarray(picture)[:, ::-1])
    assert np.asarray(made["30 % brighter"]).mean() > np.asarray(picture).mean() + 10
    assert len(copies(picture.convert("L"))) == len(copies(picture.convert("P"))) == len(made)


def test_planted_copies_are_found_with_the_right_reference():
    def encode(pictures):
        """A CLIP that overlooks mirroring and sees shapes alone."""
        grays = np.array([np.asarray(picture.convert("L").resize((8, 8)), float) for picture in pictures])
        both = grays + grays[:, :, ::-1]
        return (both - both.mean(axis=(1, 2), keepdims=True)).reshape(len(pictures), -1)

    pictures = [noise(seed) for seed in range(30)]
    features, hashes = encode(pictures), perceptual_hash(pictures)
    some = np.array([2, 9, 25])
    planted = [pictures[row] for row in some]
    found = copies_found(encode, planted, some, features, hashes, min_similarity=0.99)
    assert list(found.columns) == ["by similarity", "by hash", "by either"]
    assert found.loc["as it is"].tolist() == [1, 1, 1]
    assert found.loc["mirrored"].tolist() == [1, 0, 1]
    assert found.loc["saved as JPEG, quality 50", "by hash"] == 1
    assert (found["by either"] >= found[["by similarity", "by hash"]].max(axis=1)).all()
    wrong = copies_found(encode, planted, some + 1, features, hashes, min_similarity=0.99)
    assert (wrong == 0).all().all()  # flagged, but another reference than the one that was planted


# ---- a run's pictures


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path))
    return load_config("demo", limit=25, pairs=40, references=12, datasets="toy10")


def reference_set(ids):
    x = np.random.default_rng(0).normal(size=(len(ids), 4)).astype(np.float32)
    return ReferenceSet(x, x, [""] * len(ids), list(ids))


def test_hashes_of_a_run_are_in_the_order_of_the_ids_and_kept(config, monkeypatch):
    dataset = leakage.datasets.load_dataset("toy10", config)
    ids = dataset.ids[::-1]
    found = leakage.hashes_of_test(config, "toy10", ids)
    np.testing.assert_array_equal(found, perceptual_hash([dataset.pictures[24 - row] for row in range(25)]))
    pairs = reference_set([pair.id for pair in scenes.pairs(40)[5:17]])
    drawn = [scenes.draw(pair.scene, size=64) for pair in scenes.pairs(40)[5:17]]
    np.testing.assert_array_equal(leakage.hashes_of_references(config, pairs), perceptual_hash(drawn))
    monkeypatch.setattr(leakage, "perceptual_hash", lambda pictures: pytest.fail("hashed again"))
    np.testing.assert_array_equal(leakage.hashes_of_test(config, "toy10", ids), found)


def test_hashes_of_a_folder_and_of_packs(config, tmp_path):
    for number in range(3):
        noise(number).save(tmp_path / f"{number}.png")
    folder = load_config("demo", reference=f"folder:{tmp_path}", references=3, pairs=3, top_k=1)
    found = leakage.hashes_of_references(folder, reference_set(["2.png", "0.png"]))
    np.testing.assert_array_equal(found, perceptual_hash([noise(2), noise(0)]))
    pack = load_config("demo", reference=f"pack:{tmp_path / 'x.npz'}")
    assert leakage.hashes_of_references(pack, reference_set(["a"])) is None
    assert leakage.hashes_of_test(config, "pack:x.npz", ["a"]) is None


# ---- real pictures


@pytest.mark.skipif(not CALTECH.exists(), reason=f"real pictures are not at {CALTECH}")
def test_real_twins_in_caltech101_are_found_and_nothing_else():
    """Pictures that the data set holds twice, one of them edited; not what merely looks alike."""
    twins = {("gerenuk", 1, 19), ("hedgehog", 1, 10), ("llama", 1, 10), ("pagoda", 7, 13),
             ("stop_sign", 1, 22)}
    paths = [path for name in (*sorted(name for name, *_ in twins), "Motorbikes", "lotus", "menorah")
             for path in sorted((CALTECH / name).glob("*.jpg"))]
    hashes = perceptual_hash([Image.open(path) for path in paths])
    apart = (hashes[:, None] != hashes[None]).sum(axis=2)
    found = {(paths[one].parent.name, *(int(paths[row].stem[-4:]) for row in (one, other)))
             for one, other in np.argwhere(apart <= MAX_BITS) if one < other}
    assert found == twins
