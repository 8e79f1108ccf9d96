"""Files and keys: written whole or not at all, named by what they hold; and the one progress bar."""

import contextlib
import hashlib
import json
import os
import secrets
import sys
from pathlib import Path

import numpy as np


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
