"""Does retrieval help? Worlds in which it must, in which any pair would do, and in which nothing does."""

import numpy as np
import pytest

from impart_utils.evidence.tuning import Labelled
from impart_utils.evidence.verdicts import retrieval_helps
from impart_utils.zeroshot import unit

GRID = {"top_ks": (1, 4), "image_weights": (0.0, 1.0), "text_weights": (0.0, 1.0)}
CLASSES = 4


def world(seed, *, noise=0.9, count=400, texts="true"):
    """Noisy pictures of classes; references are clean pictures of the same classes."""
    rng = np.random.default_rng(0)
    W = unit(rng.normal(size=(CLASSES, 24)))
    appearance = unit(rng.normal(size=(CLASSES, 24)))  # what a class looks like, besides its name's direction
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    pictures = unit(0.15 * W[labels] + appearance[labels] + noise / 5 * rng.normal(size=(count, 24)))
    return pictures, labels, W


def splits(**options):
    return [Labelled(name, role, *world(seed, **options))
            for name, role, seed in (("a", "tuning", 1), ("b", "test", 2))]


def test_it_helps_where_captions_name_what_pictures_show():
    tuning, test = splits()
    pictures, labels, W = world(3)
    row = retrieval_helps(tuning, test, pictures, W[labels], **GRID)
    assert row["helps"] and row["method"] > row["clip"] + 0.1 and row["method"] > row["control"] + 0.1
    assert row["n"] == 400 and max(row["p_clip"], row["p_control"]) < 1e-6


def test_it_does_not_where_captions_say_nothing():
    """The same pictures with texts that have nothing to do with them."""
    tuning, test = splits()
    pictures, _, W = world(3)
    strangers = W[np.random.default_rng(4).integers(0, CLASSES, len(pictures))]
    grid = {**GRID, "image_weights": (0.0,)}  # or the neighbors' pictures would help
    row = retrieval_helps(tuning, test, pictures, strangers, **grid)
    assert not row["helps"]


def test_a_gain_that_any_pair_brings_is_not_retrievals():
    """A constant offset favors one class for CLIP; every reference takes it away alike."""
    tuning, test = splits()
    def biased(split):
        return Labelled(split.name, split.role, unit(split.image_features + 1.5 * split.class_features[0]),
                        split.labels, split.class_features)

    offset = np.repeat(-unit(tuning.class_features[:1]), 50, axis=0) + 1e-3 * np.random.default_rng(
        0).normal(size=(50, 24))
    row = retrieval_helps(biased(tuning), biased(test), offset, unit(offset), **GRID)
    assert row["method"] > row["clip"] + 0.05 and row["p_clip"] < 0.05
    assert row["method"] - row["control"] < 0.03 and not row["helps"]


def test_the_test_set_may_not_tune():
    tuning, test = splits()
    pictures, labels, W = world(3)
    with pytest.raises(ValueError, match="Expected a tuning split"):
        retrieval_helps(test, test, pictures, W[labels], **GRID)
