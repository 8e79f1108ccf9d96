"""Eq. 1: values worked by hand, a slow loop, limits, and its identity as a sum of logits."""

import numpy as np
import pytest

from impart_utils.vanilla import augment, augment_fused


def features(n=6, m=9, k=3, d=5, seed=0):
    """Queries, references and neighbors of no particular length, as CLIP gives them."""
    rng = np.random.default_rng(seed)
    v, R_img, R_txt = (rng.normal(0, 3, (rows, d)).astype(np.float32) for rows in (n, m, m))
    indices = np.array([rng.choice(m, k, replace=False) for _ in range(n)])
    return v, R_img, R_txt, indices


def slow_augment(v, r_img, r_txt, image_weight, text_weight):
    """Eq. 1 one number at a time, in Python's own floats."""
    n, k, d = len(v), len(r_img[0]), len(v[0])
    result = [[0.0] * d for _ in range(n)]
    for query in range(n):
        for column in range(d):
            image_sum = text_sum = 0.0
            for neighbor in range(k):
                image_sum += float(r_img[query][neighbor][column])
                text_sum += float(r_txt[query][neighbor][column])
            result[query][column] = (float(v[query][column]) + image_weight / k * image_sum
                                     + text_weight / k * text_sum)
    return np.array(result)


def test_one_neighbor_by_hand():
    # v + 0.5 r_img + 0.25 r_txt = (1, 2) + (2, 0) + (1, -2)
    result = augment([[1.0, 2.0]], [[[4.0, 0.0]]], [[[4.0, -8.0]]], image_weight=0.5, text_weight=0.25)
    np.testing.assert_array_equal(result, [[4.0, 0.0]])


def test_two_neighbors_by_hand_mean_not_sum():
    # means: images (2, 2), texts (0, -4); v' = (1, 0) + 0.5 (2, 2) + 0.25 (0, -4)
    result = augment([[1.0, 0.0]], [[[4.0, 0.0], [0.0, 4.0]]], [[[2.0, -8.0], [-2.0, 0.0]]],
                     image_weight=0.5, text_weight=0.25)
    np.testing.assert_array_equal(result, [[2.0, 0.0]])


def test_default_weights_are_those_of_the_papers_code():
    # 1 + 0.5 * 2 + 0.05 * 20 = 3, with no division by 1.55
    result = augment([[1.0]], [[[2.0]]], [[[20.0]]])
    np.testing.assert_allclose(result, [[3.0]], rtol=1e-12)
    fused = augment_fused([[1.0]], [[0]], [[2.0]], [[20.0]])
    np.testing.assert_allclose(fused, [[3.0]], rtol=1e-12)


@pytest.mark.parametrize("n, k, d", [(1, 1, 1), (4, 3, 5), (7, 8, 2)])
@pytest.mark.parametrize("image_weight, text_weight", [(0.5, 0.05), (1.7, -0.4), (0.0, 1.0)])
def test_equals_the_slow_loop(n, k, d, image_weight, text_weight):
    rng = np.random.default_rng(n * 100 + k * 10 + d)
    v, r_img, r_txt = rng.normal(size=(n, d)), rng.normal(size=(n, k, d)), rng.normal(size=(n, k, d))
    result = augment(v, r_img, r_txt, image_weight=image_weight, text_weight=text_weight)
    np.testing.assert_allclose(result, slow_augment(v, r_img, r_txt, image_weight, text_weight), atol=1e-12)


def test_weights_of_zero_leave_the_queries_as_they_are():
    v, R_img, R_txt, indices = features()
    result = augment(v, R_img[indices], R_txt[indices], image_weight=0, text_weight=0)
    np.testing.assert_array_equal(result, v)


def test_a_weight_of_zero_ignores_that_block_alone():
    v, R_img, R_txt, indices = features()
    without_text = augment(v, R_img[indices], R_txt[indices], image_weight=0.5, text_weight=0)
    other_text = augment(v, R_img[indices], 100 * R_txt[indices], image_weight=0.5, text_weight=0)
    np.testing.assert_array_equal(without_text, other_text)
    with_text = augment(v, R_img[indices], R_txt[indices], image_weight=0.5, text_weight=0.05)
    assert not np.allclose(with_text, without_text)
    without_image = augment(v, R_img[indices], R_txt[indices], image_weight=0, text_weight=0.05)
    np.testing.assert_allclose(without_image - v, 0.05 * R_txt[indices].mean(axis=1), atol=1e-6)


