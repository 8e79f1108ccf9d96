"""Labelled pictures: the three test sets of the paper, the toy world's, and a folder of your own."""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from impart_utils.config import MissingInput
from impart_utils.sources.features import content_hash
from impart_utils.toy_world import scenes

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm")
TOY = ("toy10", "toy100", "toy101")
TITLES = {"toy10": "Toy-10", "toy100": "Toy-100", "toy101": "Toy-101",
          "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "caltech101": "Caltech101"}
# test pictures and classes that the paper's code scores (torchvision's sets, Caltech101 without background)
PAPER_SIZE = {"cifar10": (10_000, 10), "cifar100": (10_000, 100), "caltech101": (8677, 101)}
# archives: address, MD5 (torchvision's own; Caltech's data repository, DOI 10.22002/D1.20086)
ARCHIVES = {
    "cifar10": ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a"),
    "cifar100": ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                 "eb9058c3a382ffc7106e4002c42a8d85"),
    "caltech101": ("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                   "3138e1922a9193bfa496528edbbc45d0"),
}


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
        drawing)
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
        from PIL import Image

        with Image.open(self.paths[row]) as picture:
            return picture.convert("RGB")


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
    config : Config; its `limit` keeps that many pictures, drawn with a fixed seed

    Raises
    ------
    config.MissingInput : the set isn't on this machine; the message says how to get it.
    ValueError : unknown name, or a folder that doesn't hold what its name says.
    """
    kind, _, place = name.partition(":")
    if kind in TOY and not place:
        dataset = _toy(kind, config)
    elif kind in ("cifar10", "cifar100"):
        dataset = _cifar(kind, Path(place) if place else config.data_dir / "downloads")
    elif kind == "caltech101":
        dataset = _caltech(Path(place) if place else config.data_dir / "downloads" / "caltech101")
    elif kind == "folder" and place:
        dataset = _folder(Path(place))
    else:
        raise ValueError(f"Unknown data set {name!r}. Known: {', '.join(TITLES)}, folder:PATH, pack:FILE; "
                         "cifar10:PATH, cifar100:PATH and caltech101:PATH where the data lie elsewhere.")
    return _limited(dataset, config.limit)


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
    # BACKGROUND_Google is no class; capitals sort before small letters, as in torchvision
    classes = sorted(place.name for place in folder.iterdir()
                     if place.is_dir() and place.name != "BACKGROUND_Google")
    dataset = _from_folders(folder, classes, "caltech101", TITLES["caltech101"])
    pictures, count = PAPER_SIZE["caltech101"]
    if (len(dataset.ids), len(classes)) != (pictures, count):
        dataset.notes.append(f"{len(dataset.ids)} pictures in {len(classes)} classes, "
                             f"the whole set has {pictures} in {count}")
    return dataset


def _folder(folder):
    if not folder.is_dir():
        raise MissingInput(f"There is no folder {folder}. Give a folder that holds one folder of pictures "
                           "per class.")
    classes = sorted(place.name for place in folder.iterdir()
                     if place.is_dir() and not place.name.startswith("."))
    dataset = _from_folders(folder, classes, f"folder:{folder.name}", folder.name)
    dataset.notes.append(f"a folder of {len(dataset.ids)} pictures, not a data set of the paper")
    return dataset


def _from_folders(folder, classes, name, title):
    paths, labels = [], []
    for label, class_name in enumerate(classes):
        found = sorted(path for path in (folder / class_name).iterdir()
                       if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith("."))
        if not found:
            raise ValueError(f"There is no picture in {folder / class_name} "
                             f"(looked for {', '.join(PICTURE_SUFFIXES)}). Remove the folder or fill it.")
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise ValueError(f"There is no folder of pictures in {folder}. Expected one folder per class.")
    ids = [path.relative_to(folder).as_posix() for path in paths]
    return Dataset(name, title, Files(paths), np.asarray(labels, np.int64), classes, ids, len(ids),
                   stamp=stamp(paths))


def stamp(paths):
    """Hash of places, sizes and times of files: changes where a picture is replaced or mended."""
    states = [(str(path), *((path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else ()))
              for path in paths]
    return content_hash(states)


def subset(count, limit):
    """The rows that `limit` keeps of `count`: always the same ones, in order (None: all)."""
    return np.sort(np.random.default_rng(0).permutation(count)[:limit])


def _limited(dataset, limit):
    if limit is None or limit >= len(dataset.ids):
        return dataset
    rows = subset(len(dataset.ids), limit)
    notes = [*dataset.notes, f"a subset of {limit} of {dataset.n_available} pictures"]
    return Dataset(dataset.name, dataset.title, Rows(dataset.pictures, rows), dataset.labels[rows],
                   dataset.class_names, [dataset.ids[row] for row in rows], dataset.n_available, notes,
                   dataset.stamp)


def _how_to_get(name):
    return (f"Get it with\n  python -m impart_utils.sources.datasets {name}\nor, where you have it, give its "
            f"place: --set datasets={name}:PATH")


def main():
    """Fetch test sets into data/downloads.

    python -m impart_utils.sources.datasets cifar10 cifar100 caltech101
    """
    import argparse

    from impart_utils.config import ROOT
    from impart_utils.sources.download import fetch_file

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(ARCHIVES))
    downloads = ROOT / "data" / "downloads"
    for name in parser.parse_args().names:
        url, md5 = ARCHIVES[name]
        archive = downloads / url.rsplit("/", 1)[1]
        fetch_file(url, archive, md5=md5)
        unpack(archive, downloads / "caltech101" if name == "caltech101" else downloads)
        print(f"{TITLES[name]} is in {downloads}.")


def unpack(archive, folder):
    """Unpack a .tar.gz, or Caltech's .zip with one inside, into `folder`; a kill leaves no half tree behind.

    What is unpacked stands in a temporary folder until it is whole, and is then moved into place.
    """
    import shutil
    import tarfile
    import tempfile
    import zipfile

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-") as temporary:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                inner = [name for name in file.namelist() if name.endswith("101_ObjectCategories.tar.gz")]
                if not inner:
                    raise ValueError(f"{archive} holds no 101_ObjectCategories.tar.gz: it isn't Caltech101's "
                                     "archive.")
                archive = Path(file.extract(inner[0], temporary))
        target = Path(temporary) / "tree"
        with tarfile.open(archive) as file:
            file.extractall(target, filter="data")  # refuses paths that lead out of the folder
        for place in target.iterdir():
            shutil.rmtree(folder / place.name, ignore_errors=True)
            place.rename(folder / place.name)


if __name__ == "__main__":
    try:
        main()
    except (MissingInput, ValueError, OSError) as error:
        sys.exit(str(error))
