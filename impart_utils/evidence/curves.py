"""Accuracy against the reference set: its size, its captions' quality, where it comes from; with draws.

Every curve has the method and random neighbors from the same references, so that it shows what retrieval adds
and not only what references add. A draw is another random reference set out of the same pool.
"""

import numpy as np
import pandas as pd

from impart_utils.evidence.controls import random_neighbors, shuffled_captions
from impart_utils.retrieval import Retriever
from impart_utils.sources.workers import side_by_side
from impart_utils.vanilla import augment_fused
from impart_utils.zeroshot import predict, unit

SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9)
NEAREST, RANDOM = "RA-CLIP Vanilla", "random neighbors"


def reference_curves(image_features, labels, class_features, pool_image_features, pool_text_features, *,
                     references=1000, sizes=SIZES, shares=SHARES, quantiles=QUANTILES, **options):
    """`size_curve`, `shuffle_curve` and `filter_curve` in one table.

    Parameters
    ----------
    image_features : array (n, d);  labels : int array (n,);  class_features : array (c, d)
    pool_…_features : arrays (m, d), all pairs at hand
    references : int, size of the reference set in the second and third curve
    sizes, shares, quantiles : what is varied
    **options : draws (default 5), seed, top_k, image_weight, text_weight

    Returns
    -------
    table : tidy DataFrame with curve ("size", "shuffled captions" or "similarity filter"), x, method
        ("RA-CLIP Vanilla" or "random neighbors"), draw, references, accuracy (a fraction), n; see `band`
    """
    given = (image_features, labels, class_features, pool_image_features, pool_text_features)
    return pd.concat([size_curve(*given, sizes=sizes, **options),
                      shuffle_curve(*given, references=references, shares=shares, **options),
                      filter_curve(*given, references=references, quantiles=quantiles, **options)],
                     ignore_index=True)


def size_curve(image_features, labels, class_features, pool_image_features, pool_text_features, *,
               sizes=SIZES, draws=5, seed=0, **eq1):
    """Accuracy against the number of references; a smaller set is part of the larger one of the same draw.

    Parameters
    ----------
    sizes : ints; those above the pool's size are replaced by the whole pool, whose draws differ in the random
        neighbors only. With fewer references than top_k all of them are neighbors.
    draws, seed : int;  **eq1 : top_k, image_weight, text_weight.  The others as in `reference_curves`
    """
    pool, whole = len(pool_image_features), None
    if max(sizes) >= pool:  # one search for all draws
        whole = _neighbors(image_features, pool_image_features, seed, **eq1)[NEAREST]

    def of_draw(draw):
        order, rows = np.random.default_rng([seed, draw]).permutation(pool), []
        for size in dict.fromkeys(min(size, pool) for size in sizes):
            used = order[:size] if size < pool else np.arange(pool)
            found = _neighbors(image_features, pool_image_features[used], draw,
                               nearest=whole if size == pool else None, **eq1)
            rows += _both(image_features, labels, class_features, pool_image_features[used],
                          pool_text_features[used], found=found, curve="size", x=size, draw=draw, **eq1)
        return rows

    return _table(of_draw, range(draws))


def shuffle_curve(image_features, labels, class_features, pool_image_features, pool_text_features, *,
                  references=1000, shares=SHARES, draws=5, seed=0, **eq1):
    """Accuracy against the share of pairs that have another pair's caption, 0 to 1; parameters as above."""
    def of_draw(draw):
        used, rows = _draw(len(pool_image_features), references, seed, draw), []
        R_img, R_txt = pool_image_features[used], pool_text_features[used]
        found = _neighbors(image_features, R_img, draw, **eq1)
        for share in shares:
            texts = shuffled_captions(R_txt, seed=[seed, draw], share=share)
            rows += _both(image_features, labels, class_features, R_img, texts, found=found,
                          curve="shuffled captions", x=share, draw=draw, **eq1)
        return rows

    return _table(of_draw, range(draws))


