"""A tuning split for each test set of the paper and of the toy world, with pictures the test set hasn't."""

from pathlib import Path

import numpy as np

from impart_utils import cached
from impart_utils.config import MissingInput
from impart_utils.evidence.tuning import Labelled
from impart_utils.sources import datasets, features
from impart_utils.toy_world import scenes

MOST, TOY_MOST = 2000, 1000  # pictures of a tuning split that have to be encoded for it


def tuning_split(config, name, *, seed=1):
    """(tuning, test): where settings for a data set are chosen, and where they are then judged.

    Toy sets: pictures drawn with another seed. CIFAR: pictures of its *training* set. All other sets have no
    second part, so they are halved: the first half is tuned on, and `test` is only the other half.

    Parameters
    ----------
    config : Config;  name : one of config.datasets
    seed : int, of the toy world's pictures, of CIFAR's sample and of the halves

    Returns
    -------
    tuning, test : tuning.Labelled with roles "tuning" and "test"; their names say which pictures they are

    Raises
    ------
    MissingInput : CIFAR's training set isn't on this machine.
    """
    test = cached.test_set(config, name)
    kind, _, place = name.partition(":")
    if kind not in (*datasets.TOY, "cifar10", "cifar100"):
        return halves(test.name, test.image_features, test.labels, test.class_features, seed=seed)
    whole = Labelled(test.name, "test", test.image_features, test.labels, test.class_features)
    make = _toy if kind in datasets.TOY else _cifar_training
    title, pictures, labels, ids = make(kind, place, config, seed)
    encoded, found, _ = features.encode_to_cache(
        cached.clip(config).encode_images, list(zip(ids, pictures, strict=True)),
        config.cache_dir / f"{kind}-tuning", key=f"{cached.clip(config).key} {title}",
        prepare=cached.clip(config).prepare)
    row = {item: at for at, item in enumerate(ids)}
    kept = labels[[row[item] for item in found]]
    return Labelled(title, "tuning", encoded, kept, test.class_features), whole


def halves(name, image_features, labels, class_features, *, seed=1):
    """A labelled set cut in two within each class: (tuning half, test half); of odd classes the test half
    gets the last picture.

    Parameters
    ----------
    name : str;  image_features : array (n, d);  labels : int array (n,);  class_features : array (c, d)

    Returns
    -------
    tuning, test : Labelled

    Raises
    ------
    ValueError : no class has two pictures.
    """
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    first = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        first[rows[:len(rows) // 2]] = True
    if not first.any():
        raise ValueError(f"Expected a class with at least two pictures in {name!r}, to halve it; got "
                         f"{len(labels)} pictures, all of different classes.")
    return tuple(Labelled(f"{name}, {half} half (seed {seed})", role, image_features[rows], labels[rows],
                          class_features)
                 for half, role, rows in (("first", "tuning", first), ("second", "test", ~first)))


def _toy(kind, place, config, seed):
    toy = scenes.test_set(kind, seed=seed)
    rows = range(min(len(toy.ids), TOY_MOST, config.limit or TOY_MOST))  # of mixed classes: a sample
    drawn = datasets.toy_pictures([toy.scenes[row] for row in rows], config)
    title = f"{kind}, {len(rows)} other pictures (toy world's seed {seed}, version {scenes.WORLD_VERSION})"
    return title, [lambda row=row: drawn[row] for row in rows], toy.labels[:len(rows)], toy.ids[:len(rows)]


def _cifar_training(kind, place, config, seed):
    import torchvision

    root = Path(place) if place else config.data_dir / "downloads"
    make = torchvision.datasets.CIFAR10 if kind == "cifar10" else torchvision.datasets.CIFAR100
    try:
        data = make(root, train=True, download=False)
    except RuntimeError as error:
        raise MissingInput(f"{datasets.TITLES[kind]}'s training set isn't in {root}, or not whole. Get it "
                           f"with\n  python -m impart_utils.sources.datasets {kind}") from error
    count = min(len(data.targets), MOST, config.limit or MOST)
    rows = np.sort(np.random.default_rng(seed).permutation(len(data.targets))[:count])
    pictures = datasets.Arrays(data.data)
    title = f"{kind}, {count} of {len(data.targets)} training pictures (seed {seed})"
    return (title, [lambda row=row: pictures[row] for row in rows],
            np.asarray(data.targets, np.int64)[rows], [f"{kind}-train-{row:05d}" for row in rows])
