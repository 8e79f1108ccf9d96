"""CLIP: load a checkpoint, turn pictures and texts into features. The only module that runs CLIP."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from impart_utils.clip_towers import encode_pixels, encode_tokens, lower_precision
from impart_utils.config import PRECISIONS
from impart_utils.sources import checkpoints, clip_checks
from impart_utils.sources.clip_architectures import build_model
from impart_utils.sources.packs import preprocessing_hash
from impart_utils.sources.pictures_io import to_rgb

# (pictures, texts) at a time: 8 to 32 pictures fit a CPU's cache, and no more is faster
BATCHES = {"cpu": (32, 64), "gpu": (256, 512)}
WINDOW = 4096  # texts that are tokenized and sorted together


@dataclass(frozen=True)
class Clip:
    """A loaded CLIP; made by `load_clip`.

    Attributes
    ----------
    name : str;  provenance : str, whose weights these are, in words
    dim : int, d;  key : str, names weights, preprocessing, precision and kind of device in every cache
    model : clip.model.CLIP, in eval mode
    """

    name: str
    provenance: str
    dim: int
    key: str
    model: Any
    preprocess: Any
    device: str
    precision: str

    @property
    def prepare(self):
        """Function of a PIL image: as RGB, resized and cropped by CLIP's own preprocessing, uint8 (h, w, 3).

        Other processes can do this part: see `sources.features.encode_to_cache`. It goes without the model,
        so that it is small to send to them.
        """
        return partial(prepare_picture, self.preprocess.transforms[:2])

    def encode_images(self, pictures):
        """Features of pictures.

        Parameters
        ----------
        pictures : list of PIL images of any size and mode (they become RGB, then CLIP resizes and crops), or
            of what `prepare` made of them

        Returns
        -------
        image_features : float32 array (n, d), raw: not normalized
        """
        prepare = self.prepare
        return self._in_batches(pictures, lambda batch: encode_pixels(self.model, self._pixels(
            [picture if isinstance(picture, np.ndarray) else prepare(picture) for picture in batch])))

    def encode_texts(self, texts):
        """Features of texts; longer ones are cut at CLIP's 77 tokens, as the paper's code does.

        Parameters
        ----------
        texts : list of str

        Returns
        -------
        text_features : float32 array (n, d), raw: not normalized

        Raises
        ------
        TypeError : something that isn't a str, such as the NaN of an empty caption.
        """
        texts = list(texts)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"Expected texts to be str, got {text!r} in row {row}. "
                                "Write '' for an empty caption.")
        features = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), WINDOW):
            features[start:start + WINDOW] = self._encode_window(texts[start:start + WINDOW])
        return features

    def _encode_window(self, texts):
        tokens = checkpoints.import_clip().tokenize(texts, truncate=True)  # (n, 77)
        lengths = tokens.argmax(dim=1) + 1  # the end token has the highest number
        order = lengths.argsort(stable=True)  # short with short, each batch cut at its longest
        features = np.empty((len(texts), self.dim), np.float32)
        features[order.numpy()] = self._in_batches(order, lambda rows: encode_tokens(
            self.model, self._on_device(tokens[rows, :int(lengths[rows].max())])), texts=True)
        return features

    def _in_batches(self, items, encode, *, texts=False):
        """`encode`, items -> tensor (b, d), of as many at a time as are fastest; a GPU is waited for once."""
        size = BATCHES["cpu" if self.device == "cpu" else "gpu"][texts]
        features = [encode(items[start:start + size]) for start in range(0, len(items), size)]
        return torch.cat(features).float().cpu().numpy() if features else np.empty((0, self.dim), np.float32)

    def _pixels(self, prepared):
        """List of b uint8 arrays (h, w, 3) -> normalized float32 (b, 3, h, w) on the device."""
        batch = torch.from_numpy(np.stack([picture.transpose(2, 0, 1) for picture in prepared]))
        # as ToTensor and Normalize do picture by picture; a quarter of the bytes go to the device
        return self.preprocess.transforms[-1](self._on_device(batch).float().div_(255))

    def _on_device(self, batch):
        if torch.device(self.device).type == "cuda":  # from pinned memory: the CPU needn't wait
            return batch.pin_memory().to(self.device, non_blocking=True)
        return batch.to(self.device)


def prepare_picture(resize_and_crop, picture):
    """A PIL image of any mode -> uint8 array (h, w, 3); `resize_and_crop` are two functions of an image."""
    picture = to_rgb(picture)
    for step in resize_and_crop:
        picture = step(picture)
    return np.asarray(picture)


def load_clip(name_or_path, *, checkpoint=None, device=None, precision="auto", allow_unverified=False):
    """Load a CLIP and check that it is what its name says.

    Parameters
    ----------
    name_or_path : "tiny" (the demo's), a name of OpenAI's ("ViT-B/32"), or the path of a ViT-B/32 checkpoint
    checkpoint : path, optional: the file that holds the named model's weights. Without it OpenAI's own file
        is taken from clip's cache, and downloaded into it where it isn't there (ViT-B/32: 354 MB).
    device : "cpu", "cuda" or None (the GPU where there is one)
    precision : "auto" (fp32 on the CPU, fp16 on a GPU, as CLIP itself does), "fp32", "fp16" or "bf16"
    allow_unverified : bool, accept weights that aren't OpenAI's own file; the results name them

    Returns
    -------
    clip : Clip

    Raises
    ------
    ValueError, FileNotFoundError, config.MissingInput : see `sources.checkpoints`; and ValueError where
        OpenAI's own ViT-B/32 doesn't give the cosines of `sources.clip_checks`.
    """
    clip = checkpoints.import_clip()
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown precision {precision!r}. Known: {', '.join(PRECISIONS)}.")
    device = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name, checkpoint = checkpoints.named(name_or_path, checkpoint)
    path = checkpoints.find_checkpoint(name, checkpoint, fetch=True)
    state_dict, sha256 = checkpoints.read_checkpoint(path, name)
    provenance = checkpoints.verify(state_dict, path, name, sha256=sha256, allow_unverified=allow_unverified)
    model = build_model(state_dict, path)  # fp32, on the CPU
    loaded = Clip(
        name=name, provenance=provenance, dim=model.text_projection.shape[1], key="", model=model,
        preprocess=clip.clip._transform(model.visual.input_resolution), device="cpu", precision="fp32")
    if name == "ViT-B/32":  # before precision or device can blur what the weights give
        provenance = clip_checks.with_verdict(
            provenance, loaded.encode_texts, official=sha256 == checkpoints.official_hash(name))
    if precision == "auto":
        precision = "fp32" if device == "cpu" else "fp16"
    model = model.to(device)
    if precision != "fp32":
        lower_precision(model, torch.float16 if precision == "fp16" else torch.bfloat16)
    pixels = preprocessing_hash(lambda picture: loaded._pixels([loaded.prepare(picture)]))
    key = f"{sha256[:16]}-{pixels}-{precision}-{torch.device(device).type}"
    return replace(loaded, provenance=provenance, key=key, device=device, precision=precision)
