"""Feature packs: features that travel as one file, without pictures, weights or pickles."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from impart_utils.sources.files import atomic_path, content_hash


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
    metadata : dict, for example licence and page per row, and where the features come from
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

    @property
    def key(self):
        """Content hash of the features."""
        arrays = [getattr(self, name) for name in _PACK_ARRAYS]
        return content_hash(*[array for array in arrays if array is not None])


_PACK_ARRAYS = ("image_features", "text_features", "labels", "class_features")
_PACK_LISTS = ("ids", "model", "captions", "class_names", "prompts", "metadata")


def save_pack(path, pack):
    """Write a `Pack` as one safetensors file (arrays as they are, the rest as JSON in its header)."""
    from safetensors.numpy import save_file

    check_pack(pack, path)
    arrays = {name: np.ascontiguousarray(getattr(pack, name)) for name in _PACK_ARRAYS
              if getattr(pack, name) is not None}
    header = {"impart_pack": json.dumps({name: getattr(pack, name) for name in _PACK_LISTS})}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata=header)


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
    FileNotFoundError, ValueError : the message names the file and what is wrong in it.
    """
    path, texts = str(path), ""
    if not Path(path).is_file():  # a "+" may also stand in a folder's name
        path, _, texts = path.partition("+")
    for name in filter(None, [path, texts]):
        if not Path(name).is_file():
            raise FileNotFoundError(f"There is no feature pack at {name}. Check the path given after "
                                    "'pack:'.")
    if path.endswith(".npz"):
        pack = _pack_from_npz(path, texts)
    else:
        pack = _pack_from_safetensors(path)
    check_pack(pack, path)
    return pack


def _pack_from_safetensors(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            header = (file.metadata() or {}).get("impart_pack")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}). Copy it again.") from error
    if header is None:
        raise ValueError(f"{path} is a safetensors file but no feature pack: make one with save_pack.")
    return Pack(**arrays, **json.loads(header))


def _pack_from_npz(path, texts):
    arrays = _read_npz(path)
    if "image_features" not in arrays:
        raise ValueError(f"Expected an array image_features in {path}, found {', '.join(arrays)}.")
    rows = len(arrays["image_features"])
    id_names = [name for name in ("ids", "image_id", "file_names", "cifar10_test_index", "source_row")
                if name in arrays]
    values = arrays[id_names[0]] if id_names else np.arange(rows)
    names = arrays.get("label_names", arrays.get("class_names"))
    found = dict(
        image_features=arrays["image_features"].astype(np.float32), ids=[str(value) for value in values],
        model=str(np.ravel(arrays["model"])[0]) if "model" in arrays else "unknown",
        class_names=None if names is None else [str(name) for name in names],
        labels=arrays["labels"].astype(np.int64) if "labels" in arrays else None,
        metadata={"source": Path(path).name},
    )
    if texts:
        index = arrays.get("text_index", arrays.get("pseudo_text_index"))
        if index is None:
            raise ValueError(f"Expected text_index or pseudo_text_index in {path}, to take texts from "
                             f"{texts}.")
        other = _read_npz(texts)
        if "text_features" not in other:
            raise ValueError(f"Expected an array text_features in {texts}, found {', '.join(other)}.")
        if len(index) and not 0 <= index.min() <= index.max() < len(other["text_features"]):
            raise ValueError(f"{path}: expected text_index from 0 to {len(other['text_features']) - 1}, the "
                             f"rows of {texts}, got {index.min()} to {index.max()}.")
        found["text_features"] = other["text_features"][index].astype(np.float32)  # (m, d)
        found["captions"] = [f"a {other['labels'][row]}" if "labels" in other else str(row) for row in index]
        found["metadata"]["texts"] = Path(texts).name
    elif "text_features" in arrays:
        prompts = arrays.get("text_prompts", arrays.get("captions"))
        prompts = None if prompts is None else [str(prompt) for prompt in prompts]
        if names is not None and len(arrays["text_features"]) == len(names):
            found.update(class_features=arrays["text_features"].astype(np.float32), prompts=prompts)
        else:
            found.update(text_features=arrays["text_features"].astype(np.float32), captions=prompts)
    return Pack(**found)


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:  # a pickle could run code
            return {name: file[name] for name in file.files if name != "images"}
    except (zipfile.BadZipFile, ValueError, EOFError, TypeError) as error:  # TypeError: one bare .npy array
        raise ValueError(f"{path} is not an .npz of plain arrays ({error}).") from error


def check_pack(pack, path):
    """Raise ValueError, naming `path`, unless the pack's arrays and lists fit together and are finite."""
    if np.ndim(pack.image_features) != 2:
        raise ValueError(f"{path}: expected image_features of shape (m, d), "
                         f"got {np.shape(pack.image_features)}.")
    m, d = np.shape(pack.image_features)
    for name in ("image_features", "text_features", "class_features"):
        block = getattr(pack, name)
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
    if pack.labels is not None:
        classes = len(pack.class_names or [])
        if not classes or pack.labels.min() < 0 or pack.labels.max() >= classes:
            raise ValueError(f"{path}: expected labels from 0 to {classes - 1} with one class name each.")
    if pack.class_features is not None and len(pack.class_features) != len(pack.class_names or []):
        raise ValueError(f"{path}: expected one row of class_features for each class name.")
