"""Eq. 1 as class scores, and the weights that each commit of the paper's code gave it."""

from types import SimpleNamespace

import numpy as np

from impart_utils.reference import keeps_norms, scaled
from impart_utils.vanilla import augment_fused
from impart_utils.zeroshot import logits

# No value is printed in the paper. These are from the history of its code (branches and commits as named
# there); `combine="sum"` where it added the neighbors up instead of averaging them.
PAPER_WEIGHTS = {
    # main and zero-shot-retrieval, from June 6, 2024: the latest, so probably the paper's
    "main": {"query_weight": 1.0, "image_weight": 0.5, "text_weight": 0.05, "top_k": 8, "combine": "mean",
             "scale": "raw"},
    # jalend and veera1: normalizing in place made v and r_img unit vectors and left r_txt raw
    "jalend": {"query_weight": 1.0, "image_weight": 0.05, "text_weight": 0.05, "top_k": 8, "combine": "mean",
               "scale": "mixed"},
    # May 22 to 25, 8072aea to dcf3e1e: unit v and r_img; no text, so its scale doesn't matter
    "dcf3e1e": {"query_weight": 1.0, "image_weight": 0.5, "text_weight": 0.0, "top_k": 8, "combine": "mean",
                "scale": "unit"},
    # May 21, 785a32e and c234231: the raw texts, summed, outweigh the query 5 to 10 times
    "c234231": {"query_weight": 1.0, "image_weight": 0.5, "text_weight": 0.5, "top_k": 5, "combine": "sum",
                "scale": "mixed"},
    # 94ee00b and b92e175
    "b92e175": {"query_weight": 1.0, "image_weight": 0.005, "text_weight": 0.005, "top_k": 5,
                "combine": "sum", "scale": "raw"},
    "e41db07": {"query_weight": 1.0, "image_weight": 0.005, "text_weight": 0.005, "top_k": 5,
                "combine": "sum", "scale": "mixed"},
    # early sketches; veera's is the plain mean of v and 5 texts, here without its divisor 6
    "archana": {"query_weight": 1.0, "image_weight": 0.5, "text_weight": 0.5, "top_k": 5, "combine": "sum",
                "scale": "raw"},
    "veera": {"query_weight": 1.0, "image_weight": 0.0, "text_weight": 1.0, "top_k": 5, "combine": "sum",
              "scale": "raw"},
}


def eq1(image_features, reference_image_features, reference_text_features, class_features, neighbor_indices,
        *, top_k=8, query_weight=1.0, image_weight=0.5, text_weight=0.05, combine="mean", scale="unit"):
    r"""100 cos(v', W) with v' of Eq. 1: RA-CLIP Vanilla as a function of features.

    .. math:: v' = w_0 v + \frac{w_{img}}{k} \sum_i r_{img,i} + \frac{w_{txt}}{k} \sum_i r_{txt,i}

    Parameters
    ----------
    image_features : array (n, d), v;  class_features : array (c, d), W
    reference_image_features, reference_text_features : arrays (m, d)
    neighbor_indices : int array (n, k or more), nearest first: the first `top_k` columns are used
    query_weight, image_weight, text_weight : float;  combine : "mean" as in Eq. 1, or "sum" without its 1/k
    scale : "unit", "raw" or "mixed", which vectors are added (see `reference.scaled`)

    Returns
    -------
    scores : array (n, c), 100 times the cosine; the division by the sum of the weights in the paper's code
        changes no angle and is left out

    Raises
    ------
    ValueError : fewer neighbors than `top_k`, an unknown `combine`, or raw vectors where norms are gone.
    """
    if combine not in ("mean", "sum"):
        raise ValueError(f"Unknown combine {combine!r}. Known: mean, sum.")
    nearest = first_neighbors(neighbor_indices, top_k)
    v, R_img, R_txt = as_scaled(image_features, reference_image_features, reference_text_features, scale)
    times = top_k if combine == "sum" else 1
    augmented = augment_fused(query_weight * v, nearest, R_img, R_txt, image_weight=times * image_weight,
                              text_weight=times * text_weight)
    return logits(augmented, class_features)


def eq1_of_commit(image_features, reference_image_features, reference_text_features, class_features,
                  neighbor_indices, *, commit="main"):
    """`eq1` with the weights, k, sum or mean, and scale of one commit of the paper's code.

    Parameters
    ----------
    commit : a name of PAPER_WEIGHTS;  the others, and what is returned: as `eq1`
    """
    if commit not in PAPER_WEIGHTS:
        raise ValueError(f"Unknown commit {commit!r}. Known: {', '.join(PAPER_WEIGHTS)}.")
    return eq1(image_features, reference_image_features, reference_text_features, class_features,
               neighbor_indices, **PAPER_WEIGHTS[commit])


def commits_for(image_features, reference_image_features, reference_text_features):
    """Names of PAPER_WEIGHTS whose scale these features allow: raw ones need norms that a source may drop."""
    image_norms = keeps_norms(image_features) and keeps_norms(reference_image_features)
    text_norms = keeps_norms(reference_text_features)
    allowed = {"unit": True, "mixed": text_norms, "raw": image_norms and text_norms}
    return [name for name, settings in PAPER_WEIGHTS.items() if allowed[settings["scale"]]]


def first_neighbors(neighbor_indices, top_k):
    """The first `top_k` columns of the neighbors, as a check that there are so many."""
    indices = np.asarray(neighbor_indices)
    if indices.ndim != 2 or not 1 <= top_k <= indices.shape[1]:
        raise ValueError(f"Expected neighbor_indices (n, k) with at least top_k={top_k} >= 1 columns, got "
                         f"{indices.shape}. Search more neighbors or lower top_k.")
    return indices[:, :top_k]


def as_scaled(image_features, reference_image_features, reference_text_features, scale):
    """`reference.scaled` for references that are given as two arrays."""
    pairs = SimpleNamespace(image_features=reference_image_features, text_features=reference_text_features)
    return scaled(image_features, pairs, scale)
