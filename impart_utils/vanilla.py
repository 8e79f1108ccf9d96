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
    v, r_img, r_txt = (np.asarray(block) for block in
                       (image_features, retrieved_image_features, retrieved_text_features))
    _check(v, r_img, r_txt)
    image_mean = r_img.mean(axis=1)  # (n, k, d) -> (n, d)
    text_mean = r_txt.mean(axis=1)   # (n, k, d) -> (n, d)
    return v + image_weight * image_mean + text_weight * text_mean


def augment_fused(image_features, neighbor_indices, reference_image_features, reference_text_features, *,
                  image_weight=0.5, text_weight=0.05, block=1000):
    r"""Eq. 1 from the indices of the neighbors, with one table instead of two gathers.

    With :math:`c_j = w_{img} r_{img,j} + w_{txt} r_{txt,j}`, Eq. 1 is
    :math:`v' = v + \frac{1}{k} \sum_i c_i`: equal to `augment` up to rounding, in half the work, and
    never more than `block` queries' neighbors in memory.

    Parameters
    ----------
    image_features : array (n, d);  neighbor_indices : int array (n, k), rows of the references
    reference_image_features, reference_text_features : arrays (m, d)
    """
    v, indices = np.asarray(image_features), np.asarray(neighbor_indices)
    table = image_weight * np.asarray(reference_image_features) + text_weight * np.asarray(reference_text_features)
    if v.ndim != 2 or table.ndim != 2 or table.shape[1] != v.shape[1]:
        raise ValueError(f"Expected references with the {v.shape[-1]} columns of image_features, got {table.shape}. "
                         "Encode both with the same model.")
    if indices.ndim != 2 or len(indices) != len(v) or indices.shape[1] == 0:
        raise ValueError(f"Expected neighbor_indices of shape ({len(v)}, k) with k >= 1, got {indices.shape}.")
    if len(v) and (indices.min() < 0 or indices.max() >= len(table)):
        raise ValueError(f"Expected neighbor_indices from 0 to {len(table) - 1}, "
                         f"got {indices.min()} to {indices.max()}.")
    result = np.empty(v.shape, dtype=np.result_type(v, table))
    for start in range(0, len(v), block):
        rows = slice(start, start + block)
        result[rows] = v[rows] + table[indices[rows]].mean(axis=1)  # (b, k, d) -> (b, d)
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
    for name, block in (("image_features", v), ("retrieved_image_features", r_img), ("retrieved_text_features", r_txt)):
        bad = ~np.isfinite(block).reshape(n, -1).all(axis=1)
        if bad.any():
            raise ValueError(f"Row {int(np.flatnonzero(bad)[0])} of {name} is not finite (NaN or infinity). "
                             "Encode that item again or leave it out.")
