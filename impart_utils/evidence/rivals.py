"""The neighbors' methods on the same pairs: what else can be done with 1000 pictures and captions?

Every method is a function of features with one signature, so that a table can loop over METHODS::

    method(image_features (n, d), reference_image_features (m, d), reference_text_features (m, d),
           class_features (c, d), neighbor_indices (n, k), **its own settings) -> scores (n, c)

Formulas and defaults are those of the sources named below, on unit vectors: q query, V_j, T_j the reference
pictures and captions, W_c the classes, L_j = softmax_c(100 T_j·W_c) what caption j says of the classes (the
sources use true labels there). Settings that a source tuned on labels keep its defaults here; tuning.py
tunes all methods alike. No score depends on the other queries. `neighbor_indices` are nearest first and
serve all methods at once; each takes its first columns, 128 are enough for every default.
"""

from functools import partial

import numpy as np
from scipy.special import entr, softmax

from impart_utils.evidence.controls import (  # noqa: F401  controls can be had from here too
    gaussian_references,
    mean_of_all,
    random_neighbors,
    shuffled_captions,
)
from impart_utils.evidence.eq1 import eq1, first_neighbors
from impart_utils.zeroshot import logits, unit


def clip(image_features, reference_image_features, reference_text_features, class_features,
         neighbor_indices=None):
    """CLIP alone, s = 100 q·W: the base. References and neighbors are ignored."""
    return logits(image_features, class_features)


def prompt_ensemble(image_features, reference_image_features, reference_text_features, class_features,
                    neighbor_indices=None, *, prompt_features):
    r"""CLIP with several prompts per class, no references: the bar to clear.

    .. math:: W_c = n\Big(\frac{1}{t} \sum_t n(\mathrm{text}(t(c)))\Big)

    Parameters
    ----------
    prompt_features : array (c, t, d), t prompts per class, or (c, d) as `zeroshot.class_features` makes
        them from several templates (18 for CIFAR, 34 for Caltech101). Source: Radford et al. 2021, §3.1.4.
    """
    prompts = unit(prompt_features, "prompt_features")
    W = prompts.mean(axis=1) if prompts.ndim == 3 else prompts  # (c, t, d) -> (c, d)
    if len(W) != len(class_features):
        raise ValueError(f"Expected prompt_features of {len(class_features)} classes, got {len(W)}.")
    return logits(image_features, W)


def caption_vote(image_features, reference_image_features, reference_text_features, class_features,
                 neighbor_indices, *, top_k=8):
    """The text half of Eq. 1 alone, s = 100 mean(T_k)·W; the query only picks the neighbors (k 8 or 16)."""
    votes = 100 * unit(reference_text_features) @ unit(class_features).T            # (m, c)
    return _mean_of_rows(votes, first_neighbors(neighbor_indices, top_k))           # (n, c)


def x_more(image_features, reference_image_features, reference_text_features, class_features,
           neighbor_indices, *, pool=128, captions=16):
    r"""X-MoRe (Eom et al. 2023): query and captions each weighted by how sure they are.

    .. math:: p = a_{img}\, \mathrm{softmax}(100\, q W^T)
              + \frac{a_{txt}}{K} \sum_{j=1}^{K} \mathrm{softmax}(100\, T_j W^T), \quad a = 1 - H / \log c

    H is the entropy of the query's distribution and of the captions' mean one.

    Parameters
    ----------
    pool : int, how many nearest pictures' captions are ranked anew by their cosine with the query (fewer
        where there are fewer neighbors);  captions : int, K of them are kept
        The source's are 128 and 16, from 400 M pairs, ranked by a larger CLIP.

    Returns
    -------
    p : array (n, c), not summing to 1. Unlike in the released code, a is not divided by the sum of the a of
        all queries before it, so the queries' order doesn't matter.
    """
    T, W = unit(reference_text_features), unit(class_features)
    if len(W) < 2:
        raise ValueError(f"Expected at least two classes, got {len(W)}: one has no entropy.")
    first_neighbors(neighbor_indices, captions)  # its check
    indices = np.asarray(neighbor_indices)[:, :max(pool, captions)]
    ranked = (unit(image_features) @ T.T)[np.arange(len(indices))[:, None], indices]  # (n, pool)
    best = np.argsort(-ranked, axis=1, kind="stable")[:, :captions]
    p_image = softmax(logits(image_features, W), axis=1)                                    # (n, c)
    p_text = _mean_of_rows(softmax(100 * T @ W.T, axis=1), np.take_along_axis(indices, best, axis=1))
    return _sureness(p_image) * p_image + _sureness(p_text) * p_text


