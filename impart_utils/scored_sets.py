"""A test set under a stated protocol: which pictures, classes, names and prompts an accuracy is about."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from impart_utils.sources import caltech, datasets, features, prompts
from impart_utils.zeroshot import class_features


@dataclass(frozen=True)
class TestSet:
    """A test set as features: all that zero-shot evaluation needs.

    Attributes
    ----------
    name, title : str;  image_features : float32 (n, d), raw;  labels : int64 (n,)
    class_names : list of c str;  class_features : float32 (c, d), unit;  ids : list of n str
    prompts : str, how the class features were made;  weights : str, whose CLIP made the features
    n_available : int;  notes : list of str, differences from what the paper scored
    names : "raw", "clean" or "stored", how classes are called
    split : "test" or, for Caltech101, "torchvision", "vtab" or "coop"
    average : "micro" or "mean per class", how accuracy is to be counted
    class_rows : int array (c,), which rows of `cached.class_texts` its classes are
    origin : str, a pack's file and maker, in words; "" where the features come from pictures here
    key : str, content hash of features and labels
    """

    name: str
    title: str
    image_features: np.ndarray
    labels: np.ndarray
    class_names: list
    class_features: np.ndarray
    ids: list
    prompts: str
    weights: str
    n_available: int
    notes: list = field(default_factory=list)
    names: str = "raw"
    split: str = "test"
    average: str = "micro"
    class_rows: np.ndarray | None = None
    origin: str = ""

    @cached_property
    def key(self):
        return features.content_hash(self.image_features, self.class_features, self.labels, self.ids)


def chosen_texts(texts, config, place):
    """The class features of the configuration's prompts and names.

    Parameters
    ----------
    texts : dict, (prompts, names) -> class features (c, d), what a data set or pack has
    config : Config;  place : str, the data set or file, for the message

    Raises
    ------
    ValueError : the data set has no such texts; the message says which it has and how to ask for them.
    """
    if (config.prompts, config.names) in texts:
        return texts[config.prompts, config.names]
    first, form = next(iter(texts))
    ask = "--set prompts=stored" if first == "stored" else f"--set prompts={first} --set names={form}"
    raise ValueError(f"{place} has no texts for prompts={config.prompts!r} with names={config.names!r}. "
                     f"It has {', '.join('/'.join(pair) for pair in texts)}. Ask for what it has, for "
                     f"example {ask}, or make the pack anew.")


def encoded_texts(model, config, dataset, asked, names):
    """Class features of a data set's classes, computed once and kept in data/cache: float32 (c, d), unit.

    Parameters
    ----------
    model : clip_model.Clip;  config : Config;  dataset : sources.datasets.Dataset
    asked : "paper" or "openai", the prompt set;  names : "raw" or "clean"
    """
    def encode(texts):
        different = list(dict.fromkeys(texts))  # raw and clean names are often the same
        encoded, _, _ = features.encode_to_cache(
            model.encode_texts, [(text, text) for text in different], config.cache_dir / "class-texts",
            key=model.key, batch_size=1024)
        row = {text: at for at, text in enumerate(different)}
        return encoded[[row[text] for text in texts]]

    class_names = prompts.class_names(names, dataset.name, dataset.class_names)
    return class_features(encode, class_names, prompts.templates(asked, dataset.name))


def test_set_from_pack(pack, place, config):
    """A feature pack as a `TestSet` under the configuration's protocol.

    A pack that the kit made of a data set is that data set, as its pictures would give it; any other is
    called "pack:FILE", and its notes say so.

    Parameters
    ----------
    pack : sources.packs.Pack with labels;  place : path of its file;  config : Config

    Raises
    ------
    ValueError : the pack has no labels, no texts for the asked prompts and names, or, for a protocol of
        Caltech101, other classes than its folders.
    """
    texts = pack_texts(pack)
    if pack.labels is None or not texts:
        raise ValueError(f"{place} has no labels or no class features: it can't be a test set.")
    W, base = chosen_texts(texts, config, place), pack.dataset or base_name(place)
    split, chosen = _protocol_of_pack(pack, place, base, config)
    kept = np.isin(chosen.rows, datasets.subset(len(pack.ids), config.limit, chosen.rows))
    rows, n_available = chosen.rows[kept], len(chosen.rows)
    if pack.dataset and base != "caltech101":
        n_available = pack.protocol["n_available"]
    notes = pack.protocol["notes"] if pack.dataset else [f"features from {Path(place).name}"]
    notes = [*notes, *chosen.notes]
    if not kept.all():
        notes.append(f"a subset of {len(rows)} of {n_available} pictures")
    title = pack.protocol.get("title", datasets.TITLES.get(base, base))
    return TestSet(
        pack.dataset or f"pack:{Path(place).name}", title,
        pack.image_features[rows], chosen.labels[kept], [pack.class_names[row] for row in chosen.classes],
        W[chosen.classes], [pack.ids[row] for row in rows], described(config.prompts, pack, base),
        pack.model, n_available, notes, names=config.names, split=split, average=config.average,
        class_rows=chosen.classes,
        origin=f"features from {Path(place).name}, made by {pack.made_by or 'another program'}")


def pack_texts(pack):
    """All class features of a pack: dict, (prompts, names) -> (c, d), unit rows."""
    return {tuple(key.split("/")): block for key, block in pack.class_texts.items()}


def base_name(place):
    """The data set that a pack's file is named after: "cifar10_test500.npz" is "cifar10"."""
    return Path(place).stem.split("_")[0]


def described(asked, pack, base):
    """A pack's prompts in the words of a results row; those it stores are quoted."""
    if asked != "stored":
        return prompts.described(asked, base)
    return "as stored: " + ", ".join(repr(prompt) for prompt in (pack.prompts or [])[:2]) + ", …"


def _protocol_of_pack(pack, place, base, config):
    """(split, caltech.Selection); all of the pack where it isn't Caltech101's."""
    everything = caltech.Selection(
        np.arange(len(pack.ids)), pack.labels, np.arange(len(pack.class_names)), [])
    if base != "caltech101":
        return "test", everything
    if set(pack.class_names) <= set(caltech.COUNTS):
        return config.caltech, caltech.select(config.caltech, pack.class_names, pack.labels, pack.ids,
                                              beside=Path(place).parent)
    if config.caltech != "torchvision":
        raise ValueError(f"{place}: expected classes named after Caltech101's folders for caltech="
                         f"{config.caltech!r}, got {pack.class_names[0]!r}, …. Leave that setting out.")
    return "as stored", everything
