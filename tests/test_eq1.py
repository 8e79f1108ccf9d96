"""Eq. 1 as scores: the paper's code's weights, each against its formula written out in a loop."""

import numpy as np
import pytest

from impart_utils.evidence import eq1
from impart_utils.vanilla import augment
from impart_utils.zeroshot import logits, predict, unit


@pytest.fixture
def world():
    """Raw features: v (5, 6), R_img, R_txt (12, 6), W (4, 6) and 10 neighbors per query."""
    rng = np.random.default_rng(0)
    v, R_img, R_txt = (rng.normal(size=(n, 6)) * 10 for n in (5, 12, 12))
    indices = rng.permuted(np.tile(np.arange(12), (5, 1)), axis=1)[:, :10]
    return v, R_img, R_txt, rng.normal(size=(4, 6)), indices


def slow(v, R_img, R_txt, W, indices, w0, w_img, w_txt, k, divide, scale):
    """The formula of original_code.md §1, query by query and neighbor by neighbor."""
    scores = np.zeros((len(v), len(W)))
    for row, query in enumerate(v):
        total = w0 * (query if scale == "raw" else query / np.linalg.norm(query))
        for j in indices[row][:k]:
            picture = R_img[j] if scale == "raw" else R_img[j] / np.linalg.norm(R_img[j])
            text = R_txt[j] / np.linalg.norm(R_txt[j]) if scale == "unit" else R_txt[j]
            total = total + (w_img * picture + w_txt * text) / (k if divide else 1)
        total = total / (w0 + w_img + w_txt)  # the code divides; it changes no angle
        for c, name in enumerate(W):
            scores[row, c] = 100 * total @ name / np.linalg.norm(total) / np.linalg.norm(name)
    return scores


@pytest.mark.parametrize("commit, formula", [  # original_code.md, the table of §1, typed in again
    ("main", (1, 0.5, 0.05, 8, True, "raw")), ("jalend", (1, 0.05, 0.05, 8, True, "mixed")),
    ("dcf3e1e", (1, 0.5, 0, 8, True, "unit")), ("c234231", (1, 0.5, 0.5, 5, False, "mixed")),
    ("b92e175", (1, 0.005, 0.005, 5, False, "raw")), ("e41db07", (1, 0.005, 0.005, 5, False, "mixed")),
    ("archana", (1, 0.5, 0.5, 5, False, "raw"))])
def test_each_commit_equals_its_formula(world, commit, formula):
    np.testing.assert_allclose(eq1.eq1_of_commit(*world, commit=commit), slow(*world, *formula), atol=1e-9)


def test_the_early_sketch_is_the_mean_of_query_and_five_texts(world):
    v, _, R_txt, W, indices = world
    means = np.array([np.mean([v[row], *R_txt[indices[row, :5]]], axis=0) for row in range(5)])
    np.testing.assert_allclose(eq1.eq1_of_commit(*world, commit="veera"), logits(means, W))


def test_every_commit_is_tested_and_unknown_ones_are_refused(world):
    tested = {"main", "jalend", "dcf3e1e", "c234231", "b92e175", "e41db07", "archana", "veera"}
    assert set(eq1.PAPER_WEIGHTS) == tested
    with pytest.raises(ValueError, match="Unknown commit 'master'. Known: main, jalend"):
        eq1.eq1_of_commit(*world, commit="master")


def test_default_is_vanilla_on_unit_vectors(world):
    v, R_img, R_txt, W, indices = world
    nearest = indices[:, :8]
    augmented = augment(unit(v), unit(R_img)[nearest], unit(R_txt)[nearest])
    scores = eq1.eq1(*world)
    np.testing.assert_allclose(scores, logits(augmented, W))
    np.testing.assert_array_equal(scores.argmax(axis=1), predict(augmented, W))


def test_by_hand():
    # v = (1, 0), the neighbor's picture and text (0, 1) with 0.5 and 0.25: v' = (1, 0.75), of length 1.25
    one = np.array([[0.0, 1.0]])
    scores = eq1.eq1(np.array([[1.0, 0.0]]), one, one, np.eye(2), np.array([[0]]), top_k=1, image_weight=0.5,
                     text_weight=0.25)
    np.testing.assert_allclose(scores, [[80, 60]])
    doubled = eq1.eq1(np.array([[1.0, 0.0]]), np.tile(one, (2, 1)), np.tile(one, (2, 1)), np.eye(2),
                      np.array([[0, 1]]), top_k=2, image_weight=0.5, text_weight=0.25, combine="sum")
    np.testing.assert_allclose(doubled, np.array([[1, 1.5]]) / np.hypot(1, 1.5) * 100)


def test_the_summed_raw_texts_call_a_chair_a_car():
    """original_code.md §3: with 0.5/0.5 summed and raw text a chair was 98.42 % car; the query is drowned."""
    chair, car = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    v, R_img, R_txt = chair[None], np.tile([0.8, 0.6], (5, 1)), np.tile(10 * car, (5, 1))
    indices, W = np.arange(5)[None], np.stack([chair, car])
    assert eq1.eq1(v, R_img, R_txt, W, indices, top_k=5).argmax() == 0
    assert eq1.eq1_of_commit(v, R_img, R_txt, W, indices, commit="c234231").argmax() == 1


def test_commits_for_says_what_the_norms_allow(world):
    v, R_img, R_txt, _, _ = world
    everything = list(eq1.PAPER_WEIGHTS)
    assert eq1.commits_for(v, R_img, R_txt) == everything
    assert eq1.commits_for(unit(v), unit(R_img), R_txt) == ["jalend", "dcf3e1e", "c234231", "e41db07"]
    assert eq1.commits_for(v, R_img, unit(R_txt)) == ["dcf3e1e"]
    with pytest.raises(ValueError, match="scale='raw' needs raw vectors"):
        eq1.eq1(unit(v), unit(R_img), R_txt, *world[3:], scale="raw")


def test_refused(world):
    with pytest.raises(ValueError, match=r"at least top_k=11 >= 1 columns, got \(5, 10\)"):
        eq1.eq1(*world, top_k=11)
    with pytest.raises(ValueError, match="top_k=0 >= 1"):
        eq1.eq1(*world, top_k=0)
    with pytest.raises(ValueError, match="Unknown combine 'max'. Known: mean, sum"):
        eq1.eq1(*world, combine="max")