def tip_adapter(image_features, reference_image_features, reference_text_features, class_features,
                neighbor_indices=None, *, alpha=1.17, beta=1.0, shots=None):
    r"""Tip-Adapter (Zhang et al., ECCV 2022) without training and without labels: all references vote.

    .. math:: s = 100\, q W^T + \alpha\, e^{-\beta (1 - q V^T)} L

    Parameters
    ----------
    alpha, beta : float; the source starts from 1.17 and 1 on ImageNet and searches up to 5 and 12
    shots : see `soft_labels`. The source has 16 pictures of each class; captions of the web speak of some
        classes far more than of others, and without balance their sum over 1000 references drowns q W^T.

    Returns
    -------
    scores : array (n, c); L are the captions' soft labels, where the source has few-shot labels
    """
    affinity = unit(image_features) @ unit(reference_image_features).T              # (n, m)
    L = soft_labels(reference_text_features, class_features, shots=shots)           # (m, c)
    return logits(image_features, class_features) + alpha * np.exp(beta * (affinity - 1)) @ L


def tip_x(image_features, reference_image_features, reference_text_features, class_features,
          neighbor_indices=None, *, alpha=1.17, beta=1.0, gamma=0.1, temperature=0.5,
          shots=None):
    r"""TIP-X (SuS-X, Udandarao et al., ICCV 2023): Tip-Adapter, and who looks alike to the classes.

    .. math:: s = s_{Tip} + \gamma\, \psi(-\mathrm{KL}(\mathrm{softmax}(q W^T / \tau)\, \|\,
              \mathrm{softmax}(V_j W^T / \tau)))\, L

    Parameters
    ----------
    alpha, beta, shots : as `tip_adapter`;  gamma : float; the source has no default, its search starts at 0.1
    temperature : float, tau of the source

    Returns
    -------
    scores : array (n, c). psi maps the range of -KL on that of the cosines, both among the references: the
        released code takes the ranges of the queries (and mixes validation with test), which makes a
        query's score depend on the others.
    """
    W, L = unit(class_features), soft_labels(reference_text_features, class_features, shots=shots)
    p = softmax(unit(image_features) @ W.T / temperature, axis=1)                           # (n, c)
    p_references = softmax(unit(reference_image_features) @ W.T / temperature, axis=1)      # (m, c)
    cosines = unit(reference_image_features) @ unit(reference_image_features).T     # (m, m)
    own = -_kl(p_references, p_references)                                          # (m, m)
    slope = (cosines.max() - cosines.min()) / max(own.max() - own.min(), 1e-12)
    likeness = cosines.min() + slope * (-_kl(p, p_references) - own.min())          # (n, m)
    tip = tip_adapter(image_features, reference_image_features, reference_text_features, class_features,
                      alpha=alpha, beta=beta, shots=shots)
    return tip + gamma * likeness @ L


def distribution_normalization(image_features, reference_image_features, reference_text_features,
                               class_features, neighbor_indices=None, *, strength=0.25):
    r"""DN (Zhou et al., NeurIPS 2023): subtract a part of each side's mean.

    .. math:: s = 100\, n(q - \lambda \mu_{img}) \cdot n(W - \lambda \mu_{txt})

    Parameters
    ----------
    strength : float, lambda; 0.25 in the released code, there on raw vectors. mu_img is the mean of the
        reference pictures (100 unlabelled test pictures there), mu_txt that of the class prompts.
    """
    q, W = unit(image_features), unit(class_features)
    return logits(q - strength * unit(reference_image_features).mean(axis=0), W - strength * W.mean(axis=0))


def nearest_neighbor_normalization(image_features, reference_image_features, reference_text_features,
                                   class_features, neighbor_indices=None, *, top_k=128, alpha=0.75):
    r"""NNN (Chowdhury et al., EMNLP 2024): a class that is near to many pictures anyway gets less.

    .. math:: s_c = 100\, \Big(q \cdot W_c - \frac{\alpha}{k} \sum_{j \in top_k(V W_c)} V_j \cdot W_c\Big)

    Parameters
    ----------
    top_k : int, how many reference pictures nearest to the class;  alpha : float
        128 and 0.75 in the source's README, 256 and 0.5 in its code.
    """
    likeness = logits(reference_image_features, class_features)                     # (m, c)
    if not 1 <= top_k <= len(likeness):
        raise ValueError(f"Expected 1 <= top_k <= number of references, got top_k={top_k} with "
                         f"{len(likeness)} references. Lower top_k or use a larger reference set.")
    bias = np.sort(likeness, axis=0)[-top_k:].mean(axis=0)                          # (c,)
    return logits(image_features, class_features) - alpha * bias


