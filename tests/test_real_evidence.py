"""The shared data's README and its numbers, recomputed with the kit: point 6 of "Table 1 with evidence"."""

from pathlib import Path

import numpy as np
import pytest

from impart_utils.config import MissingInput
from impart_utils.evidence import real_check, rivals
from impart_utils.evidence.eq1 import commits_for
from impart_utils.evidence.surface import surface_counts
from impart_utils.reference import from_pack, scaled
from impart_utils.retrieval import Retriever
from impart_utils.sources.features import load_pack

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "clip_features"
real = pytest.mark.skipif(not FOLDER.is_dir(), reason="the shared CLIP features aren't here")

CIFAR, HALF, COCO = "CIFAR-10, 500 pictures", "CIFAR-10, 250 pictures", "COCO, 250 pairs, picture to caption"
UNIT, CHANCE = "Eq. 1, unit, 0.5 / 0.05", "8 random references, unit, 0.5 / 0.05"


@pytest.fixture(scope="module")
def table():
    found = real_check.real_features_table(FOLDER)
    return found.set_index(["data", "method"])


@real
@pytest.mark.parametrize("data, method, column, points", [
    (CIFAR, "CLIP", "accuracy", 89.80), (CIFAR, UNIT, "difference", -0.32), (CIFAR, UNIT, "sd", 0.41),
    (CIFAR, CHANCE, "difference", -1.80),
    (HALF, "CLIP", "accuracy", 90.56), (HALF, UNIT, "difference", 1.28), (HALF, UNIT, "sd", 1.25),
    (HALF, CHANCE, "difference", -2.48),
    (CIFAR, "Eq. 1, mixed, 0.05 / 0.05", "accuracy", 84.56),
    (CIFAR, "Eq. 1, mixed, 0.5 / 0.05", "accuracy", 83.80),
    (CIFAR, UNIT, "accuracy", 89.48), (CIFAR, "Eq. 1, unit, 0.5 / 0", "accuracy", 90.16),
    (COCO, "CLIP", "accuracy", 66.16), (COCO, UNIT, "difference", -6.16), (COCO, UNIT, "sd", 2.54)])
def test_every_number_of_the_readme_within_rounding(table, data, method, column, points):
    assert 100 * table.loc[(data, method), column] == pytest.approx(points, abs=0.0051)


@real
def test_the_table_says_what_it_was_measured_on(table):
    assert (table["draws"] == 5).all()
    assert (table.loc[CIFAR]["n"] == 500).all() and (table.loc[HALF]["n"] == 250).all()
    np.testing.assert_allclose(table["difference"], table["accuracy"] - table["clip"])
    assert table.loc[(CIFAR, UNIT), "references"] == "1000 Unsplash photos"


@real
def test_the_same_numbers_from_plain_numpy():
    """The recipe once more, without the kit: what "any other program" would do."""
    with np.load(FOLDER / real_check.FILES[0], allow_pickle=False) as file:
        v, W, labels = file["image_features"], file["text_features"], file["labels"]
    with np.load(FOLDER / real_check.FILES[1], allow_pickle=False) as file:
        photos, index = file["image_features"], file["pseudo_text_index"]
    with np.load(FOLDER / real_check.FILES[2], allow_pickle=False) as file:
        texts = file["text_features"][index]

    def one(x):
        x = x.astype(np.float64)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def accuracy(queries):
        return 100 * np.mean((queries @ one(W).T).argmax(axis=1) == labels)

    near, chance = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        drawn = rng.choice(2959, 1000, replace=False)
        P, T = one(photos)[drawn], one(texts)[drawn]
        nearest = np.argsort(-(one(v) @ P.T), axis=1, kind="stable")[:, :8]
        random = np.array([rng.choice(1000, 8, replace=False) for _ in range(500)])
        for found, indices in ((near, nearest), (chance, random)):
            found.append(accuracy(one(v) + 0.5 * P[indices].mean(axis=1) + 0.05 * T[indices].mean(axis=1)))
    assert np.mean(near) - accuracy(one(v)) == pytest.approx(-0.32)
    assert np.std(near, ddof=1) == pytest.approx(0.41, abs=0.005)
    assert np.mean(chance) - accuracy(one(v)) == pytest.approx(-1.80)


@real
def test_rivals_and_surface_run_on_real_features():
    cifar = load_pack(FOLDER / real_check.FILES[0])
    photos = from_pack(load_pack(f"{FOLDER / real_check.FILES[1]}+{FOLDER / real_check.FILES[2]}"))
    pairs = photos.take(np.random.default_rng(0).choice(2959, 1000, replace=False))
    given = (cifar.image_features, pairs.image_features, pairs.text_features, cifar.class_features,
             Retriever(pairs.image_features).search(cifar.image_features, 128)[1])
    for name, method in rivals.METHODS.items():
        if name == "Eq. 1, raw vectors":
            with pytest.raises(ValueError, match="norms are gone"):  # the sources keep unit vectors only
                method(*given)
        else:
            reached = np.mean(method(*given).argmax(axis=1) == cifar.labels)
            assert reached > 0.75 or name in ("caption vote", "Tip-Adapter, soft labels"), (name, reached)
    assert commits_for(*given[:3]) == ["jalend", "dcf3e1e", "c234231", "e41db07"]
    v, R_img, R_txt = scaled(cifar.image_features, pairs, "mixed")
    counts = surface_counts(v, cifar.labels, cifar.class_features, R_img, R_txt, given[4], top_ks=(8,),
                            image_weights=(0.05, 0.5), text_weights=(0.0, 0.05))
    assert counts[0, :, 1].tolist() == [422, 422]  # 84.4 % in the first draw, with either image weight
    assert counts[0, :, 0].min() > 445             # without the raw captions it stays near CLIP's 449


def test_missing_files_are_named(tmp_path):
    (tmp_path / real_check.FILES[0]).write_bytes(b"")
    with pytest.raises(MissingInput, match="no unsplash_photos_vitb32.npz, text_vocab_vitb32.npz, coco"):
        real_check.real_features_table(tmp_path)
