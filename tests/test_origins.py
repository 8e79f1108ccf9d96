"""Where references come from: what each origin holds, and what is left out where something is missing."""

from types import SimpleNamespace

import numpy as np
import pytest

from impart_utils import cached
from impart_utils.config import MissingInput, load_config
from impart_utils.evidence import origins
from impart_utils.evidence.tuning import Labelled
from impart_utils.reference import ReferenceSet


def pool(columns):
    features = np.eye(3, 4, dtype=np.float32)
    return ReferenceSet(features, 2 * features, ["a", "b", "c"], ["1", "2", "3"], {"columns": columns})


@pytest.fixture
def config(monkeypatch):
    films = SimpleNamespace(descriptions=["a boat", ""], frame_features=[np.arange(400.0).reshape(100, 4),
                                                                         np.ones((5, 4))])
    monkeypatch.setattr(origins, "film_gallery", lambda config: films)
    monkeypatch.setattr(origins, "text_features", lambda config, gallery, texts: np.array(
        [[len(text)] * 4 for text in texts], dtype=np.float32))
    return load_config("demo")


def test_toy_captions_by_kind_and_film_frames(config, monkeypatch):
    monkeypatch.setattr(cached, "pair_pool", lambda config: pool({"caption_kind": ["full", "wrong", "full"]}))
    assert len(origins.reference_origins(config)) == 4  # of partial and empty captions there are none
    found = origins.reference_origins(config, least=0)
    assert list(found) == ["the profile's pairs", "captions: full", "captions: partial", "captions: empty",
                           "captions: wrong", "film frames, the film's description"]
    np.testing.assert_array_equal(found["captions: full"][0], np.eye(3, 4)[[0, 2]])
    assert len(found["captions: empty"][0]) == 0
    frames, texts = found["film frames, the film's description"]
    assert frames.shape == texts.shape == (20, 4)  # the film without a description is left out
    np.testing.assert_array_equal(frames[[0, -1], 0], [0, 396])
    assert (texts == len("a boat")).all()


def test_title_description_and_both_are_captions_of_the_same_pictures(config, monkeypatch):
    asked = []

    def encode(texts):
        asked.append(list(texts))
        return np.full((len(texts), 4), len(asked), np.float32)

    monkeypatch.setattr(cached, "clip", lambda config: SimpleNamespace(encode_texts=encode))
    monkeypatch.setattr(cached, "pair_pool", lambda config: pool(
        {"title": ["Sea", "", "Hill"], "description": ["blue", "a dog", ""]}))
    found = origins.reference_origins(config)
    assert asked == [["Sea", "", "Hill"], ["blue", "a dog", ""], ["Sea. blue", "a dog", "Hill"]]
    assert (found["captions: both"][1] == 3).all()
    np.testing.assert_array_equal(found["captions: title"][0], np.eye(3, 4))


def test_without_films_there_is_one_origin_fewer(config, monkeypatch):
    def missing(config):
        raise MissingInput("no films")

    monkeypatch.setattr(origins, "film_gallery", missing)
    monkeypatch.setattr(cached, "pair_pool", lambda config: pool({}))
    assert list(origins.reference_origins(config)) == ["the profile's pairs"]


def test_clips_guess_uses_no_label():
    v, W = np.array([[1.0, 0.1], [0.0, 1.0], [0.9, 1.0]]), np.eye(2)
    one = origins.like_the_test(Labelled("x", "tuning", v, np.array([0, 1, 1]), W))
    other = origins.like_the_test(Labelled("x", "tuning", v, np.array([1, 0, 0]), W))
    np.testing.assert_array_equal(one[1], np.eye(2)[[0, 1, 1]])
    np.testing.assert_array_equal(one[1], other[1])
