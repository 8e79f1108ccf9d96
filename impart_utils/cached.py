"""What several notebooks share, each computed once and kept under a content key in data/cache.

Whichever notebook runs first does the work and the others find it, so each runs alone on a fresh clone.
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from impart_utils.reference import ReferenceSet, encode_pairs, keeps_norms, scaled, split
from impart_utils.retrieval import Retriever
from impart_utils.scored_sets import TestSet, encoded_texts, pack_texts, test_set_from_pack
from impart_utils.sources import datasets, features, prompts
from impart_utils.sources.packs import grey_tile


def clip(config):
    """The profile's CLIP as a `clip_card.CardedClip`: loaded once per process, and only where it encodes."""
    return _clip(config.cache_dir / "clip-cards", config.clip, config.clip_checkpoint, config.precision,
                 config.allow_unverified_clip)


@lru_cache(maxsize=2)
def _clip(folder, name, checkpoint, precision, allow_unverified):  # no other setting loads another CLIP
    from impart_utils.clip_card import CardedClip

    return CardedClip(folder, name, checkpoint=checkpoint, precision=precision,
                      allow_unverified=allow_unverified)


@lru_cache(maxsize=8)
def test_set(config, name):
    """A data set as features of the profile's CLIP, or as a pack stores them, under the config's protocol.

    `prompts`, `names`, `caltech` and `average` choose among one set of features: no picture is encoded twice.

    Parameters
    ----------
    name : str, as for `sources.datasets.load_dataset`, or "pack:FILE"

    Raises
    ------
    ValueError : a pack without the texts that the protocol asks for; the message says which it has.
    """
    if name.startswith("pack:"):
        return test_set_from_pack(features.load_pack(name[5:]), name[5:], config)
    everything, image_features, ids, skipped = picture_features(config, name)
    dataset = datasets.load_dataset(name, config) if everything.name == "caltech101" else everything
    place = {item: row for row, item in enumerate(ids)}
    kept = [row for row, item in enumerate(dataset.ids) if item not in skipped]
    notes = list(dataset.notes)
    if len(kept) < len(dataset.ids):
        first = next(item for item in dataset.ids if item in skipped)
        notes.append(f"{len(dataset.ids) - len(kept)} pictures can't be opened, the first: {first} "
                     f"({skipped[first]})")
    notes += _doubts(clip(config), dataset.name, ids, image_features)
    texts = encoded_texts(clip(config), config, everything, config.prompts, config.names)
    asked = np.array([everything.class_names.index(class_name) for class_name in dataset.class_names])
    ids = [dataset.ids[row] for row in kept]
    return TestSet(
        dataset.name, dataset.title, image_features[[place[item] for item in ids]], dataset.labels[kept],
        dataset.class_names, texts[asked], ids, prompts.described(config.prompts, dataset.name),
        clip(config).provenance, dataset.n_available, notes, names=config.names, average=config.average,
        split=config.caltech if dataset.name == "caltech101" else "test", class_rows=asked)


def _doubts(model, dataset, ids, image_features):
    """A second check of a ViT-B/32 where CIFAR-10 is at hand: do its pictures lie as OpenAI's lie?"""
    from impart_utils.sources.clip_checks import check_cifar_pictures

    first = [f"cifar10-test-{number:05d}" for number in range(10)]
    if dataset != "cifar10" or model.name != "ViT-B/32" or ids[:10] != first:
        return []
    check = check_cifar_pictures(image_features[:10])
    return [] if check.passed else [f"the weights' pictures aren't OpenAI's: {check}"]


def picture_features(config, name):
    """All pictures of a data set, whatever the protocol: (Dataset, features (m, d), ids, skipped)."""
    dataset, model = datasets.all_pictures(name, config), clip(config)
    encoded = features.encode_to_cache(model.encode_images, dataset.items(),
                                       config.cache_dir / _file_name(name), key=f"{model.key} {dataset.key}",
                                       prepare=model.prepare)
    return dataset, *encoded


