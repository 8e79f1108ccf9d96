"""Pooling frames, scoring and ranking films: against loops and by hand."""

import math

import numpy as np
import pytest

from impart_utils.film_scores import (
    POOLINGS,
    best_first,
    cosines,
    hub_bias,
    pool,
    rank_films,
    score_films,
)


def test_pooling_worked_by_hand():
    frames = np.array([[10, 0], [0, 1]], np.float32)
    np.testing.assert_allclose(pool(frames), [5, 0.5])            # the long vector rules
    np.testing.assert_allclose(pool(frames, "mean_unit"), [0.5, 0.5])
    assert pool(frames).dtype == np.float32


def test_the_two_means_agree_on_unit_frames_and_one_frame_is_its_own_mean():
    frames = np.random.default_rng(0).normal(size=(7, 5))
    unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    np.testing.assert_allclose(pool(unit), pool(frames, "mean_unit"), rtol=1e-6)
    np.testing.assert_allclose(pool(frames[:1]), frames[0], rtol=1e-6)


def test_pooling_that_needs_a_query_says_where_to_go():
    with pytest.raises(ValueError, match="Unknown pooling 'max'. Known: mean_raw, mean_unit; with a query"):
        pool(np.ones((2, 2)), "max")
    with pytest.raises(ValueError, match=r"Expected frame_features of shape \(rows, d\).*got \(0, 4\)"):
        pool(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="Row 1 of frame_features is zero or not finite"):
        pool(np.array([[1.0, 2.0], [np.nan, 1.0]]))


def cosine(a, b):
    return float(np.dot(a, b) / math.sqrt(np.dot(a, a) * np.dot(b, b)))


def slow_score(query, frames, how, tau, top_m):
    """One query and one film, frame by frame, after the formulas."""
    cosines = [cosine(query, frame) for frame in frames]
    units = [frame / math.sqrt(np.dot(frame, frame)) for frame in frames]
    if how == "max":
        return max(cosines)
    if how == "top_mean":
        best = sorted(cosines, reverse=True)[:top_m]
        return sum(best) / len(best)
    if how == "query_scored":
        weights = [math.exp(value / tau) for value in cosines]
        return cosine(query, sum(weight * unit for weight, unit in zip(weights, units, strict=True)))
    return cosine(query, sum(frames if how == "mean_raw" else units) / len(frames))


@pytest.mark.parametrize("how", POOLINGS)
def test_scores_equal_the_loop(how):
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(3, 6)) * [[1], [10], [0.1]]
    films = [rng.normal(size=(frames, 6)) * rng.uniform(1, 10, (frames, 1)) for frames in (1, 4, 9)]
    got = score_films(queries, films, how, tau=0.3, top_m=3)
    assert got.shape == (3, 3) and got.dtype == np.float32
    slow = [[slow_score(query, frames, how, 0.3, 3) for frames in films] for query in queries]
    np.testing.assert_allclose(got, slow, atol=2e-6)


def test_query_scored_lies_between_the_best_frame_and_the_mean():
    rng = np.random.default_rng(2)
    queries, films = rng.normal(size=(4, 8)), [rng.normal(size=(12, 8)) for _ in range(3)]
    np.testing.assert_allclose(score_films(queries, films, "query_scored", tau=1e-4),
                               score_films(queries, films, "max"), atol=1e-5)
    np.testing.assert_allclose(score_films(queries, films, "query_scored", tau=1e4),
                               score_films(queries, films, "mean_unit"), atol=1e-4)


def test_top_mean_lies_between_the_best_frame_and_the_mean_of_the_cosines():
    rng = np.random.default_rng(3)
    queries, films = rng.normal(size=(4, 8)), [rng.normal(size=(12, 8)) for _ in range(3)]
    np.testing.assert_array_equal(score_films(queries, films, "top_mean", top_m=1),
                                  score_films(queries, films, "max"))
    all_frames = np.stack([cosines(queries, frames).mean(axis=1) for frames in films], axis=1)
    np.testing.assert_allclose(score_films(queries, films, "top_mean", top_m=99), all_frames, atol=1e-6)


