"""Which classes the references know: names in captions as whole words, and what CLIP calls pictures."""

import numpy as np
import pytest

from impart_utils.evidence.coverage import class_coverage, gain_by_class, named_in
from impart_utils.reference import ReferenceSet


@pytest.mark.parametrize(("name", "captions", "expected"), [
    ("car", ["a car", "my Cars!", "a card", "scar", "the car-park", ""], [1, 1, 0, 0, 1, 0]),
    ("aquarium_fish", ["aquarium fish", "an Aquarium  fishes", "fish, aquarium", "aquarium-fish"],
     [1, 1, 0, 1]),
    ("red boat", ["a red boat by the sea", "red boats", "a red, boat", "a boat in red", "redboat"],
     [1, 1, 1, 0, 0]),
    ("Faces", ["faces", "many faces of", "face"], [1, 1, 0]),
])
def test_names_are_whole_words_in_singular_or_plural(name, captions, expected):
    assert named_in(captions, name).tolist() == [bool(value) for value in expected]


def test_coverage_by_hand():
    images = np.array([[2, 0], [0, 3], [1, 1]], np.float32)
    texts = np.array([[0, 1], [0, 2], [3, 4]], np.float32)
    references = ReferenceSet(images, texts, ["a cat", "cats and a dog", "nothing"], ["a", "b", "c"])
    table = class_coverage(["cat", "dog", "bird"], np.array([[5, 0], [0, 1], [-1, 0]]), references)
    assert table["named"].to_dict() == {"cat": 2, "dog": 1, "bird": 0}
    assert table["called"].to_dict() == {"cat": 2, "dog": 1, "bird": 0}  # of equal ones the first class
    np.testing.assert_allclose(table["nearest_picture"], [1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(table["nearest_caption"], [0.6, 1, 0], atol=1e-6)
    assert table["called"].sum() == len(references)  # each picture is called something


def test_gain_by_class_by_hand():
    labels = np.array([0, 0, 2, 2, 2, 2])
    before = np.array([0, 1, 2, 2, 0, 0])
    after = np.array([0, 0, 2, 0, 0, 0])
    gain = gain_by_class(labels, before, after, ["cat", "dog", "bird"])
    assert gain.to_dict() == {"cat": 0.5, "bird": -0.25}  # a class without pictures has none
