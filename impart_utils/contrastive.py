"""The loss that RAM is trained with, and how far pictures and texts agree."""

import math

import torch
from torch.nn import functional as F


def contrastive_loss(image, text, temperature=1.0):
    r"""Both directions of InfoNCE between pictures and their texts, summed as in the paper's code.

    .. math:: S = \frac{n(a) n(b)^T}{T}, \quad
        L = -\frac{1}{B} \sum_i \log \mathrm{softmax}_j(S)_{ii}
            - \frac{1}{B} \sum_i \log \mathrm{softmax}_j(S^T)_{ii}

    CLIP itself takes the mean of the directions and learns T (about 0.01). With T = 1 the loss can hardly
    move: from 2 ln B at chance to 2 ln(1 + (B - 1) / e) where each pair has cosine 1 and all others 0.

    Parameters
    ----------
    image, text : tensors (b, d), any norms; row i of both belong together
    temperature : float or tensor, T > 0

    Returns
    -------
    loss : tensor ()
    """
    if image.shape != text.shape or image.ndim != 2:
        raise ValueError(f"Expected image and text of one shape (b, d), got {tuple(image.shape)} "
                         f"and {tuple(text.shape)}.")
    if not torch.is_tensor(temperature) and not temperature > 0:
        raise ValueError(f"Expected temperature > 0, got {temperature!r}.")
    scores = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T / temperature  # (b, d) @ (d, b) -> (b, b)
    target = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)


def chance_loss(batch_size):
    """The loss where every score is equal: 2 ln B (9.21 for a batch of 100)."""
    return 2 * math.log(batch_size)


def alignment(image, text):
    """How much nearer pictures are to their own texts than to others: mean cosine of own minus of others.

    Parameters
    ----------
    image, text : tensors (n, d), any norms; row i of both belong together

    Returns
    -------
    alignment : float, about 0 at chance. Of a single pair: its cosine.
    """
    a, b = F.normalize(image, dim=1), F.normalize(text, dim=1)
    own, n = (a * b).sum(), len(a)
    others = a.sum(dim=0) @ b.sum(dim=0) - own  # all n * n cosines without the table of them
    return (own / n - others / max(n * (n - 1), 1)).item()
