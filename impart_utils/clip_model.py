"""CLIP: load a checkpoint, turn pictures and texts into features. The only module that runs CLIP."""

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from impart_utils.config import CHECKPOINTS, PRECISIONS
from impart_utils.sources import checkpoints
from impart_utils.sources.features import file_hash

BATCH = 32  # pictures at a time: the fastest on CPU (8 to 32 fit its cache); a GPU takes what it is given


@dataclass(frozen=True)
class Clip:
    """A loaded CLIP; made by `load_clip`.

    Attributes
    ----------
    name : str;  provenance : str, whose weights these are, in words
    dim : int, d;  key : str, names weights, precision and kind of device in every cache
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

    def encode_images(self, pictures):
        """Features of pictures.

        Parameters
        ----------
        pictures : list of PIL images of any size and mode (CLIP resizes, crops and converts to RGB)

        Returns
        -------
        image_features : float32 array (n, d), raw: not normalized
        """
        if len(pictures) == 0:
            return np.empty((0, self.dim), np.float32)
        size = BATCH if self.device == "cpu" else 256
        return np.concatenate([self._encode_pictures(pictures[i:i + size])
                               for i in range(0, len(pictures), size)])

    def _encode_pictures(self, pictures):
        batch = torch.stack([self.preprocess(picture) for picture in pictures])  # (b, 3, h, w)
        batch = batch.to(self.device)
        with torch.inference_mode(), self._autocast():
            return self.model.encode_image(batch).float().cpu().numpy()  # (b, d)

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
        if not texts:
            return np.empty((0, self.dim), np.float32)
        tokens = checkpoints.import_clip().tokenize(texts, truncate=True)  # (n, 77)
        lengths = tokens.argmax(dim=1) + 1  # the end token has the highest number
        order = lengths.argsort(stable=True)
        features = np.empty((len(texts), self.dim), np.float32)
        for rows in order.split(64 if self.device == "cpu" else 512):  # short with short
            batch = tokens[rows, :int(lengths[rows].max())].to(self.device)
            with torch.inference_mode(), self._autocast():
                features[rows.numpy()] = encode_tokens(self.model, batch).float().cpu().numpy()
        return features

    def _autocast(self):
        if self.precision == "bf16":
            return torch.autocast(self.device, torch.bfloat16)
        return contextlib.nullcontext()


def encode_tokens(model, tokens):
    """`model.encode_text` for tokens cut at the batch's longest text: (b, l) -> (b, d).

    Exact, because each token sees only those before it (the causal mask): what stands behind the end
    token can't reach it. On captions it saves more than half of the work.
    """
    length = tokens.shape[1]
    x = model.token_embedding(tokens).type(model.dtype)  # (b, l, w)
    x = x + model.positional_embedding[:length].type(model.dtype)
    x = x.permute(1, 0, 2)  # (l, b, w), as CLIP has it
    mask = model.build_attention_mask()[:length, :length].to(x)
    for block in model.transformer.resblocks:
        y = block.ln_1(x)
        x = x + block.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        x = x + block.mlp(block.ln_2(x))
    x = model.ln_final(x.permute(1, 0, 2)).type(model.dtype)  # (b, l, w)
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection  # (b, w) @ (w, d)


def load_clip(name_or_path, *, checkpoint=None, device=None, precision="auto", allow_unverified=False):
    """Load a CLIP and check that it is what its name says.

    Parameters
    ----------
    name_or_path : "tiny" (the demo's), a name of OpenAI's ("ViT-B/32"), or the path of a ViT-B/32 checkpoint
    checkpoint : path, optional: the file that holds the named model's weights
    device : "cpu", "cuda" or None (the GPU where there is one)
    precision : "auto" (fp32 on the CPU, fp16 on a GPU, as CLIP itself does), "fp32", "fp16" or "bf16"
    allow_unverified : bool, accept weights that aren't OpenAI's own file; the results name them

    Returns
    -------
    clip : Clip

    Raises
    ------
    ValueError, FileNotFoundError, config.MissingInput : see `sources.checkpoints`.
    """
    clip = checkpoints.import_clip()
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown precision {precision!r}. Known: {', '.join(PRECISIONS)}.")
    device = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = str(name_or_path)
    if checkpoint is None and name.endswith(CHECKPOINTS):
        name, checkpoint = "ViT-B/32", name
    path = checkpoints.find_checkpoint(name, checkpoint)
    sha256, state_dict = file_hash(path), checkpoints.read_state_dict(path)
    provenance = checkpoints.verify(state_dict, path, name, sha256=sha256, allow_unverified=allow_unverified)
    # a copy: build_model takes entries out of the dict it gets
    model = clip.model.build_model(dict(state_dict)).float()
    # again, because build_model rounds to half precision on the way
    model.load_state_dict({key: value for key, value in state_dict.items() if key in model.state_dict()})
    model = model.to(device).eval()
    if precision == "auto":
        precision = "fp32" if device == "cpu" else "fp16"
    if precision == "fp16":
        clip.model.convert_weights(model)
    return Clip(
        name=name, provenance=provenance, dim=model.text_projection.shape[1],
        key=f"{sha256[:16]}-{precision}-{torch.device(device).type}", model=model,
        preprocess=clip.clip._transform(model.visual.input_resolution), device=device, precision=precision)
