"""Controls against hand-worked cases and the method's own Eq. 1."""

import numpy as np
import pytest

from impart_utils.evidence import controls
from impart_utils.evidence.eq1 import eq1
from impart_utils.retrieval import Retriever
from impart_utils.vanilla import augment
from impart_utils.zeroshot import logits, unit


@pytest.fixture
def world():
    """Raw features: v (9, 6), R_img, R_txt (20, 6), W (4, 6) and the 8 nearest neighbors."""
    rng = np.random.default_rng(3)
    v, R_img, R_txt = (rng.normal(size=(n, 6)) * 10 for n in (9, 20, 20))
    return v, R_img, R_txt, rng.normal(size=(4, 6)), Retriever(R_img).search(v, 8)[1]


# ---- Random neighbors


def test_random_neighbors_are_seeded_distinct_and_in_range():
    found = controls.random_neighbors(500, 100, 8, seed=1)
    assert found.shape == (500, 8) and found.dtype == np.int64
    assert found.min() == 0 and found.max() == 99
    assert all(len(set(row)) == 8 for row in found.tolist())
    np.testing.assert_array_equal(found, controls.random_neighbors(500, 100, 8, seed=1))
    assert (found != controls.random_neighbors(500, 100, 8, seed=2)).any()


@pytest.mark.parametrize("m, k", [(10, 3), (12, 8), (4, 4), (1000, 8), (50, 40)])
def test_random_neighbors_are_distinct_and_every_column_is_uniform(m, k):
    found = controls.random_neighbors(6000, m, k, seed=0)
    assert all(len(set(row)) == k for row in found.tolist())
    for column in (0, k - 1):  # a surface over k takes the first columns only
        counts = np.bincount(found[:, column], minlength=m)
        assert np.abs(counts - 6000 / m).max() < 5 * np.sqrt(6000 / m)
    assert np.abs(np.bincount(found.ravel(), minlength=m) - 6000 * k / m).max() < 5 * np.sqrt(6000 * k / m)


def test_random_neighbors_with_k_equal_m_are_all_references():
    for row in controls.random_neighbors(5, 4, 4, seed=0):
        assert sorted(row) == [0, 1, 2, 3]
    assert controls.random_neighbors(0, 4, 4, seed=0).shape == (0, 4)


@pytest.mark.parametrize("top_k", [0, 5])
def test_random_neighbors_refuse(top_k):
    with pytest.raises(ValueError, match=f"got top_k={top_k} with 4 references"):
        controls.random_neighbors(3, 4, top_k, seed=0)


# ---- Captions


@pytest.mark.parametrize("m", [2, 3, 50])
@pytest.mark.parametrize("seed", range(5))
def test_shuffled_captions_keep_the_set_and_nobody_keeps_his_own(m, seed):
    texts = np.arange(2.0 * m).reshape(m, 2)
    shuffled = controls.shuffled_captions(texts, seed=seed)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), texts)
    assert (shuffled != texts).all()
    np.testing.assert_array_equal(texts, np.arange(2.0 * m).reshape(m, 2))  # the original is untouched


@pytest.mark.parametrize("share, moved", [(0.0, 0), (0.05, 0), (0.1, 2), (0.5, 10), (1.0, 20)])
def test_a_share_of_captions_is_shuffled(share, moved):
    texts = np.arange(40.0).reshape(20, 2)
    shuffled = controls.shuffled_captions(texts, seed=0, share=share)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), texts)
    assert (shuffled[:, 0] != texts[:, 0]).sum() == moved  # one caption alone has nobody to change with


def test_shuffled_captions_refuse():
    with pytest.raises(ValueError, match="at least two references to shuffle captions, got 1"):
        controls.shuffled_captions(np.ones((1, 3)), seed=0)
    with pytest.raises(ValueError, match="share from 0 to 1, got 50"):
        controls.shuffled_captions(np.ones((3, 3)), seed=0, share=50)


# ---- Mean of all, noise


def test_mean_of_all_by_hand():
    found = controls.mean_of_all(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 4.0]]),
                                 np.array([[1.0, 1.0], [3.0, 1.0]]), image_weight=0.5, text_weight=0.1)
    np.testing.assert_allclose(found, [[1 + 0.5 * 1 + 0.1 * 2, 0.5 * 2 + 0.1 * 1], [0.5 + 0.2, 1 + 1 + 0.1]])