def gap_shift(image_features, reference_image_features, reference_text_features, class_features,
              neighbor_indices=None, *, strength=1.0):
    r"""Move the query across the modality gap (Liang et al., NeurIPS 2022); no neighbors are used.

    .. math:: s = 100\, n(q - \lambda \Delta) \cdot W, \quad \Delta = \bar V - \bar T

    Parameters
    ----------
    strength : float, lambda; the source sweeps it, 1 closes the gap between the means
    """
    gap = modality_gap(reference_image_features, reference_text_features)
    return logits(unit(image_features) - strength * gap, class_features)


def eq1_centered(image_features, reference_image_features, reference_text_features, class_features,
                 neighbor_indices, *, top_k=8, image_weight=0.5, text_weight=0.05):
    """Eq. 1 with captions n(T_j - mean T): what all captions share no longer speaks for some classes.

    Source: centering as in I0T (ACL 2025), here of the captions alone.
    """
    return eq1(image_features, reference_image_features, centered(reference_text_features), class_features,
               neighbor_indices, top_k=top_k, image_weight=image_weight, text_weight=text_weight)


def eq1_shifted(image_features, reference_image_features, reference_text_features, class_features,
                neighbor_indices, *, top_k=8, image_weight=0.5, text_weight=0.05, strength=1.0):
    """Eq. 1 with captions n(T_j + lambda (mean V - mean T)): moved to where the pictures are."""
    gap = modality_gap(reference_image_features, reference_text_features)
    return eq1(image_features, reference_image_features, unit(reference_text_features) + strength * gap,
               class_features, neighbor_indices, top_k=top_k, image_weight=image_weight,
               text_weight=text_weight)


METHODS = {  # all that need nothing but pairs; `prompt_ensemble` needs prompts besides
    "CLIP": clip,
    "RA-CLIP Vanilla": eq1,
    "Eq. 1, raw vectors": partial(eq1, scale="raw"),
    "Eq. 1, raw texts": partial(eq1, scale="mixed"),
    "Eq. 1, centered captions": eq1_centered,
    "Eq. 1, captions across the gap": eq1_shifted,
    "caption vote": caption_vote,
    "X-MoRe": x_more,
    "Tip-Adapter, soft labels": tip_adapter,
    "Tip-Adapter, balanced soft labels": partial(tip_adapter, shots=16),
    "TIP-X, balanced soft labels": partial(tip_x, shots=16),
    "DN": distribution_normalization,
    "NNN": nearest_neighbor_normalization,
    "modality-gap shift": gap_shift,
}


# ---- Parts ---------------------------------------------------------------------------------------------


def soft_labels(reference_text_features, class_features, *, shots=None):
    """What each caption says of the classes: the softmax of 100 times its cosines with them.

    Parameters
    ----------
    shots : float, optional: each class's labels scaled to this sum, as if there were so many pictures of it

    Returns
    -------
    labels : array (m, c); rows sum to 1, or columns to `shots`
    """
    labels = softmax(logits(reference_text_features, class_features), axis=1)
    if shots is None:
        return labels
    return labels * (shots / np.maximum(labels.sum(axis=0), np.finfo(labels.dtype).tiny))


def centered(features):
    """n(x - mean of n(x)): unit vectors without what they have in common; array (m, d)."""
    features = unit(features)
    return unit(features - features.mean(axis=0), "the centered features")


def modality_gap(image_features, text_features):
    """Mean unit picture minus mean unit text, array (d,)."""
    return unit(image_features).mean(axis=0) - unit(text_features).mean(axis=0)


def _sureness(p):
    """1 - H / log c of each row's distribution: 1 where it is certain, 0 where it is uniform; (n, 1)."""
    return 1 - entr(p).sum(axis=1, keepdims=True) / np.log(p.shape[1])


def _kl(p, q):
    """KL(p_i || q_j) for all pairs of rows: (n, c), (m, c) -> (n, m)."""
    return (p * np.log(p)).sum(axis=1, keepdims=True) - p @ np.log(q).T


def _mean_of_rows(table, indices, block=1000):
    """Mean of some rows of a table: (m, c), (n, k) -> (n, c), with never more than a block's in memory."""
    return np.concatenate([table[indices[start:start + block]].mean(axis=1)
                           for start in range(0, len(indices), block)] or [np.empty((0, table.shape[1]))])
