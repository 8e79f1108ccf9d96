"""RA-CLIP Vanilla, Eq. 1 of the paper, and nothing else: the method that needs no training."""

import numpy as np


def augment(image_features, retrieved_image_features, retrieved_text_features, *,
            image_weight=0.5, text_weight=0.05):
    r"""Add the weighted mean of the retrieved image and text features to each query (paper, Eq. 1).

    .. math:: v' = v + \frac{w_{img}}{k} \sum_{i=1}^{k} r_{img,i} + \frac{w_{txt}}{k} \sum_{i=1}^{k} r_{txt,i}

    Parameters
    ----------
    image_features : array (n, d), v: one row per query
    retrieved_image_features, retrieved_text_features : arrays (n, k, d), r_img and r_txt
    image_weight, text_weight : float, w_img and w_txt
        The paper names no values; these are its code's (branch main, k = 8).

    Returns
    -------
    augmented_features : array (n, d), v'
        Vectors are added as they are and not normalized, before or after. Whoever compares v' by
        cosine may leave out the code's division by 1 + w_img + w_txt: it changes no angle.

    Raises
    ------
    ValueError : shapes that don't fit together, no neighbor, or a value that isn't finite.
    """
    v, r_img, r_txt = (_at_least_single(block) for block in
                       (image_features, retrieved_image_features, retrieved_text_features))
    _check(v, r_img, r_txt)
    image_mean = r_img.mean(axis=1)  # (n, k, d) -> (n, d)
    text_mean = r_txt.mean(axis=1)   # (n, k, d) -> (n, d)
    return v + image_weight * image_mean + text_weight * text_mean


def augment_fused(image_features, neighbor_indices, reference_image_features, reference_text_features, *,
                  image_weight=0.5, text_weight=0.05, block=128):
    r"""Eq. 1 from the indices of the neighbors, with one table instead of two gathers.

    With :math:`c_j = w_{img} r_{img,j} + w_{txt} r_{txt,j}`, Eq. 1 is
    :math:`v' = v + \frac{1}{k} \sum_i c_i`: equal to `augment` up to rounding, in half the work, and
    never more than one neighbor of `block` queries in memory.

    Parameters
    ----------
    image_features : array (n, d);  neighbor_indices : int array (n, k), rows of the references
    reference_image_features, reference_text_features : arrays (m, d)

    Raises
    ------
    ValueError : shapes or indices that don't fit together, or a value that isn't finite.
    """
    indices = np.asarray(neighbor_indices)
    v, R_img, R_txt = (_at_least_single(block) for block in
                       (image_features, reference_image_features, reference_text_features))
    _check_fused(v, R_img, R_txt)
    if indices.ndim != 2 or len(indices) != len(v) or indices.shape[1] == 0:
        raise ValueError(f"Expected neighbor_indices of shape ({len(v)}, k) with k >= 1, "
                         f"got {indices.shape}.")
    if len(v) and (indices.min() < 0 or indices.max() >= len(R_img)):
        raise ValueError(f"Expected neighbor_indices from 0 to {len(R_img) - 1}, "
                         f"got {indices.min()} to {indices.max()}.")
    table = image_weight * R_img + text_weight * R_txt  # (m, d)
    result = np.empty(v.shape, dtype=np.result_type(v, table))
    for start in range(0, len(v), block):  # blocks whose sum stays in the processor's cache
        rows = slice(start, start + block)
        total = table[indices[rows, 0]]  # (b, d)
        for column in indices[rows, 1:].T:
            total += table[column]
        result[rows] = v[rows] + total / indices.shape[1]
    return result


def _check(v, r_img, r_txt):
    if v.ndim != 2:
        raise ValueError(f"Expected image_features of shape (n, d), got {v.shape}.")
    n, d = v.shape
    for name, block in (("image", r_img), ("text", r_txt)):
        if block.ndim != 3 or block.shape[0] != n or block.shape[2] != d:
            raise ValueError(f"Expected retrieved_{name}_features of shape ({n}, k, {d}), got {block.shape}. "
                             "Retrieve with the same model as the queries.")
        if block.shape[1] == 0:
            raise ValueError(f"Expected at least one neighbor in retrieved_{name}_features, got k=0.")
    if r_img.shape != r_txt.shape:
        raise ValueError(f"Expected as many retrieved texts as images, got k={r_txt.shape[1]} texts "
                         f"and k={r_img.shape[1]} images.")
    _check_finite(image_features=v, retrieved_image_features=r_img, retrieved_text_features=r_txt)


def _check_fused(v, R_img, R_txt):
    if v.ndim != 2 or R_img.ndim != 2 or R_img.shape[1] != v.shape[1]:
        raise ValueError(f"Expected references with the {v.shape[-1]} columns of image_features, "
                         f"got {R_img.shape}. Encode both with the same model.")
    if R_txt.shape != R_img.shape:
        raise ValueError(f"Expected reference_text_features of the images' shape {R_img.shape}, "
                         f"got {R_txt.shape}.")
    _check_finite(image_features=v, reference_image_features=R_img, reference_text_features=R_txt)


def _check_finite(**blocks):
    for name, block in blocks.items():
        bad = ~np.isfinite(block).all(axis=tuple(range(1, block.ndim)))
        if bad.any():
            raise ValueError(f"Row {int(np.flatnonzero(bad)[0])} of {name} is not finite (NaN or infinity). "
                             "Encode that item again or leave it out.")


def _at_least_single(block):
    """The array itself; half precision, in which sums lose digits, as float32."""
    block = np.asarray(block)
    return block.astype(np.float32) if block.dtype == np.float16 else block
