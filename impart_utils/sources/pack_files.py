"""The file under a feature pack: safetensors with named arrays, a JSON header, and the hash of both."""

import json
from pathlib import Path

import numpy as np

from impart_utils.sources.files import atomic_path, content_hash

FORMAT = 2  # from 2 on a pack carries its hash


def write_arrays(path, arrays, lists):
    """Write named arrays and what JSON can say as one safetensors file that carries its content's hash.

    Parameters
    ----------
    arrays : dict of str -> array;  lists : dict; a `protocol` in it with `toy` marks the file as the toy
        world's, for `config.Config.is_toy`
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = {"impart_pack": json.dumps({"format": FORMAT, **lists}), "hash": content_of(arrays, lists),
              "toy": _toy(lists)}
    with atomic_path(path) as temporary:
        # not save_file: its file would be readable by its owner alone
        temporary.write_bytes(_in_order(save(arrays, header)))


def _in_order(content):
    """The file with its header's own words sorted: safetensors writes them in a random order."""
    start = 8 + int.from_bytes(content[:8], "little")  # offsets in the header count from its end
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[start:]


def read_arrays(path):
    """What `write_arrays` wrote: (arrays, lists).

    Raises
    ------
    ValueError : not a whole file, not a pack, or changed since it was written.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).suffix != ".safetensors":
        raise ValueError(f"Expected a feature pack that ends in .safetensors or .npz, got {path}. Other "
                         "files aren't opened: a pickle, for one, could run code.")
    try:
        with safe_open(path, "np") as file:
            lists, metadata = _lists(path, file.metadata())
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}). Copy it again.") from error
    vouched = lists.pop("format", 1) != 1 or "hash" in metadata
    if vouched and (metadata.get("hash"), metadata.get("toy")) != (content_of(arrays, lists), _toy(lists)):
        raise ValueError(f"{path} was changed since it was written: its content isn't what its hash "
                         f"{metadata.get('hash')} says. Copy or make it again.")
    return arrays, lists


def read_header(path):
    """What a pack's file says besides arrays, as a dict: unchecked and quick. No pack: an empty dict."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}). Copy it again.") from error
    if "impart_pack" not in metadata:
        return {}
    return {**_lists(path, metadata)[0], "hash": metadata.get("hash", "")}


def _lists(path, metadata):
    metadata = metadata or {}
    if "impart_pack" not in metadata:
        raise ValueError(f"{path} is a safetensors file but no feature pack: make one with save_pack.")
    try:
        return dict(json.loads(metadata["impart_pack"])), metadata
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: the header isn't readable ({error}). Copy the pack again.") from error


def content_of(arrays, lists):
    """Hash of named arrays and of what JSON can say."""
    named = [part for name in sorted(arrays) for part in (name, arrays[name])]
    return content_hash(*named, json.loads(json.dumps(lists)))  # as read back: a tuple is a list


def _toy(lists):
    return "yes" if (lists.get("protocol") or {}).get("toy") else "no"
