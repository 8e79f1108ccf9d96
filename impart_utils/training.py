"""Train RAM on cached features, and give RAM's output for many queries.

CLIP is frozen, so its features and the neighbors never change: they are computed once, and an epoch
is only the attention. (The paper's code decodes, encodes and retrieves everything again each epoch.)
"""

import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from impart_utils.adam import Adam
from impart_utils.contrastive import alignment, chance_loss, contrastive_loss
from impart_utils.ram import RAM
from impart_utils.ram_files import TrainingState, load_ram, load_state, save_ram, save_state
from impart_utils.ram_gradient import backward
from impart_utils.ram_variants import CONFIGURATIONS, PAPER_CODE, configuration
from impart_utils.sources.files import content_hash, progress_bar

__all__ = ["CONFIGURATIONS", "PAPER_CODE", "alignment", "apply_ram", "chance_loss", "configuration",
           "contrastive_loss", "load_ram", "new_ram", "save_ram", "train_ram"]

LOWEST_TEMPERATURE = 0.01  # of a learned one: CLIP never scales its cosines by more than 100
SAMPLE = 500  # training pairs whose alignment is measured after an epoch


def new_ram(dim, *, seed, **options):
    """A RAM whose initial weights depend on `seed` alone; torch's global generator stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RAM(dim, **options)


def train_ram(ram, image_features, text_features, reference_image_features, reference_text_features,
              neighbor_indices, *, seed, epochs=8, batch_size=100, learning_rate=1e-3, temperature=1.0,
              learn_temperature=False, schedule="constant", max_steps=None, validation=None, patience=None,
              each_epoch=None, checkpoint=None, progress=True):
    """Train `ram` in place so that augmented pictures match their texts.

    Parameters
    ----------
    ram : RAM
    image_features, text_features : arrays (n, d), the training pairs. A memory-mapped array (np.memmap) is
        read batch by batch and never held whole.
    reference_image_features, reference_text_features : arrays (m, d)
    neighbor_indices : int array (n, k), rows of the references for each training picture
    seed : int, order of the batches
    epochs, batch_size, learning_rate, temperature : by default the paper's code (`PAPER_CODE`)
    learn_temperature : bool, T is a parameter that starts at `temperature` and stays above 0.01, as CLIP's
    schedule : "constant" or "cosine" (falls from `learning_rate` to 0 over all steps)
    max_steps : int, optional: stop after so many steps, within an epoch if need be
    validation : (image_features, text_features, neighbor_indices) of other pairs, optional
    patience : int, optional: stop after so many epochs without a lower validation loss. The weights with the
        lowest are kept, those before training included.
    each_epoch : function of (epoch, ram), optional. It gets a copy of RAM before training (epoch 0) and after
        each epoch; the dict that it returns goes into the history and nowhere else.
    checkpoint : path, optional. Written after each epoch; where it exists, training goes on from it and ends
        with the bits that it would have had without the break.
    progress : bool, show a bar

    Returns
    -------
    history : list of dict, a row per step with epoch (from 1), step (from 1), loss. An epoch's last row also
        has temperature, learning_rate, seconds (of training, so far), alignment (of the validation pairs or
        else the first 500 training pairs), validation_loss where there are such pairs, and `each_epoch`'s.
        With `validation` or `each_epoch` a row for epoch 0 comes first, without a loss.

    Raises
    ------
    ValueError : arrays that don't fit together, settings that can't work, a loss that is no longer finite,
        or the checkpoint of another training.
    """
    n = len(image_features)
    if not n or len(text_features) != n or len(neighbor_indices) != n:
        raise ValueError(f"Expected one text and one row of neighbors per training picture, got {n} "
                         f"pictures, {len(text_features)} texts, {len(neighbor_indices)} rows of neighbors.")
    _check_settings(epochs, batch_size, temperature, schedule, max_steps, validation, patience)
    references, device = (reference_image_features, reference_text_features), next(ram.parameters()).device
    pairs = _gatherer(neighbor_indices, *references, image_features, text_features, device=device)
    measured, rows_measured = pairs, min(n, SAMPLE)
    if validation is not None:
        v, t, validation_neighbors = validation
        measured, rows_measured = _gatherer(validation_neighbors, *references, v, t, device=device), len(v)
    state = _start(ram, seed, temperature, learn_temperature)
    steps = min(epochs * math.ceil(n / batch_size), max_steps or math.inf)
    if checkpoint is not None:
        whole = epochs if schedule == "cosine" else None  # a constant rate may be asked to go on longer
        key = _key(ram, (image_features, text_features, neighbor_indices, *references, *(validation or ())),
                   seed, batch_size, learning_rate, temperature, learn_temperature, schedule, max_steps,
                   patience, whole)
        if Path(checkpoint).exists():
            load_state(checkpoint, state, key)
            if state.history[-1]["step"] > steps:
                raise ValueError(f"The checkpoint {checkpoint} has {state.history[-1]['step']} steps behind "
                                 f"it, more than the {steps} asked for. Remove it, or ask for more epochs.")

    def close_epoch(epoch):
        """What is known of the weights after an epoch; also notes the best ones."""
        loss, aligned = _measure(ram, measured, rows_measured, batch_size,
                                 None if validation is None else _temperature(state))
        found = {"temperature": _temperature(state).item(), "alignment": aligned}
        if validation is not None:
            found["validation_loss"] = loss
            if patience is not None and loss < min(_validation_losses(state.history), default=math.inf):
                state.best = {name: value.clone() for name, value in ram.state_dict().items()}
        return found | (each_epoch(epoch, copy.deepcopy(ram).eval()) if each_epoch else {})

    if not state.history and (each_epoch or validation is not None):
        state.history.append({"epoch": 0, "step": 0, "seconds": 0.0, **close_epoch(0)})
    ram.train()
    step, epoch, seconds = (state.history[-1][name] if state.history else 0
                            for name in ("step", "epoch", "seconds"))
    with progress_bar(total=steps, initial=step, description="training RAM", progress=progress) as bar:
        while step < steps and not _patience_is_over(state.history, patience):
            epoch, started = epoch + 1, time.perf_counter()
            for rows in torch.randperm(n, generator=state.order).split(batch_size):  # the last may be smaller
                rate = _rate(learning_rate, schedule, step, steps)
                loss = _step(state, pairs(rows), rate, epoch)
                step += 1
                state.history.append({"epoch": epoch, "step": step, "loss": loss})
                bar.update()
                if step == steps:
                    break
            seconds += time.perf_counter() - started
            state.history[-1] |= {"learning_rate": rate, "seconds": seconds, **close_epoch(epoch)}
            bar.set_postfix(loss=loss, alignment=state.history[-1]["alignment"], refresh=False)
            if checkpoint is not None:
                save_state(checkpoint, state, key)
    if state.best:
        ram.load_state_dict(state.best)
    ram.eval()
    return state.history


def apply_ram(ram, image_features, reference_image_features, reference_text_features, neighbor_indices, *,
              batch_size=500):
    """RAM's output for many queries.

    Parameters
    ----------
    image_features : array (n, d);  reference_…_features : arrays (m, d);  neighbor_indices : int array (n, k)
    batch_size : int, queries at a time; a few hundred fit a CPU's cache

    Returns
    -------
    augmented_features : float32 array (n, d), not normalized
    """
    queries = _gatherer(neighbor_indices, reference_image_features, reference_text_features, image_features,
                        device=next(ram.parameters()).device)
    augmented = np.empty((len(image_features), ram.dim), np.float32)
    with torch.inference_mode():
        for rows in torch.arange(len(augmented)).split(batch_size):
            r_img, r_txt, v = queries(rows)
            augmented[rows.numpy()] = ram(v, r_img, r_txt).cpu().numpy()  # (b, d)
    return augmented


def _gatherer(neighbor_indices, R_img, R_txt, *blocks, device):
    """A function, rows (b,) -> r_img (b, k, d), r_txt (b, k, d) and these rows (b, d) of each block."""
    neighbors = _checked(neighbor_indices, len(blocks[0]), len(R_img))  # (n, k)
    take_img, take_txt, *take = (_taker(block, device) for block in (R_img, R_txt, *blocks))
    return lambda rows: (take_img(neighbors[rows]), take_txt(neighbors[rows]), *(one(rows) for one in take))


def _taker(block, device):
    """A function, rows -> these rows as a float32 tensor on the device."""
    if isinstance(block, np.memmap):  # read from disk what is asked for, not the whole
        return lambda rows: torch.from_numpy(np.asarray(block[rows.numpy()], dtype=np.float32)).to(device)
    block = torch.as_tensor(np.asarray(block), dtype=torch.float32, device=device)
    return lambda rows: F.embedding(rows.to(device), block)  # block[rows], five times as fast


def _checked(neighbor_indices, n, m):
    neighbors = torch.as_tensor(np.asarray(neighbor_indices))
    if len(neighbors) != n:
        raise ValueError(f"Expected one row of neighbors per picture, got {len(neighbors)} rows with {n} "
                         "pictures.")
    if neighbors.numel() and not 0 <= neighbors.min() <= neighbors.max() < m:
        raise ValueError(f"Expected neighbor_indices from 0 to {m - 1}, got {neighbors.min()} to "
                         f"{neighbors.max()}.")
    return neighbors


def _check_settings(epochs, batch_size, temperature, schedule, max_steps, validation, patience):
    if min(epochs, batch_size, max_steps or 1) < 1 or not temperature > 0:
        raise ValueError("Expected epochs, batch_size and max_steps of at least 1 and temperature > 0, got "
                         f"{epochs}, {batch_size}, {max_steps} and {temperature}.")
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"Unknown schedule {schedule!r}. Known: 'constant', 'cosine'.")
    if patience is not None and (validation is None or patience < 1):
        raise ValueError(f"Expected patience >= 1 together with validation pairs, got patience={patience} "
                         f"and {'no' if validation is None else len(validation[0])} validation pairs.")


def _start(ram, seed, temperature, learn_temperature):
    device = next(ram.parameters()).device
    log_temperature = torch.tensor(math.log(temperature), device=device, requires_grad=learn_temperature)
    learned = [*ram.parameters(), *([log_temperature] if learn_temperature else [])]
    return TrainingState(ram, log_temperature, Adam(learned), torch.Generator().manual_seed(seed))


def _temperature(state):
    return state.log_temperature.exp()


def _step(state, batch, rate, epoch):
    """One step of Adam; the loss before it."""
    r_img, r_txt, image, text = batch
    loss = backward(state.ram, state.log_temperature, image, r_img, r_txt, text)
    if not math.isfinite(loss):
        raise ValueError(f"The loss is {loss} in epoch {epoch}. Lower learning_rate or raise temperature.")
    state.optimizer.step(rate)
    if state.log_temperature.requires_grad:
        with torch.no_grad():
            state.log_temperature.clamp_(min=math.log(LOWEST_TEMPERATURE))
    return loss


def _rate(learning_rate, schedule, step, steps):
    """The learning rate of the step after `step` steps out of `steps`."""
    return learning_rate * (1.0 if schedule == "constant" else (1 + math.cos(math.pi * step / steps)) / 2)


@torch.no_grad()
def _measure(ram, pairs, n, batch_size, temperature):
    """(loss, alignment) of the first n pairs, in batches like those of training; no loss without T."""
    total, augmented, texts = 0.0, [], []
    for rows in torch.arange(n).split(batch_size):
        r_img, r_txt, image, text = pairs(rows)
        augmented.append(ram(image, r_img, r_txt))
        texts.append(text)
        if temperature is not None:
            total += len(rows) * contrastive_loss(augmented[-1], text, temperature).item()
    return total / n, alignment(torch.cat(augmented), torch.cat(texts))


def _validation_losses(history):
    return [row["validation_loss"] for row in history if "validation_loss" in row]


def _patience_is_over(history, patience):
    losses = _validation_losses(history)
    return patience is not None and len(losses) - 1 - losses.index(min(losses)) >= patience


def _key(ram, arrays, *settings):
    """Names a training: its data, settings and initial weights."""
    blocks = [*map(np.asarray, arrays), *(value.cpu().numpy() for value in ram.state_dict().values())]
    pieces = [block[start:start + 50_000] for block in blocks for start in range(0, len(block), 50_000)]
    return content_hash(ram.options, settings, *pieces)  # in pieces, so that no block is copied whole