def filter_curve(image_features, labels, class_features, pool_image_features, pool_text_features, *,
                 references=1000, quantiles=QUANTILES, draws=5, seed=0, **eq1):
    """Accuracy when only pairs above a quantile of the picture-caption cosine may become references.

    The reference set has the same size at every quantile, or the curve would mix quality with size.

    Raises
    ------
    ValueError : fewer than `references` pairs lie above the largest quantile.
    """
    fit = (unit(pool_image_features) * unit(pool_text_features)).sum(axis=1)  # (m,)

    def of_quantile(quantile):
        rows, kept = [], np.flatnonzero(fit >= np.quantile(fit, quantile))
        if len(kept) < references:
            raise ValueError(f"Expected references={references} or more pairs above the quantile {quantile}, "
                             f"got {len(kept)} of {len(fit)}. Lower references or the quantile.")
        for draw in range(draws):
            used = kept[_draw(len(kept), references, seed, draw)]
            rows += _both(image_features, labels, class_features, pool_image_features[used],
                          pool_text_features[used], curve="similarity filter", x=quantile, draw=draw, **eq1)
        return rows

    return _table(of_quantile, quantiles)


def named_references(image_features, labels, class_features, pools, *, references=1000, draws=5, seed=0,
                     **eq1):
    """Accuracy with references of several origins or with several kinds of captions.

    Parameters
    ----------
    pools : dict name -> (image_features (m, d), text_features (m, d)). For captions of the same pictures
        (title, description, both) give the same pictures: the draws are then the same pairs too.
    references : int, drawn from each pool, or the whole pool where it is smaller. The others as above.

    Returns
    -------
    table : DataFrame as `reference_curves`, with curve "references" and the name as x
    """
    def of_pool(name):
        (R_img, R_txt), rows = pools[name], []
        for draw in range(draws):
            used = _draw(len(R_img), min(references, len(R_img)), seed, draw)
            rows += _both(image_features, labels, class_features, R_img[used], R_txt[used],
                          curve="references", x=name, draw=draw, **eq1)
        return rows

    return _table(of_pool, pools)


def band(table):
    """Mean, standard deviation and range over the draws of each point of a curve.

    Parameters
    ----------
    table : DataFrame of the functions above

    Returns
    -------
    summary : DataFrame with curve, x, method, mean, sd (with draws - 1; NaN for one draw), low, high, draws
    """
    grouped = table.groupby(["curve", "x", "method"], sort=False)["accuracy"]
    summary = grouped.agg(mean="mean", sd="std", low="min", high="max", draws="count")
    return summary.reset_index()


def _table(rows_of, items):
    return pd.DataFrame([row for rows in side_by_side(rows_of, items) for row in rows])


def _draw(pool, references, seed, draw):
    if references > pool:
        raise ValueError(f"Expected references <= number of pairs, got references={references} with {pool} "
                         "pairs. Lower references or give more pairs.")
    return np.random.default_rng([seed, draw]).permutation(pool)[:references]


def _neighbors(image_features, R_img, draw, *, nearest=None, top_k=8, image_weight=0.5, text_weight=0.05):
    """Nearest and random neighbors; `nearest` are the former where they are known."""
    k = min(top_k, len(R_img))
    if nearest is None:  # torch searches four times as fast as scikit-learn here, and as exactly
        nearest = Retriever(R_img, backend="torch").search(image_features, k)[1]
    return {NEAREST: nearest, RANDOM: random_neighbors(len(image_features), len(R_img), k, seed=draw)}


def _both(image_features, labels, class_features, R_img, R_txt, *, curve, x, draw, found=None, top_k=8,
          image_weight=0.5, text_weight=0.05):
    """The method and random neighbors with one reference set: two rows."""
    found = found or _neighbors(image_features, R_img, draw, top_k=top_k)
    v, R_img, R_txt = unit(image_features), unit(R_img), unit(R_txt)
    rows = []
    for method, indices in found.items():
        augmented = augment_fused(v, indices, R_img, R_txt, image_weight=image_weight,
                                  text_weight=text_weight)
        right = predict(augmented, class_features) == labels
        rows.append({"curve": curve, "x": x, "method": method, "draw": draw, "references": len(R_img),
                     "accuracy": float(right.mean()), "n": len(right)})
    return rows