def class_texts(config, name):
    """The class features of a data set under every prompt set and form of names that it can have.

    Parameters
    ----------
    name : str, as for `test_set`

    Returns
    -------
    texts : dict, (prompts, names) -> float32 (c, d), unit rows, for all classes (Caltech101's background
        too). Each is computed once and cached; a pack has those that it stores.
    """
    if name.startswith("pack:"):
        return pack_texts(features.load_pack(name[5:]))
    dataset = datasets.all_pictures(name, config)
    return {(asked, names): encoded_texts(clip(config), config, dataset, asked, names)
            for asked in ("paper", "openai") for names in ("raw", "clean")}


@lru_cache(maxsize=2)
def pair_pool(config):
    """All image-text pairs of the profile as one `ReferenceSet`, before they are divided."""
    kind, _, place = config.reference.partition(":")
    if kind == "pack" and place:
        return ReferenceSet.load(place)
    if kind == "toy":
        return _toy_pool(config)
    if kind == "folder" and place:
        return ReferenceSet.from_folder(place, clip(config), cache_dir=config.cache_dir)
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
    """The toy world's pairs, kept as features: writing 10,000 captions anew takes seconds."""
    from impart_utils.toy_world import scenes

    name = features.content_hash(clip(config).key, scenes.WORLD_VERSION, config.pairs)
    path = config.cache_dir / "toy-pairs" / f"pool-{name}.safetensors"
    if not path.exists():
        _encoded_toy_pairs(config, scenes).save(path)
    return ReferenceSet.load(path)


def _encoded_toy_pairs(config, scenes):
    pairs = scenes.pairs(config.pairs, seed=0)
    pictures = datasets.toy_pictures([pair.scene for pair in pairs], config)
    items = [(pair.id, lambda row=row: pictures[row]) for row, pair in enumerate(pairs)]
    columns = {"caption_kind": [pair.caption_kind for pair in pairs]}
    return encode_pairs(clip(config), items, [pair.caption for pair in pairs],
                        {"source": f"toy world, version {scenes.WORLD_VERSION}", "columns": columns},
                        stamp=scenes.WORLD_VERSION, cache=config.cache_dir / "toy-pairs")


def pictures_of(config, ids):
    """The pictures behind reference ids, for showing; grey tiles with the id where only features are here."""
    kind, _, place = config.reference.partition(":")
    if kind == "toy":
        from impart_utils.toy_world import scenes

        by_id = {pair.id: pair.scene for pair in scenes.pairs(config.pairs, seed=0)}
        return [scenes.draw(by_id[name], size=64) for name in ids]
    if kind == "pack":
        return [grey_tile(name) for name in ids]
    return [datasets.Files([Path(place) / name])[0] for name in ids]


def test_pictures(config, name, rows):
    """Some pictures of a test set, for showing; grey tiles with the id where only features are here."""
    ids = test_set(config, name).ids
    if name.startswith("pack:"):
        return [grey_tile(ids[int(row)]) for row in rows]
    dataset = datasets.load_dataset(name, config)
    place = {item: row for row, item in enumerate(dataset.ids)}  # the test set lacks what can't be opened
    return [dataset.pictures[place[ids[int(row)]]] for row in rows]


def neighbors(config, queries, references, *, exclude=None):
    """The `config.top_k` nearest references of a test set or of training pairs, kept on disk.

    Parameters
    ----------
    queries : TestSet or ReferenceSet;  references : ReferenceSet;  exclude : as `Retriever.search`

    Returns
    -------
    similarities, indices : as `Retriever.search`

    Raises
    ------
    ValueError : queries and references come from different weights, so that their cosines mean nothing.
    """
    require_same_weights(queries.weights, references)
    name = features.content_hash(queries.key, references.key, config.top_k,
                                 *([] if exclude is None else [np.asarray(exclude)]))
    path = config.cache_dir / "neighbors" / f"{name}.npz"
    if not path.exists():
        retriever = Retriever(references.image_features)
        similarities, indices = retriever.search(queries.image_features, config.top_k, exclude=exclude)
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


