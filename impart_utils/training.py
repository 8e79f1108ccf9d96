"""Train RAM on cached features: the loss, the loop, checkpoints of RAM alone.

CLIP is frozen, so its features and the neighbors never change: they are computed once, and an epoch
is only the attention. (The paper's code decodes, encodes and retrieves everything again each epoch.)
"""

import json
import math

import numpy as np
import torch
from torch.nn import functional as F

from impart_utils.ram import RAM
from impart_utils.sources.features import atomic_path, progress_bar

# branch main of the paper's code; torch's Adam with its defaults, no schedule, no clipping
PAPER_CODE = {"epochs": 8, "batch_size": 100, "learning_rate": 1e-3, "temperature": 1.0}


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


def new_ram(dim, *, seed, **options):
    """A RAM whose initial weights depend on `seed` alone; torch's global generator stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RAM(dim, **options)


def train_ram(ram, image_features, text_features, reference_image_features, reference_text_features,
              neighbor_indices, *, seed, epochs=8, batch_size=100, learning_rate=1e-3, temperature=1.0,
              progress=True):
    """Train `ram` in place so that augmented pictures match their texts.

    Parameters
    ----------
    ram : RAM
    image_features, text_features : arrays (n, d), the training pairs
    reference_image_features, reference_text_features : arrays (m, d)
    neighbor_indices : int array (n, k), rows of the references for each training picture
    seed : int, order of the batches
    epochs, batch_size, learning_rate, temperature : by default the paper's code (`PAPER_CODE`)
    progress : bool, show a bar

    Returns
    -------
    history : list of dict with epoch (from 1), step (from 1), loss

    Raises
    ------
    ValueError : arrays that don't fit together, or a loss that is no longer finite.
    """
    n = len(image_features)
    if not n or len(text_features) != n or len(neighbor_indices) != n:
        raise ValueError(f"Expected one text and one row of neighbors per training picture, got {n} "
                         f"pictures, {len(text_features)} texts, {len(neighbor_indices)} rows of neighbors.")
    device = next(ram.parameters()).device
    v, t, R_img, R_txt = (torch.as_tensor(np.asarray(block), dtype=torch.float32, device=device) for block in
                          (image_features, text_features, reference_image_features, reference_text_features))
    neighbors = _checked(neighbor_indices, len(v), len(R_img)).to(device)  # (n, k)
    optimizer = torch.optim.Adam(ram.parameters(), lr=learning_rate)
    order = torch.Generator().manual_seed(seed)
    history = []
    ram.train()
    for epoch in progress_bar(range(1, epochs + 1), description="training RAM (epochs)", progress=progress):
        shuffled = torch.randperm(n, generator=order).to(device)
        for rows in shuffled.split(batch_size):  # the last may be smaller
            augmented = ram(v[rows], R_img[neighbors[rows]], R_txt[neighbors[rows]])  # (b, d)
            loss = contrastive_loss(augmented, t[rows], temperature)
            if not torch.isfinite(loss):
                raise ValueError(f"The loss is {loss.item()} in epoch {epoch}. Lower learning_rate "
                                 "or raise temperature.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append({"epoch": epoch, "step": len(history) + 1, "loss": loss.item()})
    ram.eval()
    return history


def _checked(neighbor_indices, n, m):
    neighbors = torch.as_tensor(np.asarray(neighbor_indices))
    if len(neighbors) != n:
        raise ValueError(f"Expected one row of neighbors per picture, got {len(neighbors)} rows with {n} "
                         "pictures.")
    if neighbors.numel() and not 0 <= neighbors.min() <= neighbors.max() < m:
        raise ValueError(f"Expected neighbor_indices from 0 to {m - 1}, got {neighbors.min()} to "
                         f"{neighbors.max()}.")
    return neighbors


def apply_ram(ram, image_features, reference_image_features, reference_text_features, neighbor_indices, *,
              batch_size=1000):
    """RAM's output for many queries.

    Parameters
    ----------
    image_features : array (n, d);  reference_…_features : arrays (m, d);  neighbor_indices : int array (n, k)

    Returns
    -------
    augmented_features : float32 array (n, d), not normalized
    """
    device = next(ram.parameters()).device
    v, R_img, R_txt = (torch.as_tensor(np.asarray(block), dtype=torch.float32, device=device) for block in
                       (image_features, reference_image_features, reference_text_features))
    neighbors = _checked(neighbor_indices, len(v), len(R_img)).to(device)
    if not len(v):
        return np.empty((0, ram.dim), np.float32)
    with torch.inference_mode():
        parts = [ram(v[start:start + batch_size], R_img[rows], R_txt[rows])  # (b, d)
                 for start, rows in zip(range(0, len(v), batch_size), neighbors.split(batch_size),
                                        strict=True)]
    return torch.cat(parts).cpu().numpy()


def save_ram(path, ram, options, history=()):
    """Write RAM's weights (safetensors); `new_ram`'s options and the history stand in the header."""
    from safetensors.torch import save_file

    header = {"dim": json.dumps(ram.dim), "options": json.dumps(options),
              "history": json.dumps(list(history))}
    with atomic_path(path) as temporary:
        weights = {name: value.contiguous() for name, value in ram.state_dict().items()}
        save_file(weights, temporary, metadata=header)


def load_ram(path):
    """(ram in eval mode, history) as `save_ram` wrote them."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        if "options" not in header:
            raise ValueError(f"{path} holds no RAM: its header lacks the options. Write it with save_ram.")
        weights = {name: file.get_tensor(name) for name in file.keys()}
    ram = new_ram(json.loads(header["dim"]), seed=0, **json.loads(header["options"]))
    ram.load_state_dict(weights)
    return ram.eval(), json.loads(header["history"])