def test_score_films_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="Unknown pooling 'median'. Known: mean_raw, .*top_mean"):
        score_films(np.ones((1, 2)), [np.ones((1, 2))], "median")
    with pytest.raises(ValueError, match="at least one film, tau > 0 and top_m >= 1, got 0 films"):
        score_films(np.ones((1, 2)), [])
    with pytest.raises(ValueError, match="top_m=0"):
        score_films(np.ones((1, 2)), [np.ones((1, 2))], "top_mean", top_m=0)
    with pytest.raises(ValueError, match="tau=0"):
        score_films(np.ones((1, 2)), [np.ones((1, 2))], "query_scored", tau=0)


def test_ranking_worked_by_hand_whatever_the_norms():
    queries = np.array([[2.0, 0.0], [0.0, 0.1]])
    films = np.array([[0.0, 5.0], [100.0, 0.0], [3.0, 4.0]])
    similarities, order = rank_films(queries, films)
    np.testing.assert_allclose(similarities, [[0, 1, 0.6], [1, 0, 0.8]], atol=1e-6)
    assert order.tolist() == [[1, 2, 0], [0, 2, 1]]


def test_equal_films_are_ordered_by_row():
    rng = np.random.default_rng(0)  # at these sizes a float32 product gives equal columns unequal numbers
    films = rng.normal(size=(115, 512)).astype(np.float32)
    films[1::2] = films[1] * np.resize([1, 2, 4, 0.5], 57)[:, None]
    similarities, order = rank_films(rng.normal(size=(7, 512)), films)
    for row in range(7):
        assert len(set(similarities[row, 1::2].tolist())) == 1
        assert [film for film in order[row] if film % 2] == list(range(1, 115, 2))


def test_ranking_leaves_its_input_alone():
    films = np.full((2, 2), 3.0)
    rank_films(films, films)
    assert (films == 3).all()


@pytest.mark.parametrize(("queries", "films", "words"), [
    (np.ones((1, 3)), np.ones((2, 4)), r"one dimension, got \(1, 3\) and \(2, 4\)"),
    (np.array([[1, np.nan]]), np.ones((2, 2)), "Row 0 of query_features is zero or not finite"),
    (np.ones((1, 2)), np.array([[1, 1], [np.inf, 1]]), "Row 1 of film_features is zero or not finite"),
    (np.ones((1, 2)), np.array([[1.0, 1], [1, 2], [0, 0]]), "Row 2 of film_features is zero or not finite"),
    (np.ones(2), np.ones((2, 2)), r"Expected query_features of shape \(rows, d\)"),
    (np.ones((1, 2)), np.ones((0, 2)), r"Expected film_features of shape \(rows, d\) with at least one row"),
])
def test_ranking_refuses_bad_features(queries, films, words):
    with pytest.raises(ValueError, match=words):
        rank_films(queries, films)


def test_best_first_refuses_nan():
    with pytest.raises(ValueError, match="without NaN"):
        best_first(np.array([[0.1, np.nan]]))


# ---- NNN per film ------------------------------------------------------------------------------------

def test_hub_bias_worked_by_hand():
    films = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
    references = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]])  # cosines with film A: 1, .6, 0; B: 0, .8, 1
    np.testing.assert_allclose(hub_bias(references, films, top_k=2, alpha=0.5), [0.4, 0.45], atol=1e-6)
    np.testing.assert_allclose(hub_bias(references, films, top_k=3, alpha=1), [1.6 / 3, 0.6], atol=1e-6)


def test_a_hub_loses_its_lead_and_alpha_0_changes_nothing():
    rng = np.random.default_rng(3)
    texts = rng.normal(size=(300, 16)) + 1  # all lean the same way
    hub, right = texts.mean(axis=0), texts[0] + 2.2 * rng.normal(size=16)
    films = [hub[None], right[None]]
    plain = score_films(texts[:1], films)
    assert plain[0, 0] > plain[0, 1]
    corrected = plain - hub_bias(texts[100:], films, top_k=64, alpha=1.0)
    assert corrected[0, 1] > corrected[0, 0]
    np.testing.assert_array_equal(hub_bias(texts, films, alpha=0), [0, 0])


def test_hub_bias_needs_enough_references():
    with pytest.raises(ValueError, match="top_k=16 with 3. Lower top_k or give more"):
        hub_bias(np.ones((3, 2)), [np.ones((1, 2))])
