"""Features that other programs stored: an .npz of plain arrays, opened so that it can't run code."""

import zipfile
from pathlib import Path

import numpy as np

IDS = ("ids", "image_id", "file_names", "cifar10_test_index", "source_row")


def read_npz_pack(path, texts=""):
    """The parts of a `sources.packs.Pack` that an .npz holds, by the names that `load_pack` lists.

    Parameters
    ----------
    path : of the .npz;  texts : path of a second one with the text of each picture, or ""

    Returns
    -------
    parts : dict, arguments of `Pack`. Texts of the classes become `class_features`, known as "stored/stored".

    Raises
    ------
    ValueError : not an .npz of plain arrays (a pickle, say), or an array is missing or doesn't fit.
    """
    arrays = _read_npz(path)
    if "image_features" not in arrays:
        raise ValueError(f"Expected an array image_features in {path}, found {', '.join(arrays)}.")
    rows = len(arrays["image_features"])
    id_names = [name for name in IDS if name in arrays]
    values = arrays[id_names[0]] if id_names else np.arange(rows)
    names = arrays.get("label_names", arrays.get("class_names"))
    found = dict(
        image_features=arrays["image_features"].astype(np.float32), ids=[str(value) for value in values],
        model=str(np.ravel(arrays["model"])[0]) if "model" in arrays else "unknown",
        class_names=None if names is None else [str(name) for name in names],
        labels=arrays["labels"].astype(np.int64) if "labels" in arrays else None,
        metadata={"source": Path(path).name}, source=Path(path).name,
    )
    if texts:
        return {**found, **_texts_of_pictures(arrays, path, texts)}
    if "text_features" not in arrays:
        return found
    prompts = arrays.get("text_prompts", arrays.get("captions"))
    prompts = None if prompts is None else [str(prompt) for prompt in prompts]
    vectors = arrays["text_features"].astype(np.float32)
    if names is not None and len(vectors) == len(names):
        return {**found, "class_features": vectors, "prompts": prompts}
    return {**found, "text_features": vectors, "captions": prompts}


def _texts_of_pictures(arrays, path, texts):
    """What the second file adds: the text of each picture, by the row that the first file names."""
    index = arrays.get("text_index", arrays.get("pseudo_text_index"))
    if index is None:
        raise ValueError(f"Expected text_index or pseudo_text_index in {path}, to take texts from {texts}.")
    other = _read_npz(texts)
    if "text_features" not in other:
        raise ValueError(f"Expected an array text_features in {texts}, found {', '.join(other)}.")
    if len(index) and not 0 <= index.min() <= index.max() < len(other["text_features"]):
        raise ValueError(f"{path}: expected text_index from 0 to {len(other['text_features']) - 1}, the "
                         f"rows of {texts}, got {index.min()} to {index.max()}.")
    captions = [f"a {other['labels'][row]}" if "labels" in other else str(row) for row in index]
    return {"text_features": other["text_features"][index].astype(np.float32),  # (m, d)
            "captions": captions, "metadata": {"source": Path(path).name, "texts": Path(texts).name}}


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:  # a pickle could run code
            return {name: file[name] for name in file.files if name != "images"}
    except (zipfile.BadZipFile, ValueError, EOFError, TypeError) as error:  # TypeError: one bare .npy array
        remedy = (" It holds Python objects, which could run code when opened, and is refused: ask for plain "
                  "arrays of numbers and of fixed-width text (np.array(names, dtype=str))."
                  if "allow_pickle" in str(error) else "")
        raise ValueError(f"{path} is not an .npz of plain arrays ({error}).{remedy}") from error
