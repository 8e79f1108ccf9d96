"""Controls: what any method that uses neighbors must beat before "retrieval helps" may be said.

Each changes one thing and leaves the rest of Eq. 1 as it is, so its result goes through the same
`vanilla.augment_fused` or `reference.vanilla_features` as the method's own (DESIGN.md, §6.4).
"""

import numpy as np


def random_neighbors(n, m, top_k, *, seed):
    """Neighbors drawn at random: the same number of pairs, none of the retrieval.

    Parameters
    ----------
    n, m, top_k : int, queries, references and k
    seed : int

    Returns
    -------
    indices : int64 array (n, k), rows of the references, each at most once per query; give it as
        `neighbor_indices` wherever the nearest would go. Source: literature.md §2, "controls".

    Raises
    ------
    ValueError : top_k below 1 or above m.
    """
    if not 1 <= top_k <= m:
        raise ValueError(f"Expected 1 <= top_k <= number of references, got top_k={top_k} with {m} "
                         "references. Lower top_k or use a larger reference set.")
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, m, size=(n, top_k))
    # redraw the few rows in which a reference came twice; where k is close to m, shuffle instead
    for row in np.flatnonzero([len(set(row)) < top_k for row in indices.tolist()]):
        indices[row] = rng.choice(m, size=top_k, replace=False)
    return indices


def shuffled_captions(reference_text_features, *, seed):
    """Each picture with another picture's caption: the texts as a set stay, what they say of a picture goes.

    Parameters
    ----------
    reference_text_features : array (m, d), m >= 2

    Returns
    -------
    text_features : array (m, d), the rows permuted so that none stays in its place
    """
    texts = np.asarray(reference_text_features)
    if len(texts) < 2:
        raise ValueError(f"Expected at least two references to shuffle captions, got {len(texts)}.")
    order = np.random.default_rng(seed).permutation(len(texts))
    shuffled = np.empty_like(texts)
    shuffled[order] = texts[np.roll(order, 1)]  # around one circle through all rows: nobody keeps his own
    return shuffled


def mean_of_all(image_features, reference_image_features, reference_text_features, *, image_weight=0.5,
                text_weight=0.05):
    r"""Eq. 1 with k = m: one and the same vector is added to every query, whatever is in the picture.

    .. math:: v' = v + \frac{w_{img}}{m} \sum_{j=1}^{m} r_{img,j} + \frac{w_{txt}}{m} \sum_{j=1}^{m} r_{txt,j}

    Parameters
    ----------
    image_features : array (n, d);  reference_…_features : arrays (m, d)

    Returns
    -------
    augmented_features : array (n, d)
    """
    v, R_img, R_txt = (np.asarray(block) for block in
                       (image_features, reference_image_features, reference_text_features))
    if v.ndim != 2 or R_img.ndim != 2 or R_img.shape != R_txt.shape or R_img.shape[1:] != v.shape[1:]:
        raise ValueError(f"Expected image_features (n, d) and references (m, d) with one d, got {v.shape}, "
                         f"{R_img.shape} and {R_txt.shape}.")
    return v + image_weight * R_img.mean(axis=0) + text_weight * R_txt.mean(axis=0)


def pictures_only(image_weight, text_weight):
    """The weights of Eq. 1 without its caption term: what do the neighbors' pictures do alone?"""
    return {"image_weight": image_weight, "text_weight": 0.0}


def captions_only(image_weight, text_weight):
    """The weights of Eq. 1 without its image term: what do the neighbors' captions do alone?"""
    return {"image_weight": 0.0, "text_weight": text_weight}