def test_all_references_as_neighbors_add_the_global_means():
    v, R_img, R_txt, _ = features(m=9)
    everything = np.tile(np.arange(9), (len(v), 1))
    result = augment(v, R_img[everything], R_txt[everything], image_weight=0.5, text_weight=0.3)
    np.testing.assert_allclose(result, v + 0.5 * R_img.mean(axis=0) + 0.3 * R_txt.mean(axis=0), atol=1e-5)


def test_order_of_the_neighbors_does_not_matter():
    v, R_img, R_txt, indices = features(k=4)
    there = augment(v, R_img[indices], R_txt[indices])
    back = augment(v, R_img[indices[:, ::-1]], R_txt[indices[:, ::-1]])
    np.testing.assert_allclose(there, back, atol=1e-5)


def test_linear_in_the_query():
    v, R_img, R_txt, indices = features()
    shift = np.arange(5, dtype=np.float32)
    moved = augment(v + shift, R_img[indices], R_txt[indices])
    np.testing.assert_allclose(
        moved - augment(v, R_img[indices], R_txt[indices]), np.tile(shift, (6, 1)), atol=1e-5
    )


def test_vectors_are_neither_normalized_before_nor_after():
    v, R_img, R_txt, indices = features()
    once = augment(v, R_img[indices], R_txt[indices])
    tenfold = augment(10 * v, 10 * R_img[indices], 10 * R_txt[indices])
    np.testing.assert_allclose(tenfold, 10 * once, rtol=1e-4, atol=1e-4)
    assert np.abs(np.linalg.norm(once, axis=1) - 1).min() > 0.5


def test_inputs_stay_untouched():
    v, R_img, R_txt, indices = features()
    r_img, r_txt = R_img[indices], R_txt[indices]
    before = [block.copy() for block in (v, r_img, r_txt, R_img, R_txt, indices)]
    augment(v, r_img, r_txt)
    augment_fused(v, indices, R_img, R_txt)
    for block, copy in zip((v, r_img, r_txt, R_img, R_txt, indices), before, strict=True):
        np.testing.assert_array_equal(block, copy)


def test_result_is_a_new_array_even_for_weights_of_zero():
    v, R_img, R_txt, indices = features()
    result = augment(v, R_img[indices], R_txt[indices], image_weight=0, text_weight=0)
    result += 1
    assert not np.shares_memory(result, v)


def test_float32_stays_float32():
    v, R_img, R_txt, indices = features()
    assert augment(v, R_img[indices], R_txt[indices]).dtype == np.float32
    assert augment_fused(v, indices, R_img, R_txt).dtype == np.float32


@pytest.mark.parametrize("block", [1, 4, 6, 1000])
def test_fused_equals_the_plain_form(block):
    v, R_img, R_txt, indices = features(n=6, m=20, k=8, d=16)
    plain = augment(v, R_img[indices], R_txt[indices], image_weight=0.5, text_weight=0.05)
    fused = augment_fused(v, indices, R_img, R_txt, image_weight=0.5, text_weight=0.05, block=block)
    assert fused.shape == plain.shape
    assert np.abs(fused - plain).max() <= 1e-6 * np.abs(plain).max()


def test_fused_equals_the_plain_form_for_unit_vectors_within_1e_6():
    v, R_img, R_txt, indices = features(n=50, m=40, k=8, d=64)
    v, R_img, R_txt = (block / np.linalg.norm(block, axis=1, keepdims=True) for block in (v, R_img, R_txt))
    plain, fused = augment(v, R_img[indices], R_txt[indices]), augment_fused(v, indices, R_img, R_txt)
    assert np.abs(fused - plain).max() <= 1e-6


def test_no_query_gives_no_row():
    assert augment(np.zeros((0, 4)), np.zeros((0, 2, 4)), np.zeros((0, 2, 4))).shape == (0, 4)
    assert augment_fused(np.zeros((0, 4)), np.zeros((0, 2), int), np.ones((3, 4)), np.ones((3, 4))).shape == (
        0,
        4,
    )


def test_eq_1_is_a_logit_ensemble():
    """literature.md, section 1: scores of v' = scores of the query + w_img · those of the mean neighbor
    + w_txt · those of the mean caption; the norm of v' changes no argmax."""
    rng = np.random.default_rng(4)
    v, R_img, R_txt, indices = features(n=200, m=60, k=8, d=12)
    W = rng.normal(size=(7, 12))
    W /= np.linalg.norm(W, axis=1, keepdims=True)  # (c, d)
    w_img, w_txt = 0.8, 0.6
    v_prime = augment(
        v.astype(np.float64), R_img[indices], R_txt[indices], image_weight=w_img, text_weight=w_txt
    )
    ensemble = (
        v @ W.T + w_img * (R_img[indices].mean(axis=1) @ W.T) + w_txt * (R_txt[indices].mean(axis=1) @ W.T)
    )
    np.testing.assert_allclose(v_prime @ W.T, ensemble, atol=1e-4)
    cosines = (v_prime / np.linalg.norm(v_prime, axis=1, keepdims=True)) @ W.T
    np.testing.assert_array_equal(cosines.argmax(axis=1), ensemble.argmax(axis=1))
    assert (ensemble.argmax(axis=1) != (v @ W.T).argmax(axis=1)).any()  # the references do change predictions


