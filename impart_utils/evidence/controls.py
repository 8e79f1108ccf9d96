"""Controls: what any method that uses neighbors must beat before "retrieval helps" may be said.

Each changes one thing and leaves the rest of Eq. 1 as it is (DESIGN.md, §6.4). CONTROLS works on vectors
that are already scaled (`reference.scaled`), so that a control goes through the same scores, the same
surface of weights (surface.py) and the same tuning (tuning.py) as the method.
"""

import numpy as np

from impart_utils.evidence.eq1 import as_scaled, first_neighbors
from impart_utils.retrieval import Retriever
from impart_utils.vanilla import augment_fused
from impart_utils.zeroshot import logits


def random_neighbors(n, m, top_k, *, seed):
    """Neighbors drawn at random: the same number of pairs, none of the retrieval.

    Parameters
    ----------
    n, m, top_k : int, queries, references and k
    seed : int

    Returns
    -------
    indices : int64 array (n, k), rows of the references, each at most once per query; give it as
        `neighbor_indices` wherever the nearest would go.

    Raises
    ------
    ValueError : top_k below 1 or above m.
    """
    if not 1 <= top_k <= m:
        raise ValueError(f"Expected 1 <= top_k <= number of references, got top_k={top_k} with {m} "
                         "references. Lower top_k or use a larger reference set.")
    rng = np.random.default_rng(seed)
    if top_k**2 > m:  # a reference would come twice in most rows: order the references by random keys
        block = max(1, 4_000_000 // m)
        return np.concatenate([_smallest(rng.random((min(block, n - start), m)), top_k)
                               for start in range(0, n, block)] or [np.empty((0, top_k), np.int64)])
    indices = rng.integers(0, m, size=(n, top_k))
    for row in np.flatnonzero([len(set(row)) < top_k for row in indices.tolist()]):  # redraw those few
        indices[row] = rng.choice(m, size=top_k, replace=False)
    return indices


def _smallest(keys, count):
    """Columns of the `count` smallest keys of each row, rising: its first columns are as random as all."""
    found = keys.argpartition(count - 1, axis=1)[:, :count]
    return np.take_along_axis(found, np.take_along_axis(keys, found, axis=1).argsort(axis=1), axis=1)


def shuffled_captions(reference_text_features, *, seed, share=1.0):
    """Each picture with another picture's caption: the texts as a set stay, what they say of a picture goes.

    Parameters
    ----------
    reference_text_features : array (m, d), m >= 2
    share : float from 0 to 1, how many of the pairs lose their caption to another (below two of them: none)

    Returns
    -------
    text_features : array (m, d); of the rows drawn none stays in its place, the others all do
    """
    texts = np.asarray(reference_text_features)
    if len(texts) < 2:
        raise ValueError(f"Expected at least two references to shuffle captions, got {len(texts)}.")
    if not 0 <= share <= 1:
        raise ValueError(f"Expected a share from 0 to 1, got {share!r}.")
    order = np.random.default_rng(seed).permutation(len(texts))[:round(share * len(texts))]
    shuffled = texts.copy()
    if len(order) > 1:
        shuffled[order] = texts[np.roll(order, 1)]  # around one circle: nobody keeps his own
    return shuffled


def gaussian_references(features, *, seed):
    """Noise in place of features: random directions, each row as long as the row it replaces.

    Parameters
    ----------
    features : array (m, d)

    Returns
    -------
    noise : float32 array (m, d)
    """
    features = np.asarray(features, dtype=np.float32)
    noise = np.random.default_rng(seed).standard_normal(features.shape, dtype=np.float32)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return noise * (lengths / np.linalg.norm(noise, axis=1, keepdims=True))


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


# ---- All of them in one form: (v, R_img, R_txt, indices, seed) -> the R_img, R_txt and indices to use ----


def _at_random(v, R_img, R_txt, indices, seed):
    return R_img, R_txt, random_neighbors(len(v), len(R_img), indices.shape[1], seed=seed)


def _shuffled(v, R_img, R_txt, indices, seed):
    return R_img, shuffled_captions(R_txt, seed=seed), indices


def _mean_of_all(v, R_img, R_txt, indices, seed):
    """One reference, the mean, which every query gets: Eq. 1 with k = m at the price of k = 1."""
    return R_img.mean(axis=0, keepdims=True), R_txt.mean(axis=0, keepdims=True), np.zeros_like(indices)


def _captions_only(v, R_img, R_txt, indices, seed):
    return np.zeros_like(R_img), R_txt, indices


def _pictures_only(v, R_img, R_txt, indices, seed):
    return R_img, np.zeros_like(R_txt), indices


def _by_caption(v, R_img, R_txt, indices, seed):
    """Neighbors by caption instead of picture: the texts nearest to the query."""
    return R_img, R_txt, Retriever(R_txt).search(v, indices.shape[1])[1]


def _gaussian(v, R_img, R_txt, indices, seed):
    """The same search among noise of the same lengths."""
    image_seed, text_seed = np.random.SeedSequence(seed).spawn(2)
    noise = gaussian_references(R_img, seed=image_seed)
    return (noise, gaussian_references(R_txt, seed=text_seed),
            Retriever(noise).search(v, indices.shape[1])[1])


CONTROLS = {
    "random neighbors": _at_random, "shuffled captions": _shuffled, "mean of all references": _mean_of_all,
    "captions only": _captions_only, "pictures only": _pictures_only, "neighbors by caption": _by_caption,
    "Gaussian references": _gaussian}


def changed(name, image_features, reference_image_features, reference_text_features, neighbor_indices, *,
            seed=0):
    """The references and neighbors that a control puts in place of the method's own.

    Parameters
    ----------
    name : one of CONTROLS
    image_features (n, d), reference_…_features (m, d) : scaled already, see `reference.scaled`
    neighbor_indices : int array (n, k);  seed : int

    Returns
    -------
    R_img, R_txt, neighbor_indices : for `vanilla.augment_fused`, `surface.surface` or `tuning.tune`
    """
    if name not in CONTROLS:
        raise ValueError(f"Unknown control {name!r}. Known: {', '.join(CONTROLS)}.")
    v, R_img, R_txt, indices = (np.asarray(block) for block in (
        image_features, reference_image_features, reference_text_features, neighbor_indices))
    return CONTROLS[name](v, R_img, R_txt, indices, seed)


def control_scores(name, image_features, reference_image_features, reference_text_features, class_features,
                   neighbor_indices, *, seed=0, top_k=8, image_weight=0.5, text_weight=0.05, scale="unit"):
    """100 cos(v', W) where a control has changed what Eq. 1 adds; for comparison with `eq1.eq1`.

    Parameters
    ----------
    name : one of CONTROLS;  seed : int;  the others as for `eq1.eq1`

    Returns
    -------
    scores : array (n, c)
    """
    v, R_img, R_txt = as_scaled(image_features, reference_image_features, reference_text_features, scale)
    nearest = first_neighbors(neighbor_indices, top_k)
    R_img, R_txt, indices = changed(name, v, R_img, R_txt, nearest, seed=seed)
    augmented = augment_fused(v, indices, R_img, R_txt, image_weight=image_weight, text_weight=text_weight)
    return logits(augmented, class_features)
