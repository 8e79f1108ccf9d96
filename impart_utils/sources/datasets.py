"""Labelled pictures: the three test sets of the paper, the toy world's, and a folder of your own."""

import sys
import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from impart_utils.config import MissingInput
from impart_utils.sources import caltech
from impart_utils.sources.archives import ARCHIVES, fetch
from impart_utils.sources.features import content_hash
from impart_utils.sources.pictures_io import open_picture
from impart_utils.toy_world import scenes

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm")
TOY = ("toy10", "toy100", "toy101")
TITLES = {"toy10": "Toy-10", "toy100": "Toy-100", "toy101": "Toy-101",
          "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "caltech101": "Caltech101"}


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures, opened when asked for.

    Attributes
    ----------
    name : str;  title : str, for tables and figures
    pictures : sequence of n PIL images, opened on access
    labels : int64 array (n,);  class_names : list of c str;  ids : list of n str
    n_available : int, pictures the set has here; more than n where `limit` cut it
    notes : list of str, how it differs from what the paper scored (empty: it doesn't)
    stamp : what else tells the pictures from others of these ids (place, sizes and times of the files;
        drawing);  folder : Path that the ids count from, or None
    """

    name: str
    title: str
    pictures: Any
    labels: np.ndarray
    class_names: list
    ids: list
    n_available: int
    notes: list = field(default_factory=list)
    stamp: Any = None
    folder: Path | None = None

    @property
    def key(self):
        """Content key of names, ids, labels and the pictures' stamp."""
        return content_hash(self.name, self.ids, self.class_names, self.labels, self.stamp)

    def items(self):
        """(id, function that opens the picture) for `sources.features.encode_to_cache`."""
        return [(name, partial(self.pictures.__getitem__, row)) for row, name in enumerate(self.ids)]


class Arrays:
    """Pictures kept as one uint8 array (n, h, w, 3), given out as PIL images."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, row):
        from PIL import Image

        return Image.fromarray(self.array[row])


class Files:
    """Picture files, opened on access and converted to RGB (45 of 811 Caltech pictures are grey)."""

    def __init__(self, paths):
        self.paths = list(paths)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        return open_picture(self.paths[row])


class Rows:
    """Some rows of another sequence of pictures."""

    def __init__(self, pictures, rows):
        self.pictures, self.rows = pictures, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.pictures[int(self.rows[row])]


def load_dataset(name, config):
    """A labelled set of pictures by name.

    Parameters
    ----------
    name : str
        "toy10", "toy100", "toy101"; "cifar10", "cifar100", "caltech101", looked for in data/downloads or,
        as "cifar10:PATH", at PATH; "folder:PATH" with one folder of pictures per class. ("pack:FILE",
        features without pictures, is read by `cached.test_set`.)
    config : Config; its `limit` keeps that many pictures, drawn with a fixed seed, and its `caltech` says
        which pictures and classes of Caltech101 are scored (see `sources.caltech`)

    Raises
    ------
    config.MissingInput : the set isn't on this machine; the message says how to get it.
    ValueError : unknown name, or a folder that doesn't hold what its name says.

    Warns
    -----
    UserWarning : Caltech101 isn't the whole archive; the text lists the classes that differ.
    """
    dataset, scored = _whole(name, config), None
    if dataset.name == "caltech101":
        dataset, scored = _under_protocol(dataset, config.caltech)
    return _taken(dataset, subset(len(dataset.ids), config.limit, scored))


def all_pictures(name, config):
    """The pictures of a data set under any protocol, with all classes: one set of features does for all.

    That is `load_dataset`, but Caltech101's background is there, and a `limit` keeps so many pictures for
    each protocol.
    """
    dataset = _whole(name, config)
    if dataset.name != "caltech101" or config.limit is None:
        return _taken(dataset, subset(len(dataset.ids), config.limit))
    rows = [subset(len(dataset.ids), config.limit, _selection(dataset, protocol).rows)
            for protocol in caltech.possible(dataset.class_names)]
    return _taken(dataset, np.unique(np.concatenate(rows)))


def _whole(name, config):
    """A data set with all pictures that are here."""
    kind, _, place = name.partition(":")
    if kind in TOY and not place:
        return _toy(kind, config)
    if kind in ("cifar10", "cifar100"):
        return _cifar(kind, Path(place) if place else config.data_dir / "downloads")
    if kind == "caltech101":
        return _caltech(Path(place) if place else config.data_dir / "downloads" / "caltech101")
    if kind == "folder" and place:
        return _folder(Path(place))
    raise ValueError(f"Unknown data set {name!r}. Known: {', '.join(TITLES)}, folder:PATH, pack:FILE; "
                     "cifar10:PATH, cifar100:PATH and caltech101:PATH where the data lie elsewhere.")


def toy_pictures(scene_list, config):
    """The toy world's pictures for `scene_list`, drawn on first use and kept in data/cache."""
    return Arrays(scenes.pictures(scene_list, cache=config.cache_dir / "toy_pictures"))


def _toy(name, config):
    # one world; `config.seed` draws references and batches, not the world
    toy = scenes.test_set(name, seed=0)
    pictures = toy_pictures(toy.scenes, config)
    return Dataset(name, TITLES[name], pictures, toy.labels, list(toy.class_names), list(toy.ids),
                   len(toy.ids), stamp=scenes.WORLD_VERSION)


def _cifar(name, root):
    import torchvision

    make = torchvision.datasets.CIFAR10 if name == "cifar10" else torchvision.datasets.CIFAR100
    try:
        data = make(root, train=False, download=False)  # checks the MD5 of every file before it unpickles one
    except RuntimeError as error:
        raise MissingInput(f"{TITLES[name]} isn't in {root}, or not whole ({make.base_folder} with all its "
                           f"files). {_how_to_get(name)}") from error
    labels = np.asarray(data.targets, dtype=np.int64)
    ids = [f"{name}-test-{row:05d}" for row in range(len(labels))]
    return Dataset(name, TITLES[name], Arrays(data.data), labels, list(data.classes), ids, len(ids))


def _caltech(root):
    folder = next((place for place in (root / "101_ObjectCategories", root)
                   if place.name == "101_ObjectCategories" and place.is_dir()), None)
    if folder is None:
        raise MissingInput(f"Caltech101 isn't in {root} (101_ObjectCategories is missing). "
                           f"{_how_to_get('caltech101')}")
    # capitals before small letters, as in torchvision; an empty folder is a class that is missing
    classes = sorted(place.name for place in _subfolders(folder) if _pictures_in(place))
    return _from_folders(folder, classes, "caltech101", TITLES["caltech101"])


def _under_protocol(dataset, protocol):
    """Caltech101 with the labels and classes of a protocol (-1: not scored), and the rows it scores."""
    if told := caltech.warning_text(protocol, dataset.folder, dataset.class_names, dataset.labels):
        warnings.warn(told, stacklevel=1)  # always from here: Python says it once, not once per caller
    chosen = _selection(dataset, protocol)
    labels = np.full(len(dataset.ids), -1, np.int64)
    labels[chosen.rows] = chosen.labels
    return replace(dataset, labels=labels, notes=chosen.notes, n_available=len(chosen.rows),
                   class_names=[dataset.class_names[row] for row in chosen.classes]), chosen.rows


def _selection(dataset, protocol):
    return caltech.select(protocol, dataset.class_names, dataset.labels, dataset.ids,
                          beside=dataset.folder.parent)


def _folder(folder):
    if not folder.is_dir():
        raise MissingInput(f"There is no folder {folder}. Give a folder that holds one folder of pictures "
                           "per class.")
    classes = sorted(place.name for place in _subfolders(folder))
    dataset = _from_folders(folder, classes, f"folder:{folder.name}", folder.name)
    dataset.notes.append(f"a folder of {len(dataset.ids)} pictures, not a data set of the paper")
    return dataset


def _subfolders(folder):
    return [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]


def _pictures_in(folder):
    return sorted(path for path in folder.iterdir()
                  if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith("."))


def _from_folders(folder, classes, name, title):
    paths, labels = [], []
    for label, class_name in enumerate(classes):
        found = _pictures_in(folder / class_name)
        if not found:
            raise ValueError(f"There is no picture in {folder / class_name} "
                             f"(looked for {', '.join(PICTURE_SUFFIXES)}). Remove the folder or fill it.")
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise ValueError(f"There is no folder of pictures in {folder}. Expected one folder per class.")
    ids = [path.relative_to(folder).as_posix() for path in paths]
    return Dataset(name, title, Files(paths), np.asarray(labels, np.int64), classes, ids, len(ids),
                   stamp=stamp(paths), folder=folder)


def stamp(paths):
    """Hash of places, sizes and times of files: changes where a picture is replaced or mended."""
    states = [(str(path), *((path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else ()))
              for path in paths]
    return content_hash(states)


def subset(count, limit, among=None):
    """The rows that `limit` keeps of `count`, or of the rows `among` them: always the same, in order."""
    order = np.random.default_rng(0).permutation(count)
    order = order if among is None else order[np.isin(order, among)]
    return np.sort(order[:limit])  # None: all


def _taken(dataset, rows):
    """These rows of a data set; fewer than it has available are a subset, which a note says."""
    if len(rows) == len(dataset.ids):
        return dataset
    notes = list(dataset.notes)
    if len(rows) < dataset.n_available:
        notes.append(f"a subset of {len(rows)} of {dataset.n_available} pictures")
    return replace(dataset, pictures=Rows(dataset.pictures, rows), labels=dataset.labels[rows],
                   ids=[dataset.ids[row] for row in rows], notes=notes)


def _how_to_get(name):
    return (f"Get it with\n  python -m impart_utils.sources.datasets {name}\nor, where you have it, give its "
            f"place: --set datasets={name}:PATH")


def main():
    """Fetch test sets into data/downloads.

    python -m impart_utils.sources.datasets cifar10 cifar100 caltech101
    """
    import argparse

    from impart_utils.config import ROOT

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(ARCHIVES))
    downloads = ROOT / "data" / "downloads"
    for name in parser.parse_args().names:
        fetch(name, downloads)
        print(f"{TITLES[name]} is in {downloads}.")


if __name__ == "__main__":
    try:
        main()
    except (MissingInput, ValueError, OSError) as error:
        sys.exit(str(error))
