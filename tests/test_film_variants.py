"""Eq. 1 at its three places and NNN, against the steps written out."""

import numpy as np
import pytest

from impart_utils.evidence.film_variants import VARIANTS, FilmQueries, make_variants
from impart_utils.film_scores import cosines, hub_bias, pool, score_films
from impart_utils.reference import ReferenceSet, vanilla_features

RNG = np.random.default_rng(0)
FILMS = [RNG.normal(size=(frames, 8)) for frames in (6, 1, 9, 4)]
REFERENCES = ReferenceSet(*RNG.normal(size=(2, 30, 8)).astype(np.float32), [""] * 30,
                          [str(row) for row in range(30)])
FEATURES = RNG.normal(size=(3, 8))
TEXT = FilmQueries("text", "text", FEATURES, np.array([0, 2, 3]))
PICTURE = FilmQueries("picture", "picture", FEATURES, np.array([0, 2, 3]))
SETTINGS = {"top_k": 4, "image_weight": 0.5, "text_weight": 0.3}
WAYS = make_variants(FILMS, REFERENCES, **SETTINGS, hub_top_k=5, alpha=0.5)


@pytest.mark.parametrize("how", ["mean_raw", "mean_unit", "max", "top_mean", "query_scored"])
@pytest.mark.parametrize("queries", [TEXT, PICTURE], ids=["text", "picture"])
def test_each_variant_is_its_steps_written_out(how, queries):
    plain = score_films(FEATURES, FILMS, how)
    np.testing.assert_array_equal(WAYS["CLIP"].similarities(queries, how), plain)
    frames = [vanilla_features(film, REFERENCES, **SETTINGS) for film in FILMS]
    np.testing.assert_allclose(WAYS["Eq. 1 on frames"].similarities(queries, how),
                               score_films(FEATURES, frames, how))
    others = REFERENCES.text_features if queries is TEXT else REFERENCES.image_features
    np.testing.assert_allclose(WAYS["NNN"].similarities(queries, how),
                               plain - hub_bias(others, FILMS, how, top_k=5, alpha=0.5), atol=1e-6)
    # the nearest references of the query's own kind, then Eq. 1 by hand, on unit vectors
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    images, texts = (block / np.linalg.norm(block, axis=1, keepdims=True)
                     for block in (REFERENCES.image_features, REFERENCES.text_features))
    nearest = np.argsort(-(unit @ (texts if queries is TEXT else images).T), axis=1)[:, :4]
    augmented = unit + 0.5 * images[nearest].mean(axis=1) + 0.3 * texts[nearest].mean(axis=1)
    np.testing.assert_allclose(WAYS["Eq. 1 on the query"].similarities(queries, how),
                               score_films(augmented, FILMS, how), atol=1e-6)


@pytest.mark.parametrize("how", ["mean_raw", "mean_unit"])
def test_eq1_on_films_augments_the_mean(how):
    means = vanilla_features(np.stack([pool(film, how) for film in FILMS]), REFERENCES, **SETTINGS)
    np.testing.assert_allclose(WAYS["Eq. 1 on films"].similarities(TEXT, how), cosines(FEATURES, means))


def test_eq1_is_linear_apart_from_who_the_neighbors_are():
    everyone = {"top_k": 30, "image_weight": 0.5, "text_weight": 0.3}  # all references are neighbors
    unit = [film / np.linalg.norm(film, axis=1, keepdims=True) for film in FILMS]
    before = np.stack([vanilla_features(film, REFERENCES, **everyone).mean(axis=0) for film in FILMS])
    shift = before - np.stack([film.mean(axis=0) for film in unit])
    np.testing.assert_allclose(shift, np.tile(shift[0], (4, 1)), atol=1e-6)  # one and the same vector
    assert WAYS["Eq. 1 on films"].poolings == ("mean_raw", "mean_unit")


def test_zero_weights_are_clip():
    still = make_variants(FILMS, REFERENCES, image_weight=0, text_weight=0, alpha=0)
    for name in VARIANTS:
        np.testing.assert_allclose(still[name].similarities(TEXT, "mean_unit"),
                                   score_films(FEATURES, FILMS, "mean_unit"), atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_held_out_query_finds_its_film_by_the_kept_frames_only(name):
    kept = [np.array([0, 4]), np.array([8]), np.array([1, 2, 3])]
    queries = FilmQueries("held out", "picture", FEATURES, np.array([0, 2, 3]), kept)
    found = WAYS[name].similarities(queries, "mean_unit")
    for row, (film, frames) in enumerate(zip(queries.films, kept, strict=True)):
        shorter = [block[frames] if number == film else block for number, block in enumerate(FILMS)]
        alone = FilmQueries("one", "picture", FEATURES[row:row + 1], np.array([film]))
        only = make_variants(shorter, REFERENCES, **SETTINGS, hub_top_k=5, alpha=0.5)[name]
        np.testing.assert_allclose(found[row], only.similarities(alone, "mean_unit")[0], atol=1e-6)


def test_unknown_names_and_lengths_are_refused():
    with pytest.raises(ValueError, match="Unknown variant 'RAM'. Known: CLIP, Eq. 1 on frames"):
        make_variants(FILMS, REFERENCES, names=("RAM",))
    with pytest.raises(ValueError, match="Unknown modality 'sound'. Known: text, picture"):
        FilmQueries("x", "sound", FEATURES, np.zeros(3, int))
    with pytest.raises(ValueError, match="Expected films for each of 3 queries, got 2"):
        FilmQueries("x", "text", FEATURES, np.zeros(2, int))
    with pytest.raises(ValueError, match="Expected kept for each of 3 queries, got 1"):
        FilmQueries("x", "text", FEATURES, np.zeros(3, int), [np.arange(2)])


def test_clip_alone_needs_no_references():
    assert list(make_variants(FILMS, None, names=("CLIP",))) == ["CLIP"]
