"""Accuracy over k x w_img x w_txt, all settings of Eq. 1 at once.

Under argmax Eq. 1 is a sum of three score matrices (notebook 02):

    argmax_c cos(v', W_c) = argmax_c [ v·W_c + w_img mean(r_img)·W_c + w_txt mean(r_txt)·W_c ]

so a whole grid of weights costs three matrices per k, and all k one pass over the neighbors. Linear in the
weights, most queries are decided by the grid's four corners.
"""

import numpy as np
import pandas as pd

from impart_utils.evidence.eq1 import PAPER_WEIGHTS
from impart_utils.zeroshot import unit

TOP_KS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64)
WEIGHTS = tuple(np.round(np.linspace(0, 1, 21), 2).tolist())  # 0, 0.05, …, 1: with the paper's code's


def surface(image_features, labels, class_features, reference_image_features, reference_text_features,
            neighbor_indices, *, top_ks=TOP_KS, image_weights=WEIGHTS, text_weights=WEIGHTS):
    """`surface_counts` as a table with one row per setting.

    Returns
    -------
    table : DataFrame with k, image_weight, text_weight, correct, n, accuracy (a fraction); sorted by k, then
        image_weight, then text_weight, each in the order given
    """
    counts = surface_counts(image_features, labels, class_features, reference_image_features,
                            reference_text_features, neighbor_indices, top_ks=top_ks,
                            image_weights=image_weights, text_weights=text_weights)
    axes = pd.MultiIndex.from_product([top_ks, image_weights, text_weights],
                                      names=["k", "image_weight", "text_weight"])
    table = pd.DataFrame({"correct": counts.ravel()}, index=axes).reset_index()
    return table.assign(n=len(labels), accuracy=table["correct"] / len(labels))


def surface_counts(image_features, labels, class_features, reference_image_features, reference_text_features,
                   neighbor_indices, *, top_ks=TOP_KS, image_weights=WEIGHTS, text_weights=WEIGHTS,
                   block=512):
    """How many queries Eq. 1 classifies rightly, for each k and each pair of weights.

    Parameters
    ----------
    image_features : array (n, d);  labels : int array (n,), rows of class_features (c, d)
    reference_…_features : arrays (m, d); all three scaled already, see `reference.scaled`
    neighbor_indices : int array (n, max(top_ks) or more), nearest first
    top_ks : rising ints;  image_weights, text_weights : floats
    block : int, queries at a time: their scores stay in the processor's cache

    Returns
    -------
    counts : int64 array (len(top_ks), len(image_weights), len(text_weights)). Equal to `vanilla.augment` and
        `zeroshot.predict` for each setting, but where two classes' scores differ by less than rounding; of
        truly equal scores the first class counts, as in `predict`.

    Raises
    ------
    ValueError : top_ks that don't rise from 1, too few neighbors, or labels that are no classes.
    """
    v = np.asarray(image_features, np.float64)
    labels, indices = np.asarray(labels), np.asarray(neighbor_indices)
    _check(v, labels, class_features, indices, top_ks)
    W = unit(np.asarray(class_features, np.float64), "class_features")
    picture_scores = np.asarray(reference_image_features, np.float64) @ W.T  # (m, d) @ (d, c) -> (m, c)
    caption_scores = np.asarray(reference_text_features, np.float64) @ W.T   # (m, c)
    counts = np.zeros((len(top_ks), len(image_weights), len(text_weights)), np.int64)
    for start in range(0, len(v), block):
        rows = slice(start, start + block)
        query = _margins(v[rows] @ W.T, labels[rows])
        pictures = captions = 0
        for column in range(top_ks[-1]):  # running sums: each further neighbor is added once
            pictures = pictures + picture_scores[indices[rows, column]]  # (b, c)
            captions = captions + caption_scores[indices[rows, column]]
            k = column + 1
            if k in top_ks:
                counts[list(top_ks).index(k)] += _count(
                    query, _margins(pictures / k, labels[rows]), _margins(captions / k, labels[rows]),
                    labels[rows], image_weights, text_weights)
    return counts


