"""Features on disk: a content-keyed cache that resumes, and packs that travel without pictures.

Both are safetensors with a JSON header: no file of the kit runs code when it is opened.
"""

import json
from pathlib import Path

import numpy as np

# what the kit's other modules know by these names
from impart_utils.sources.files import atomic_path, content_hash, file_hash, progress_bar
from impart_utils.sources.packs import Pack, check_pack, load_pack, save_pack

__all__ = ["Pack", "atomic_path", "check_pack", "content_hash", "encode_to_cache", "file_hash", "load_pack",
           "progress_bar", "save_pack"]

SHARD_ITEMS = 1024  # items per file of the cache: what a kill can cost at most


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
