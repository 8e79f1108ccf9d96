"""The loss that RAM is trained with, and how far pictures and texts agree."""

import math

import torch
from torch.nn import functional as F

SHORTEST = 1e-12  # a norm below which `F.normalize` doesn't divide by it


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


def loss_and_gradient(image, text, temperature):
    r"""`contrastive_loss` with its gradient written out, for `ram_gradient`.

    With P and Q the softmax of S over its rows and over its columns, :math:`dL/dS = (P + Q - 2 I) / B`.

    Parameters
    ----------
    image, text : tensors (b, d);  temperature : tensor ()

    Returns
    -------
    loss : float
    d_image : tensor (b, d), dL / d image
    d_log_temperature : tensor (), dL / d ln T
    """
    a, t = (F.normalize(block, dim=1) for block in (image, text))
    scores = a @ t.T / temperature  # (b, d) @ (d, b) -> (b, b)
    by_row, by_column = scores.log_softmax(dim=1), scores.log_softmax(dim=0)
    loss = -(by_row.diagonal().mean() + by_column.diagonal().mean())
    d_scores = by_row.exp_().add_(by_column.exp_())
    d_scores.diagonal().sub_(2)
    d_scores /= len(scores)
    d_image = unit_backward(d_scores @ t / temperature, image)  # (b, b) @ (b, d) -> (b, d)
    return loss.item(), d_image, -(d_scores * scores).sum()


def unit_backward(d_output, x):
    """The gradient by x (b, d) of n(x) = x / ‖x‖, row by row, from that by n(x)."""
    norm = x.norm(dim=-1, keepdim=True).clamp_min(SHORTEST)
    n = x / norm
    return (d_output - n * (n * d_output).sum(dim=-1, keepdim=True)) / norm


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
