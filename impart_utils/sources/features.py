"""Features on disk: a content-keyed cache that resumes, and packs that travel without pictures.

Both are safetensors with a JSON header: no file of the kit runs code when it is opened.
"""

import contextlib
import hashlib
import json
import os
import secrets
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SHARD_ITEMS = 1024  # items per file of the cache: what a kill can cost at most


@contextlib.contextmanager
def atomic_path(path):
    """A temporary path beside `path`, renamed to it when the block ends well and removed when not.

    A reader thus sees the old file or the whole new one, never half of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def content_hash(*parts):
    """16 hex characters over strings, numbers, bytes, arrays, lists and dicts of these."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            part = f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        elif not isinstance(part, bytes):
            part = json.dumps(part, sort_keys=True, default=_hashable).encode()
        digest.update(f"{len(part)} ".encode() + part)  # its length first, so that parts can't run together
    return digest.hexdigest()[:16]


def _hashable(value):
    """What JSON doesn't know: an array inside a list by its own hash, since str() leaves out its middle."""
    return content_hash(value) if isinstance(value, (np.ndarray, bytes)) else str(value)


def file_hash(path):
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def progress_bar(iterable=None, *, description, total=None, progress=True, **options):
    """A tqdm bar that leaves no trace in an executed notebook: standard output, removed at the end.

    `progress=False` shows none; `options` are tqdm's own, such as `unit`.
    """
    from tqdm import tqdm

    return tqdm(iterable, desc=description, total=total, file=sys.stdout, leave=False, mininterval=1.0,
                disable=not progress, **options)


def encode_to_cache(encode, items, path, *, key, batch_size=64):
    """Encode many items in batches, keeping finished shards on disk: a killed run goes on where it was.

    Parameters
    ----------
    encode : callable, list of b items -> array (b, d)
        For example ``clip.encode_images``. It gets one batch at a time, the last one possibly smaller.
    items : sequence of (id, item)
        `item` is the picture or text itself, or a function without arguments that opens it.
    path : folder of the cache. What belongs to another `key` or other ids lies beside, untouched.
    key : str
        Names all that the features depend on besides the ids: the weights, the precision, the data.
    batch_size : int

    Returns
    -------
    features : float32 array (m, d), in the order of `items` without the skipped
    ids : list of m ids
    skipped : dict, id -> reason, for the items that can't be opened

    Raises
    ------
    ValueError : two items with one id, no item at all, features that aren't finite, or not one per item.
    """
    ids = [str(name) for name, _ in items]
    if len(set(ids)) != len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"Expected one item per id, got id {twice!r} more than once. Make the ids unique.")
    if not ids:
        raise ValueError(f"Expected at least one item to encode for {path}, got none.")
    folder = Path(path) / content_hash(key, ids, SHARD_ITEMS)
    starts = range(0, len(ids), SHARD_ITEMS)
    missing = [start for start in starts if not _shard(folder, start).exists()]
    if missing:
        todo = sum(min(SHARD_ITEMS, len(ids) - start) for start in missing)
        with progress_bar(total=todo, description=f"encoding {Path(path).name}") as bar:
            for start in missing:
                _encode_shard(
                    encode, items[start:start + SHARD_ITEMS], _shard(folder, start), key, batch_size, bar)
    return _merge_shards([_shard(folder, start) for start in starts], folder)


def _shard(folder, start):
    return folder / f"shard-{start // SHARD_ITEMS:06d}.safetensors"


def _encode_shard(encode, items, path, key, batch_size, bar):
    from safetensors.numpy import save_file

    features, ids, skipped = [], [], {}
    for start in range(0, len(items), batch_size):
        opened, names = [], []
        for name, item in items[start:start + batch_size]:
            try:
                opened.append(item() if callable(item) else item)
                names.append(str(name))
            except (PermissionError, MemoryError, TimeoutError):
                raise  # not the file's fault: it isn't to be remembered as broken
            except Exception as error:  # whatever a broken file makes its reader raise: keep it as the reason
                skipped[str(name)] = f"{type(error).__name__}: {error}"
        if opened:
            batch = np.asarray(encode(opened), dtype=np.float32)  # (b, d)
            if batch.ndim != 2 or len(batch) != len(opened):
                raise ValueError(f"Expected encode to return one row for each of {len(opened)} items, "
                                 f"got an array of shape {batch.shape}.")
            if not np.isfinite(batch).all():
                row = names[int(np.flatnonzero(~np.isfinite(batch).all(axis=1))[0])]
                raise ValueError(f"Features of item {row!r} are not finite. Encode with precision='fp32'.")
            features.append(batch)
            ids += names
        bar.update(len(items[start:start + batch_size]))
    arrays = {"features": np.concatenate(features)} if features else {}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={"key": str(key), "ids": json.dumps(ids),
                                               "skipped": json.dumps(skipped)})


def _merge_shards(paths, folder):
    from safetensors import safe_open

    features, ids, skipped = [], [], {}
    for path in paths:
        with safe_open(path, "np") as file:
            header = file.metadata()
            features += [file.get_tensor("features")] if "features" in file.keys() else []
        ids += json.loads(header["ids"])
        skipped.update(json.loads(header["skipped"]))
    if not features:
        reason = next(iter(skipped.values()))
        raise ValueError(f"None of {len(skipped)} items could be opened; the first reason: {reason}. "
                         f"Mend the files and remove {folder}.")
    return np.concatenate(features), ids, skipped


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
