"""Features on disk: a content-keyed cache that resumes, and packs that travel without pictures.

Both are safetensors with a JSON header: no file of the kit runs code when it is opened.
"""

import contextlib
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np

# what the kit's other modules know by these names
from impart_utils.sources.files import atomic_path, content_hash, file_hash, progress_bar
from impart_utils.sources.packs import Pack, check_pack, load_pack, save_pack
from impart_utils.sources.workers import open_batches

__all__ = ["Pack", "atomic_path", "check_pack", "content_hash", "encode_to_cache", "file_hash", "load_pack",
           "progress_bar", "save_pack"]

SHARD_ITEMS = 1024  # items per file of the cache: what a kill can cost at most


def encode_to_cache(encode, items, path, *, key, prepare=None, batch_size=64, workers=None):
    """Encode many items in batches, keeping finished shards on disk: a killed run goes on where it was.

    In memory are a few batches of items, however many there are, and the features.

    Parameters
    ----------
    encode : callable, list of b items -> array (b, d)
        For example ``clip.encode_images``. It gets one batch at a time, the last one possibly smaller.
    items : sequence of (id, item)
        `item` is the picture or text itself, or a function without arguments that opens it.
    path : folder of the cache. What belongs to another `key` or other ids lies beside, untouched.
    key : str
        Names all that the features depend on besides the ids: the weights, the precision, the data.
    prepare : function of an opened item, optional, for what other processes can do
        ``clip.prepare``, where `encode` is ``clip.encode_images``.
    batch_size : int
    workers : int or None (as many as pay), processes that open and prepare: see `workers.open_batches`

    Returns
    -------
    features : float32 array (m, d), in the order of `items` without the skipped
    ids : list of m ids
    skipped : dict, id -> reason, for the items that can't be opened or prepared

    Raises
    ------
    ValueError : two items with one id, no item at all, features that aren't finite, or not one per item.
    """
    ids = [str(name) for name, _ in items]
    if len(set(ids)) != len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise ValueError(f"Expected one item per id, got id {twice!r} more than once. Make the ids unique.")
    if not ids:
        raise ValueError(f"Expected at least one item to encode for {path}, got none.")
    folder = Path(path) / content_hash(key, ids, SHARD_ITEMS)
    shards = {folder / f"shard-{number:06d}.safetensors": range(len(ids))[start:start + SHARD_ITEMS]
              for number, start in enumerate(range(0, len(ids), SHARD_ITEMS))}
    missing = {shard: [rows[start:start + batch_size] for start in range(0, len(rows), batch_size)]
               for shard, rows in shards.items() if not shard.exists()}
    batches = [rows for parts in missing.values() for rows in parts]
    with (contextlib.closing(open_batches(items, batches, prepare=prepare, workers=workers)) as opened,
          progress_bar(total=sum(map(len, batches)), description=f"encoding {Path(path).name}",
                       unit=" items", progress=bool(batches)) as bar):
        for shard, parts in missing.items():
            _encode_shard(encode, itertools.islice(opened, len(parts)), shard, key, bar)
    return _merge_shards(shards, folder, len(ids))


def _encode_shard(encode, batches, path, key, bar):
    from safetensors.numpy import save_file

    features, ids, skipped = [], [], {}
    for names, opened, reasons in batches:
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
        skipped.update(reasons)
        bar.update(len(names) + len(reasons))
    arrays = {"features": np.concatenate(features)} if features else {}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={"key": str(key), "ids": json.dumps(ids),
                                               "skipped": json.dumps(skipped)})


def _merge_shards(paths, folder, n):
    from safetensors import safe_open

    features, ids, skipped = None, [], {}
    for path in paths:
        with safe_open(path, "np") as file:
            header = file.metadata()
            names = json.loads(header["ids"])
            if names:
                block = file.get_tensor("features")
                if features is None:
                    features = np.empty((n, block.shape[1]), np.float32)
                features[len(ids):len(ids) + len(names)] = block
        ids += names
        skipped.update(json.loads(header["skipped"]))
    if features is None:
        reason = next(iter(skipped.values()))
        raise ValueError(f"None of {len(skipped)} items could be opened; the first reason: {reason}. "
                         f"Mend the files and remove {folder}.")
    return features[:len(ids)], ids, skipped
