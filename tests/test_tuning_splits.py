"""Where settings are chosen: pictures that the test set hasn't, named in the result."""

import numpy as np
import pytest

from impart_utils import cached
from impart_utils.config import MissingInput, load_config
from impart_utils.evidence.tuning import require_disjoint
from impart_utils.evidence.tuning_splits import halves, tuning_split
from impart_utils.sources.packs import Pack, save_pack


def test_toy_sets_are_drawn_anew_with_another_seed():
    config = load_config("demo", limit=40)
    tuning, test = tuning_split(config, "toy10")
    assert tuning.name == "toy10, 40 other pictures (toy world's seed 1, version 1)"
    assert (tuning.role, test.role, test.name, len(test)) == ("tuning", "test", "toy10", 40)
    assert tuning.image_features.shape == (40, 64) and tuning.labels.max() < 10
    require_disjoint(tuning, test)
    np.testing.assert_array_equal(test.image_features, cached.test_set(config, "toy10").image_features)
    again, _ = tuning_split(config, "toy10")
    np.testing.assert_array_equal(again.image_features, tuning.image_features)
    other, _ = tuning_split(config, "toy10", seed=2)
    assert (other.image_features != tuning.image_features).any() and "seed 2" in other.name


def test_labels_belong_to_the_pictures():
    """The tiny CLIP recognizes most of them; with labels in another order it would be at chance."""
    tuning, _ = tuning_split(load_config("demo", limit=200), "toy10")
    right = (tuning.image_features @ tuning.class_features.T).argmax(axis=1) == tuning.labels
    assert right.mean() > 0.6


def test_halves_cut_each_class_and_share_nothing():
    labels = np.repeat([0, 1, 2], [10, 5, 1])
    features = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    tuning, test = halves("caltech101", features, labels, np.eye(3, 4))
    assert np.bincount(tuning.labels, minlength=3).tolist() == [5, 2, 0]
    assert np.bincount(test.labels, minlength=3).tolist() == [5, 3, 1]
    require_disjoint(tuning, test)
    together = np.concatenate([tuning.image_features, test.image_features])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(features, axis=0))
    for half in (tuning, test):
        for row, label in zip(half.image_features, half.labels, strict=True):
            assert label == labels[np.flatnonzero((features == row).all(axis=1))[0]]
    assert tuning.name == "caltech101, first half (seed 1)"
    assert test.name == "caltech101, second half (seed 1)"


def test_halves_are_seeded_and_refuse_single_pictures():
    features, labels = np.random.default_rng(0).normal(size=(40, 4)), np.repeat([0, 1], 20)
    one, same, other = (halves("x", features, labels, np.eye(2, 4), seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image_features, same.image_features)
    assert (one.image_features != other.image_features).any()
    with pytest.raises(ValueError, match="a class with at least two pictures in 'x'.* got 2 pictures"):
        halves("x", features[:2], np.array([0, 1]), np.eye(2, 4))


def test_a_pack_is_halved(tmp_path):
    features = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    pack = Pack(features, [str(row) for row in range(12)], "some CLIP", labels=np.repeat([0, 1, 2], 4),
                class_names=list("abc"), class_features=np.eye(3, 4, dtype=np.float32), prompts=list("abc"))
    save_pack(tmp_path / "small.safetensors", pack)
    config = load_config("paper", datasets=f"pack:{tmp_path / 'small.safetensors'}", prompts="stored")
    tuning, test = tuning_split(config, config.datasets[0])
    assert len(tuning) == len(test) == 6 and (tuning.role, test.role) == ("tuning", "test")
    assert tuning.name == "pack:small.safetensors, first half (seed 1)"


class FakeCifar:
    """torchvision's CIFAR10 without the 170 MB: 300 pictures whose gray level is their label."""

    base_folder = "cifar-10-batches-py"

    def __init__(self, root, train, download):
        assert not download
        count = 300 if train else 60
        self.targets = [row % 10 for row in range(count)]
        self.data = np.stack([np.full((32, 32, 3), 20 * label + (5 if train else 0), np.uint8)
                              for label in self.targets])
        self.classes = list("abcdefghij")


def test_cifar_is_tuned_on_its_training_set(monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeCifar)
    config = load_config("demo", datasets="cifar10", limit=50)
    tuning, test = tuning_split(config, "cifar10")
    assert tuning.name == "cifar10, 50 of 300 training pictures (seed 1)" and len(tuning) == 50
    assert (test.name, len(test)) == ("cifar10", 50)
    require_disjoint(tuning, test)
    for label in range(10):  # one gray level per label, so one feature per label
        rows = tuning.image_features[tuning.labels == label]
        np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), atol=1e-4)


def test_a_missing_training_set_is_named(monkeypatch):
    class OnlyTest(FakeCifar):
        def __init__(self, root, train, download):
            if train:
                raise RuntimeError("Dataset not found or corrupted.")
            super().__init__(root, train, download)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", OnlyTest)
    with pytest.raises(MissingInput, match="CIFAR-10's training set isn't in"):
        tuning_split(load_config("demo", datasets="cifar10", limit=50), "cifar10")