def paper_marks(scale=None):
    """The settings of the paper's code as points of a surface: where to put its marks.

    Parameters
    ----------
    scale : only settings for vectors of this scale (None: all). A sum over k neighbors with weight w is the
        mean with weight k w, so some lie far outside a grid up to 1.

    Returns
    -------
    table : DataFrame with commit, k, image_weight, text_weight (of means), scale
    """
    rows = []
    for name, given in PAPER_WEIGHTS.items():
        times = given["top_k"] if given["combine"] == "sum" else 1
        rows.append({"commit": name, "k": given["top_k"], "scale": given["scale"],
                     "image_weight": times * given["image_weight"] / given["query_weight"],
                     "text_weight": times * given["text_weight"] / given["query_weight"]})
    table = pd.DataFrame(rows)
    return table if scale is None else table[table["scale"] == scale].reset_index(drop=True)


def _margins(scores, labels):
    """How far each class is ahead of the right one: (b, c) -> (c, b) float32, queries side by side.

    The differences are taken in double precision and are small, so single precision keeps them well.
    """
    return np.ascontiguousarray((scores - scores[np.arange(len(labels)), labels][:, None]).T, np.float32)


def _count(query, pictures, captions, labels, image_weights, text_weights):
    """Queries per pair of weights that no other class beats: margins (c, b) three times -> (w, u).

    A margin is linear in both weights, so over a rectangle it is largest and smallest at a corner. A class
    that is behind at all four corners never wins, and a query with one that is ahead at all four is lost
    throughout: what is left to try for each pair of weights are a few classes of a few queries.
    """
    a, b = (np.asarray(weights, np.float32) for weights in (image_weights, text_weights))
    corners = [query + x * pictures + y * captions for x in (a.min(), a.max()) for y in (b.min(), b.max())]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)  # (c, b)
    slack = 1e-5 * max(high.max(), -low.min())                         # more than single precision rounds
    own = labels, np.arange(len(labels))
    low[own] = high[own] = -np.inf                                     # the right class has no margin
    lost = (low > slack).any(axis=0)
    queries, classes = np.nonzero(((high >= -slack) & ~lost).T)        # (p,), (p,): pairs left to try
    undecided, starts = np.unique(queries, return_index=True)
    counts = np.full((len(a), len(b)), len(labels) - lost.sum() - len(undecided))
    if len(queries):
        q, i, t = (part[classes, queries][:, None] for part in (query, pictures, captions))  # (p, 1)
        first = (classes < labels[queries])[:, None]                   # it wins where scores are equal
        for row, weight in enumerate(a):
            margins = q + weight * i + t * b                           # (p, u)
            beaten = np.where(first, margins >= 0, margins > 0)
            counts[row] += len(undecided) - np.logical_or.reduceat(beaten, starts).sum(axis=0)
    return counts


def _check(v, labels, class_features, indices, top_ks):
    if list(top_ks) != sorted(set(top_ks)) or not len(top_ks) or top_ks[0] < 1:
        raise ValueError(f"Expected top_ks to rise from 1 or more, got {list(top_ks)}.")
    if indices.ndim != 2 or len(indices) != len(v) or indices.shape[1] < top_ks[-1]:
        raise ValueError(f"Expected neighbor_indices of shape ({len(v)}, {top_ks[-1]} or more), got "
                         f"{indices.shape}. Search as many neighbors as the largest k.")
    c = len(class_features)
    if labels.shape != (len(v),) or not len(labels) or labels.min() < 0 or labels.max() >= c:
        raise ValueError(f"Expected one label from 0 to {c - 1} for each of {len(v)} queries, got labels of "
                         f"shape {labels.shape}" + (f" up to {labels.max()}." if len(labels) else "."))
