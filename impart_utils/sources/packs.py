"""Feature packs: features that travel as one file, without pictures, weights or pickles.

A pack is a safetensors file with a JSON header and the hash of its content (`sources.pack_files`).
"""

import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from impart_utils.sources.files import content_hash
from impart_utils.sources.foreign_packs import read_npz_pack
from impart_utils.sources.pack_files import content_of, read_arrays, write_arrays

STORED = "stored/stored"  # prompts and names of another program's class features
_ARRAYS = ("image_features", "text_features", "labels", "class_features")
_LISTS = ("ids", "model", "captions", "class_names", "prompts", "metadata", "protocol", "license", "source",
          "made_by")


@dataclass(frozen=True)
class Pack:
    """Features that travel without pictures. Rows are pictures; all arrays are float32 unless said.

    Attributes
    ----------
    image_features : (m, d)
    ids : list of m str
    model : str, the weights the features come from, in words
    text_features : (m, d) or None, the text of each picture; captions : list of m str or None
    labels : (m,) int64 or None; class_names : list of c str; class_features : (c, d), from `prompts`
    metadata : dict, for example the page of each row
    class_texts : dict, "prompts/names" such as "paper/raw" or "openai/clean" -> (c, d), unit rows.
        `class_features` are there too, as "stored/stored".
    protocol : dict in words: what was encoded, how, with which templates. `dataset` in it, which
        `impart_utils.export` writes, says that the rows are that data set, as pictures would give it.
    license : str, or list of m str;  source : str, where the pictures come from
    made_by : str, version and commit of the kit; "" where another program made it
    """

    image_features: np.ndarray
    ids: list
    model: str
    text_features: np.ndarray | None = None
    captions: list | None = None
    labels: np.ndarray | None = None
    class_names: list | None = None
    class_features: np.ndarray | None = None
    prompts: list | None = None
    metadata: dict = field(default_factory=dict)
    class_texts: dict = field(default_factory=dict)
    protocol: dict = field(default_factory=dict)
    license: str | list = "not stated"
    source: str = ""
    made_by: str = ""

    def __post_init__(self):
        if self.class_features is not None and np.ndim(self.class_features) == 2:
            lengths = np.linalg.norm(self.class_features, axis=1, keepdims=True)
            usable = np.isfinite(lengths) & (lengths > 0)  # of other rows check_pack complains
            stored = self.class_features / np.where(usable, lengths, 1)
            object.__setattr__(self, "class_texts", {**self.class_texts, STORED: stored})

    @property
    def key(self):
        """Content hash of all that the pack holds."""
        return content_of(*_parts(self))

    @property
    def weights(self):
        """Whose CLIP made the features, in words."""
        return self.model

    @property
    def dataset(self):
        """The data set that the rows are, by the pack's own protocol; "" where the kit didn't make it."""
        return self.protocol.get("dataset", "") if self.made_by else ""


def save_pack(path, pack):
    """Write a `Pack` as one safetensors file: arrays as they are, the rest as JSON, and the hash of both."""
    check_pack(pack, path)
    write_arrays(path, *_parts(pack))


def load_pack(path):
    """Read a pack of features: the kit's own safetensors file, or an .npz of plain arrays.

    Parameters
    ----------
    path : str or Path
        "IMAGES.npz+TEXTS.npz" takes the text of each picture from a second file, in which the first
        one's `text_index` (or `pseudo_text_index`) names the row.

    Names read from an .npz: `image_features` (m, d); `labels` (m,) with `label_names` or `class_names`
    (c,); `text_features`, one row per picture or per class, with `captions` or `text_prompts`; ids from
    `ids`, `image_id`, `file_names`, `cifar10_test_index` or `source_row`; `model`.

    Raises
    ------
    FileNotFoundError, ValueError : the message names the file and what is wrong in it, such as content that
        isn't what its hash says.
    """
    path, texts = str(path), ""
    if not Path(path).is_file():  # a "+" may also stand in a folder's name
        path, _, texts = path.partition("+")
    for name in filter(None, [path, texts]):
        if not Path(name).is_file():
            raise FileNotFoundError(f"There is no feature pack at {name}. Check the path given after "
                                    "'pack:'.")
    pack = Pack(**(read_npz_pack(path, texts) if path.endswith(".npz") else _read_own(path)))
    check_pack(pack, path)
    return pack