@pytest.mark.parametrize("shapes, message", [
    (((4,), (4, 2, 4), (4, 2, 4)), r"Expected image_features of shape \(n, d\), got \(4,\)"),
    (((3, 4), (3, 4), (3, 2, 4)), r"retrieved_image_features of shape \(3, k, 4\), got \(3, 4\)"),
    (((3, 4), (2, 2, 4), (3, 2, 4)), r"retrieved_image_features of shape \(3, k, 4\), got \(2, 2, 4\)"),
    (((3, 4), (3, 2, 5), (3, 2, 4)), r"got \(3, 2, 5\)\. Retrieve with the same model"),
    (((3, 4), (3, 2, 4), (3, 2, 6)), r"retrieved_text_features of shape \(3, k, 4\), got \(3, 2, 6\)"),
    (((3, 4), (3, 0, 4), (3, 2, 4)), r"at least one neighbor in retrieved_image_features, got k=0"),
    (((3, 4), (3, 2, 4), (3, 0, 4)), r"at least one neighbor in retrieved_text_features, got k=0"),
    (((3, 4), (3, 2, 4), (3, 5, 4)), r"as many retrieved texts as images, got k=5 texts and k=2 images"),
])
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        augment(*(np.ones(shape) for shape in shapes))


@pytest.mark.parametrize("name, place", [("image_features", (2,)), ("retrieved_image_features", (2, 1)),
                                         ("retrieved_text_features", (2, 0))])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_by_row(name, place, value):
    blocks = {"image_features": np.ones((4, 3)), "retrieved_image_features": np.ones((4, 2, 3)),
              "retrieved_text_features": np.ones((4, 2, 3))}
    blocks[name][(*place, 1)] = value
    with pytest.raises(ValueError, match=rf"Row 2 of {name} is not finite"):
        augment(**blocks)


@pytest.mark.parametrize("indices, message", [
    (np.zeros(3, int), r"neighbor_indices of shape \(3, k\) with k >= 1, got \(3,\)"),
    (np.zeros((2, 2), int), r"neighbor_indices of shape \(3, k\) with k >= 1, got \(2, 2\)"),
    (np.zeros((3, 0), int), r"neighbor_indices of shape \(3, k\) with k >= 1, got \(3, 0\)"),
    (np.array([[0, 1], [2, 5], [0, 0]]), r"neighbor_indices from 0 to 4, got 0 to 5"),
    (np.array([[0, 1], [2, -1], [0, 0]]), r"neighbor_indices from 0 to 4, got -1 to 2"),
])
def test_fused_refuses_indices_that_do_not_fit(indices, message):
    with pytest.raises(ValueError, match=message):
        augment_fused(np.ones((3, 4)), indices, np.ones((5, 4)), np.ones((5, 4)))


def test_fused_refuses_references_of_another_dimension():
    with pytest.raises(ValueError, match=r"with the 4 columns of image_features, got \(5, 3\)"):
        augment_fused(np.ones((3, 4)), np.zeros((3, 1), int), np.ones((5, 3)), np.ones((5, 3)))


@pytest.mark.parametrize("texts", [(1, 4), (4, 4), (4,)])
def test_fused_refuses_another_number_of_texts_than_images(texts):
    with pytest.raises(ValueError, match="reference_text_features|as many reference texts"):
        augment_fused(np.ones((3, 4)), np.zeros((3, 1), int), np.ones((5, 4)), np.ones(texts))


@pytest.mark.parametrize("which", ["image_features", "reference_image_features", "reference_text_features"])
def test_fused_refuses_nan_too(which):
    blocks = {"image_features": np.ones((3, 4)), "reference_image_features": np.ones((5, 4)),
              "reference_text_features": np.ones((5, 4))}
    blocks[which][2, 1] = np.nan
    with pytest.raises(ValueError, match=f"Row 2 of {which} is not finite"):
        augment_fused(neighbor_indices=np.full((3, 1), 2), **blocks)
