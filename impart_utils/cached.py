"""What several notebooks share, each computed once and kept under a content key in data/cache.

Whichever notebook runs first does the work and the others find it, so each runs alone on a fresh clone.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from impart_utils.config import ROOT, MissingInput
from impart_utils.reference import ReferenceSet, from_pack, keeps_norms, scaled, split
from impart_utils.retrieval import Retriever
from impart_utils.sources import datasets, features
from impart_utils.zeroshot import PAPER_TEMPLATE, class_features, unit


@lru_cache(maxsize=2)
def clip(config):
    """The profile's CLIP, loaded once per process."""
    from impart_utils.clip_model import load_clip

    return load_clip(config.clip, checkpoint=config.clip_checkpoint, precision=config.precision,
                     allow_unverified=config.allow_unverified_clip)


@dataclass(frozen=True)
class TestSet:
    """A test set as features: all that zero-shot evaluation needs.

    Attributes
    ----------
    name, title : str;  image_features : float32 (n, d), raw;  labels : int64 (n,)
    class_names : list of c str;  class_features : float32 (c, d), unit;  ids : list of n str
    prompts : str, how the class features were made;  weights : str, whose CLIP made the features
    n_available : int;  notes : list of str, differences from what the paper scored
    key : str, content hash of all this
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

    @cached_property
    def key(self):
        return features.content_hash(self.image_features, self.class_features, self.labels, self.ids)


@lru_cache(maxsize=8)
def test_set(config, name):
    """A data set's pictures and classes as features of the profile's CLIP, or as a feature pack stores them.

    Parameters
    ----------
    name : str, as for `sources.datasets.load_dataset`, or "pack:FILE"
    """
    if name.startswith("pack:"):
        return _test_set_from_pack(name[5:], config.limit)
    dataset, model = datasets.load_dataset(name, config), clip(config)
    image_features, ids, skipped = features.encode_to_cache(
        model.encode_images, dataset.items(), config.cache_dir / _file_name(name),
        key=f"{model.key} {dataset.key}")
    rows = [row for row, item in enumerate(dataset.ids) if item not in skipped]
    notes = list(dataset.notes)
    if skipped:
        first = next(iter(skipped.items()))
        notes.append(f"{len(skipped)} pictures can't be opened, the first: {first[0]} ({first[1]})")
    class_vectors = class_features(model.encode_texts, dataset.class_names)
    return TestSet(dataset.name, dataset.title, image_features, dataset.labels[rows], dataset.class_names,
                   class_vectors, ids, PAPER_TEMPLATE, model.provenance, dataset.n_available, notes)


def _test_set_from_pack(place, limit):
    pack = features.load_pack(place)
    if pack.labels is None or pack.class_features is None:
        raise ValueError(f"{place} has no labels or no class features: it can't be a test set.")
    rows = datasets.subset(len(pack.ids), limit)
    prompts = "as stored: " + ", ".join(repr(prompt) for prompt in (pack.prompts or [])[:2]) + ", …"
    notes = [f"features from {Path(place).name}"]
    if len(rows) < len(pack.ids):
        notes.append(f"a subset of {len(rows)} of {len(pack.ids)} pictures")
    stem = Path(place).stem.split("_")[0]  # "cifar10_test500" is CIFAR-10
    title = datasets.TITLES.get(stem, stem)
    return TestSet(f"pack:{Path(place).name}", title, pack.image_features[rows], pack.labels[rows],
                   pack.class_names, unit(pack.class_features), [pack.ids[row] for row in rows], prompts,
                   pack.model, len(pack.ids), notes)


@lru_cache(maxsize=2)
def pair_pool(config):
    """All image-text pairs of the profile as one `ReferenceSet`, before they are divided."""
    kind, _, place = config.reference.partition(":")
    if kind == "pack" and place:
        return from_pack(features.load_pack(place), place)
    if kind == "toy":
        return _toy_pool(config)
    if kind == "folder" and place:
        return _folder_pool(config, Path(place))
    raise ValueError(f"Unknown reference {config.reference!r}. Known: toy, pack:FILE, "
                     "pack:IMAGES.npz+TEXTS.npz, folder:PATH.")


def reference_pairs(config, draw=0):
    """(references, training pairs): the pool divided by a shuffle that depends on seed and draw.

    As in the paper 1000 pairs are references and up to 9000 others train RAM.
    """
    pool = pair_pool(config)
    references, rest = split(pool, config.references, seed=config.seed, draw=draw)
    return references, rest.take(np.arange(min(len(rest), config.pairs - config.references)))


def _toy_pool(config):
    from impart_utils.toy_world import scenes

    pairs = scenes.pairs(config.pairs, seed=0)
    pictures = datasets.toy_pictures([pair.scene for pair in pairs], config)
    items = [(pair.id, lambda row=row: pictures[row]) for row, pair in enumerate(pairs)]
    columns = {"caption_kind": [pair.caption_kind for pair in pairs]}
    return _encode_pairs(config, "toy-pairs", items, [pair.caption for pair in pairs],
                         {"source": f"toy world, version {scenes.WORLD_VERSION}", "columns": columns},
                         stamp=scenes.WORLD_VERSION)


def _folder_pool(config, folder):
    """Pictures with captions.csv beside them (columns file, caption; others, such as license, are kept)."""
    import pandas as pd

    table = folder / "captions.csv"
    if not table.is_file():
        raise MissingInput(f"There is no reference set in {folder} (captions.csv is missing). Make one from "
                           "YFCC metadata (data/README.md), or give features: --set reference=pack:FILE")
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)  # a caption "None" stays text
    missing = {"file", "caption"} - set(rows.columns)
    if missing:
        raise ValueError(f"{table}: expected the columns file and caption, "
                         f"{', '.join(sorted(missing))} is missing.")
    pictures = datasets.Files(folder / name for name in rows["file"])
    items = [(name, lambda row=row: pictures[row]) for row, name in enumerate(rows["file"])]
    columns = {name: list(rows[name]) for name in rows.columns if name not in ("file", "caption")}
    origin = folder / "source.json"  # `reference build` writes it
    source = json.loads(origin.read_text())["source"] if origin.is_file() else f"the folder {folder.name}"
    return _encode_pairs(config, f"pairs-{folder.name}", items, list(rows["caption"]),
                         {"source": source, "columns": columns}, stamp=datasets.stamp(pictures.paths))


def _encode_pairs(config, name, items, captions, metadata, stamp):
    model = clip(config)
    image_features, ids, skipped = features.encode_to_cache(
        model.encode_images, items, config.cache_dir / f"{name}-images", key=f"{model.key} {stamp}")
    texts = [(item, caption) for (item, _), caption in zip(items, captions, strict=True)
             if item not in skipped]
    text_features, _, _ = features.encode_to_cache(  # which texts there are depends on the pictures' ids
        model.encode_texts, texts, config.cache_dir / f"{name}-texts", batch_size=1024,
        key=f"{model.key} {features.content_hash(captions)}")
    kept = [row for row, (item, _) in enumerate(items) if item not in skipped]
    columns = {key: [values[row] for row in kept] for key, values in metadata.get("columns", {}).items()}
    return ReferenceSet(image_features, text_features, [caption for _, caption in texts], ids,
                        {**metadata, "model": model.provenance, "columns": columns, "skipped": skipped})


def pictures_of(config, ids):
    """The pictures behind reference ids, for showing; a grey tile where only features are at hand."""
    from PIL import Image

    kind, _, place = config.reference.partition(":")
    if kind == "toy":
        from impart_utils.toy_world import scenes

        by_id = {pair.id: pair.scene for pair in scenes.pairs(config.pairs, seed=0)}
        return [scenes.draw(by_id[name], size=64) for name in ids]
    folder = Path(place)
    return [datasets.Files([folder / name])[0] if kind == "folder"
            else Image.new("RGB", (64, 64), "lightgrey") for name in ids]


def test_pictures(config, name, rows):
    """Some pictures of a test set, for showing; grey tiles where only features are at hand."""
    from PIL import Image

    if name.startswith("pack:"):
        return [Image.new("RGB", (64, 64), "lightgrey") for _ in rows]
    dataset, ids = datasets.load_dataset(name, config), test_set(config, name).ids
    place = {item: row for row, item in enumerate(dataset.ids)}  # the test set lacks what can't be opened
    return [dataset.pictures[place[ids[int(row)]]] for row in rows]


def neighbors(config, queries, references):
    """The `config.top_k` nearest references of a test set or of training pairs, kept on disk.

    Parameters
    ----------
    queries : TestSet or ReferenceSet;  references : ReferenceSet

    Returns
    -------
    similarities, indices : as `Retriever.search`

    Raises
    ------
    ValueError : queries and references come from different weights, so that their cosines mean nothing.
    """
    require_same_weights(queries.weights, references)
    name = features.content_hash(queries.key, references.key, config.top_k)
    path = config.cache_dir / "neighbors" / f"{name}.npz"
    if not path.exists():
        retriever = Retriever(references.image_features)
        similarities, indices = retriever.search(queries.image_features, config.top_k)
        with features.atomic_path(path) as temporary:
            np.savez(temporary, similarities=similarities, indices=indices)
    with np.load(path, allow_pickle=False) as file:
        return file["similarities"], file["indices"]


def require_same_weights(weights, references):
    """Raise ValueError where queries made by `weights` (in words) meet references of another CLIP."""
    if _plain(weights) != _plain(references.weights):
        raise ValueError(f"The queries' features come from {weights!r}, the references' from "
                         f"{references.weights!r}: cosines between them mean nothing. "
                         "Encode both with the same CLIP.")


def _plain(weights):
    """"OpenAI CLIP ViT-B/32" and "OpenAI ViT-B/32" are the same weights."""
    return weights.lower().replace("clip", "").split()


def trained_ram(config, *, normalize="none", scale="raw", seed=0, draw=0):
    """(ram, history): RAM trained with the paper's code's settings, cached.

    Parameters
    ----------
    normalize : "none", "branch" or "sum" (see `ram.RAM`)
    scale : "raw" (branch main) or "unit": the vectors that RAM gets
    seed : int, initial weights and order of the batches
    """
    from impart_utils.training import PAPER_CODE, load_ram, new_ram, save_ram, train_ram

    references, training = reference_pairs(config, draw)
    settings = {**PAPER_CODE, "epochs": config.ram_epochs}
    options = {"normalize": normalize, "heads": 8, "layers": 2, "between": "relu", "gate": None}
    if not len(training):
        raise ValueError(f"No pairs are left to train RAM: all {len(references)} of the pool are references. "
                         "Lower references, or give more pairs.")
    code = [features.file_hash(ROOT / "impart_utils" / name) for name in ("ram.py", "training.py")]
    key = features.content_hash(references.key, training.key, settings, options, scale, seed, config.top_k,
                                code)  # whoever edits RAM gets a RAM trained by the edited code
    path = config.cache_dir / "ram" / f"{normalize}-{scale}-seed{seed}-{key}.safetensors"
    if not path.exists():
        _, indices = neighbors(config, training, references)
        v, R_img, R_txt = scaled(training.image_features, references, scale)
        ram = new_ram(v.shape[1], seed=seed, **options)
        history = train_ram(ram, v, training.text_features, R_img, R_txt, indices, seed=seed, **settings)
        save_ram(path, ram, options, history)
    return load_ram(path)


def ram_features(config, test, *, normalize="none", scale="raw", seed=0, draw=0):
    """A test set's image features after `trained_ram`: float32 (n, d), not normalized."""
    from impart_utils.training import apply_ram

    ram, _ = trained_ram(config, normalize=normalize, scale=scale, seed=seed, draw=draw)
    references, _ = reference_pairs(config, draw)
    _, indices = neighbors(config, test, references)
    v, R_img, R_txt = scaled(test.image_features, references, scale)
    return apply_ram(ram, v, R_img, R_txt, indices)


def ram_scales(config):
    """RAM's possible inputs: raw CLIP vectors (the code's branch main) where norms survive, and unit ones."""
    blocks = [getattr(pair_pool(config), name) for name in ("image_features", "text_features")]
    blocks += [test_set(config, name).image_features for name in config.datasets if name.startswith("pack:")]
    return ("raw", "unit") if all(keeps_norms(block) for block in blocks) else ("unit",)


def ram_scale(config):
    """The inputs of the paper's bars where possible: see `ram_scales`."""
    return ram_scales(config)[0]


def record_inputs(config, **inputs):
    """Add what a notebook computed from to results/<profile>/inputs.json, which run.json takes up."""
    path = config.results_dir / "inputs.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    with features.atomic_path(path) as temporary:
        temporary.write_text(json.dumps({**known, **inputs}, indent=2, sort_keys=True) + "\n")


def _file_name(name):
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
