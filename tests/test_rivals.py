"""Controls against hand-worked cases and the method's own Eq. 1."""

import numpy as np
import pytest

from impart_utils.evidence import rivals
from impart_utils.vanilla import augment


def test_random_neighbors_are_seeded_distinct_and_in_range():
    found = rivals.random_neighbors(500, 12, 8, seed=1)
    assert found.shape == (500, 8) and found.dtype == np.int64
    assert found.min() == 0 and found.max() == 11
    assert all(len(set(row)) == 8 for row in found.tolist())
    np.testing.assert_array_equal(found, rivals.random_neighbors(500, 12, 8, seed=1))
    assert (found != rivals.random_neighbors(500, 12, 8, seed=2)).any()


def test_random_neighbors_are_uniform_for_small_and_large_sets():
    for m, k in ((10, 3), (4, 4), (1000, 8)):
        counts = np.bincount(rivals.random_neighbors(6000, m, k, seed=0).ravel(), minlength=m)
        expected = 6000 * k / m
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_random_neighbors_with_k_equal_m_are_all_references():
    for row in rivals.random_neighbors(5, 4, 4, seed=0):
        assert sorted(row) == [0, 1, 2, 3]


@pytest.mark.parametrize("top_k", [0, 5])
def test_random_neighbors_refuse(top_k):
    with pytest.raises(ValueError, match=f"got top_k={top_k} with 4 references"):
        rivals.random_neighbors(3, 4, top_k, seed=0)


@pytest.mark.parametrize("m", [2, 3, 50])
@pytest.mark.parametrize("seed", range(5))
def test_shuffled_captions_keep_the_set_and_nobody_keeps_his_own(m, seed):
    texts = np.arange(2.0 * m).reshape(m, 2)
    shuffled = rivals.shuffled_captions(texts, seed=seed)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), texts)
    assert (shuffled != texts).all()
    np.testing.assert_array_equal(texts, np.arange(2.0 * m).reshape(m, 2))  # the original is untouched


def test_shuffled_captions_need_two():
    with pytest.raises(ValueError, match="at least two references to shuffle captions, got 1"):
        rivals.shuffled_captions(np.ones((1, 3)), seed=0)


def test_mean_of_all_by_hand():
    found = rivals.mean_of_all(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 4.0]]),
                               np.array([[1.0, 1.0], [3.0, 1.0]]), image_weight=0.5, text_weight=0.1)
    np.testing.assert_allclose(found, [[1 + 0.5 * 1 + 0.1 * 2, 0.5 * 2 + 0.1 * 1], [0.5 + 0.2, 1 + 1 + 0.1]])


def test_mean_of_all_is_eq_1_with_every_reference_as_neighbor():
    rng = np.random.default_rng(0)
    v, R_img, R_txt = rng.normal(size=(3, 5)), rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    everyone = np.tile(np.arange(7), (3, 1))
    np.testing.assert_allclose(rivals.mean_of_all(v, R_img, R_txt),
                               augment(v, R_img[everyone], R_txt[everyone]))
    with pytest.raises(ValueError, match=r"\(3, 5\), \(7, 5\) and \(6, 5\)"):
        rivals.mean_of_all(v, R_img, R_txt[:6])


def test_one_sided_weights_leave_the_other_side_out():
    v = np.zeros((1, 2))
    r_img, r_txt = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 1.0]]])
    np.testing.assert_allclose(augment(v, r_img, r_txt, **rivals.pictures_only(0.5, 0.05)), [[0.5, 0.0]])
    np.testing.assert_allclose(augment(v, r_img, r_txt, **rivals.captions_only(0.5, 0.05)), [[0.0, 0.05]])