def _parts(pack):
    """(arrays by name, everything else): how a `Pack` is written."""
    arrays = {name: getattr(pack, name) for name in _ARRAYS if getattr(pack, name) is not None}
    arrays.update({f"class_texts/{key}": block for key, block in pack.class_texts.items()
                   if key != STORED or pack.class_features is None})  # otherwise it's made anew
    return arrays, {name: getattr(pack, name) for name in _LISTS}


def _read_own(path):
    arrays, lists = read_arrays(path)
    if lists.pop("kind", "pictures") != "pictures":
        raise ValueError(f"{path} is a pack of films, not of pictures. Give it as --set films=pack:FILE.")
    texts = {name.removeprefix("class_texts/"): arrays.pop(name)  # paper/raw first
             for name in sorted(arrays, reverse=True) if name.startswith("class_texts/")}
    unknown = sorted((set(arrays) - set(_ARRAYS)) | (set(lists) - set(_LISTS)))
    if unknown or "image_features" not in arrays:
        what = f"it holds {unknown[0]!r}" if unknown else "it has no image_features"
        raise ValueError(f"{path} is no feature pack that this version of the kit can read: {what}. "
                         "Make it anew, or use the version that made it.")
    return {**arrays, **lists, "class_texts": texts}


def check_pack(pack, path):
    """Raise ValueError, naming `path`, unless the pack's arrays and lists fit together and are finite."""
    if np.ndim(pack.image_features) != 2:
        raise ValueError(f"{path}: expected image_features of shape (m, d), "
                         f"got {np.shape(pack.image_features)}.")
    m, d = np.shape(pack.image_features)
    blocks = {name: getattr(pack, name) for name in ("image_features", "text_features", "class_features")}
    blocks.update({f"class_texts {key}": block for key, block in pack.class_texts.items() if key != STORED})
    for name, block in blocks.items():
        if block is None:
            continue
        if block.ndim != 2 or block.shape[1] != d:
            raise ValueError(f"{path}: expected {name} with {d} columns, got shape {block.shape}.")
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1) | ~np.any(block, axis=1))
        if bad.size:
            raise ValueError(f"{path}: row {bad[0]} of {name} is zero or not finite. Encode that item again.")
    for name in ("ids", "text_features", "captions", "labels"):
        rows = getattr(pack, name)
        if rows is not None and len(rows) != m:
            raise ValueError(f"{path}: expected {m} rows in {name}, got {len(rows)}.")
    if not isinstance(pack.license, str) and len(pack.license) != m:
        raise ValueError(f"{path}: expected one license for all or {m}, got {len(pack.license)}.")
    _check_classes(pack, path)


def _check_classes(pack, path):
    classes = len(pack.class_names or [])
    if pack.labels is not None and (not classes or np.any((pack.labels < 0) | (pack.labels >= classes))):
        raise ValueError(f"{path}: expected labels from 0 to {classes - 1} with one class name each.")
    if pack.class_features is not None and len(pack.class_features) != classes:
        raise ValueError(f"{path}: expected one row of class_features for each class name.")
    for key, block in pack.class_texts.items():
        if len(block) != classes or key.count("/") != 1:
            raise ValueError(f"{path}: expected class_texts named 'prompts/names' with a row for each of "
                             f"{classes} class names, got {key!r} with {len(block)}.")
        lengths = np.linalg.norm(block, axis=1)
        if np.any(np.abs(lengths - 1) > 1e-3):
            raise ValueError(f"{path}: expected class_texts {key} of unit length, got {lengths.max():.3g}. "
                             "Make them with zeroshot.class_features.")


# ---- Around packs ----------------------------------------------------------------------------------


def grey_tile(name, size=64):
    """What stands for a picture of which only features are at hand: a grey PIL image that says `name`."""
    from PIL import Image, ImageDraw, ImageFont

    tile = Image.new("RGB", (size, size), "lightgrey")
    lines = [line for part in name.split("\n") for line in textwrap.wrap(part, size // 6)]
    ImageDraw.Draw(tile).multiline_text((2, 2), "\n".join(lines), fill="dimgrey",
                                        font=ImageFont.load_default(size=10))
    return tile


def preprocessing_hash(preprocess):
    """8 hex characters over what a preprocessing makes of a test picture: part of the key of every cache.

    Another size, interpolation, mean or library that rounds otherwise gives another hash.

    Parameters
    ----------
    preprocess : callable, PIL image -> tensor (3, h, w)
    """
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    return content_hash(np.asarray(preprocess(Image.fromarray(noise))))[:8]