def test_mean_of_all_is_eq_1_with_every_reference_as_neighbor():
    rng = np.random.default_rng(0)
    v, R_img, R_txt = rng.normal(size=(3, 5)), rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    everyone = np.tile(np.arange(7), (3, 1))
    np.testing.assert_allclose(controls.mean_of_all(v, R_img, R_txt),
                               augment(v, R_img[everyone], R_txt[everyone]))
    with pytest.raises(ValueError, match=r"\(3, 5\), \(7, 5\) and \(6, 5\)"):
        controls.mean_of_all(v, R_img, R_txt[:6])


def test_gaussian_references_keep_lengths_and_point_everywhere():
    features = np.random.default_rng(0).normal(size=(4000, 16)) + 5  # all to one side
    noise = controls.gaussian_references(features, seed=1)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), np.linalg.norm(features, axis=1), rtol=1e-5)
    assert np.linalg.norm(unit(noise).mean(axis=0)) < 0.05 < np.linalg.norm(unit(features).mean(axis=0))
    np.testing.assert_array_equal(noise, controls.gaussian_references(features, seed=1))
    assert (noise != controls.gaussian_references(features, seed=2)).any()


# ---- All in one form


def test_each_control_changes_what_it_says_and_nothing_else(world):
    v, R_img, R_txt, _, indices = (unit(part) if part.dtype != int else part for part in world)
    made = {name: controls.changed(name, v, R_img, R_txt, indices, seed=4) for name in controls.CONTROLS}
    for name, kept in {"random neighbors": (True, True, False), "shuffled captions": (True, False, True),
                       "captions only": (False, True, True), "pictures only": (True, False, True),
                       "neighbors by caption": (True, True, False)}.items():
        pairs = zip(made[name], (R_img, R_txt, indices), strict=True)
        assert tuple(np.array_equal(a, b) for a, b in pairs) == kept, name
    assert not made["captions only"][0].any() and not made["pictures only"][1].any()
    np.testing.assert_array_equal(made["neighbors by caption"][2], Retriever(R_txt).search(v, 8)[1])
    noise, texts, found = made["Gaussian references"]
    np.testing.assert_array_equal(found, Retriever(noise).search(v, 8)[1])
    assert not np.allclose(noise, texts)  # pictures and texts are drawn apart


def test_scores_of_each_control_equal_its_formula(world):
    v, R_img, R_txt, W, indices = world
    scores = {name: controls.control_scores(name, *world, seed=4, image_weight=0.7, text_weight=0.3)
              for name in controls.CONTROLS}
    u, P, T = unit(v), unit(R_img), unit(R_txt)
    nearest = P[indices].mean(axis=1), T[indices].mean(axis=1)
    at_random = controls.random_neighbors(9, 20, 8, seed=4)
    shuffled = controls.shuffled_captions(T, seed=4)[indices].mean(axis=1)
    expected = {
        "random neighbors": u + 0.7 * P[at_random].mean(axis=1) + 0.3 * T[at_random].mean(axis=1),
        "shuffled captions": u + 0.7 * nearest[0] + 0.3 * shuffled,
        "mean of all references": controls.mean_of_all(u, P, T, image_weight=0.7, text_weight=0.3),
        "captions only": u + 0.3 * nearest[1], "pictures only": u + 0.7 * nearest[0]}
    for name, augmented in expected.items():
        np.testing.assert_allclose(scores[name], logits(augmented, W), err_msg=name)


def test_controls_use_the_same_scales_and_k_as_the_method(world):
    v, R_img, R_txt, W, indices = world
    for scale in ("unit", "raw", "mixed"):
        ours = controls.control_scores("pictures only", *world, top_k=3, image_weight=0.2, scale=scale)
        np.testing.assert_allclose(ours, eq1(*world, top_k=3, image_weight=0.2, text_weight=0, scale=scale))


def test_controls_are_seeded_and_unknown_ones_refused(world):
    for name in ("random neighbors", "shuffled captions", "Gaussian references"):
        a, b, other = (controls.control_scores(name, *world, seed=seed, text_weight=0.5)
                       for seed in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert (a != other).any()
    with pytest.raises(ValueError, match="Unknown control 'no neighbors'. Known: random neighbors, shuffled"):
        controls.control_scores("no neighbors", *world)


def test_inputs_are_left_as_they_are(world):
    before = [part.copy() for part in world]
    for name in controls.CONTROLS:
        controls.control_scores(name, *world)
    for part, copy in zip(world, before, strict=True):
        np.testing.assert_array_equal(part, copy)