def training_neighbors(config, references, training, neighbors_from="references"):
    """As `neighbors`, of each training pair.

    Parameters
    ----------
    neighbors_from : "references" (the paper's code: pairs held apart) or "training" (the other training
        pairs, the query's own left out; RAM then sees these as its references while it is trained)
    """
    if neighbors_from == "references":
        return neighbors(config, training, references)
    if neighbors_from != "training":
        raise ValueError(f"Unknown neighbors_from={neighbors_from!r}. Known: 'references', 'training'.")
    return neighbors(config, training, training, exclude=np.arange(len(training)))


@lru_cache(maxsize=4)
def _ram_pairs(config, draw, pairs, validation):
    from impart_utils import ram_jobs

    references, training = reference_pairs(config, draw)
    return references, *ram_jobs.divide(training, pairs, validation)


def ram_job(config, *, configuration="paper_code", normalize=None, scale="raw", seed=0, draw=0, pairs=None,
            epochs=None, neighbors_from="references", validation=0, patience=None, evaluate=(), curve=True,
            **changes):
    """A training of RAM for `ram_jobs.run`: (job, function that makes its arrays).

    Parameters
    ----------
    configuration : str, a name of `training.CONFIGURATIONS`;  **changes : entries to replace, such as gate
    normalize : "none", "branch" or "sum" (see `ram.RAM`); None: as the configuration has it
    scale : "raw" (branch main) or "unit": the vectors that RAM gets (see `reference.scaled`)
    seed : int, initial weights and order of the batches;  draw : int, of the reference set
    pairs : int, the first so many training pairs only (None: all);  epochs : int (None: config.ram_epochs)
    neighbors_from : "references" or "training", see `training_neighbors`. Test pictures always have their
        neighbors in the references.
    validation : int, the last so many of these pairs are not trained on; their loss stands in the history
    patience : int, stop after so many epochs without a lower validation loss and keep the best weights
    evaluate : names of test sets to score, as for `test_set`
    curve : int, score before training (epoch 0) and after every so many epochs (True: each); False: after the
        last only
    """
    from impart_utils import ram_jobs

    changes |= {} if normalize is None else {"normalize": normalize}
    changes |= {"epochs": config.ram_epochs if epochs is None else epochs}
    references, training, held_out = _ram_pairs(config, draw, pairs, validation)
    tests = [test_set(config, name) for name in evaluate]
    job = ram_jobs.new_job(
        config.cache_dir / "ram", configuration, changes, training, tests, patience=patience, curve=curve,
        scale=scale, seed=seed, inputs=(references.key, held_out.key, config.top_k, neighbors_from))

    def arrays():
        seen = references if neighbors_from == "references" else training
        near = [training_neighbors(config, references, training, neighbors_from)[1]]
        near += [neighbors(config, held_out, seen)[1]] if len(held_out) else []
        return ram_jobs.gather(scale, training, held_out, seen, near, references,
                               [(test, neighbors(config, test, references)[1]) for test in tests])

    return job, arrays


def trained_ram(config, **arguments):
    """(ram, history): RAM trained once and kept, by default as the paper's code does; see `ram_job`.

    `training.train_ram` says what the history holds; with `evaluate`, rows that were scored also have
    "tests": name -> accuracy, added, length (`ram_jobs.scores`).
    """
    from impart_utils import ram_jobs

    job, arrays = ram_job(config, **arguments)
    ram_jobs.run(job, arrays)
    return ram_jobs.load(job)


def ram_features(config, test, **arguments):
    """A test set's image features after `trained_ram`: float32 (n, d), not normalized; see `ram_job`."""
    from impart_utils.training import apply_ram

    ram, _ = trained_ram(config, **arguments)
    references, _ = reference_pairs(config, arguments.get("draw", 0))
    _, indices = neighbors(config, test, references)
    return apply_ram(ram, *scaled(test.image_features, references, arguments.get("scale", "raw")), indices)


def ram_right(config, name, **arguments):
    """Which pictures of a test set `trained_ram` names correctly: bool (n,), kept with the training.

    Parameters
    ----------
    name : str, as for `test_set`;  **arguments : as for `ram_job`, without `evaluate` and `curve`
    """
    from impart_utils import ram_jobs

    job, arrays = ram_job(config, evaluate=(name,), curve=False, **arguments)
    ram_jobs.run(job, arrays)
    return ram_jobs.right_answers(job)[test_set(config, name).name]


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
