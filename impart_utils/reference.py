"""The reference set: image-text pairs as features, and Eq. 1 applied with it from end to end.

    python -m impart_utils.reference build --metadata FILE --out FOLDER

fetches pictures and captions for one (see `sources.reference_folder`).
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from impart_utils.config import SCALES
from impart_utils.retrieval import Retriever
from impart_utils.search_backends import augment_torch, choose_backend
from impart_utils.sources.features import (
    Pack,
    check_pack,
    content_hash,
    encode_to_cache,
    load_pack,
    save_pack,
)
from impart_utils.vanilla import augment_fused
from impart_utils.zeroshot import unit


@dataclass(frozen=True)
class ReferenceSet:
    """m image-text pairs.

    Attributes
    ----------
    image_features, text_features : float32 arrays (m, d), as the encoder gave them
    captions, ids : lists of m str
    metadata : dict
        "model": whose weights; "source": where the pairs come from; "columns": dict of lists of m values,
        for example license and page, which `take` cuts like the features.

    Raises
    ------
    ValueError : parts that don't fit together, or features that are zero or not finite.
    """

    image_features: np.ndarray
    text_features: np.ndarray
    captions: list
    ids: list
    metadata: dict = field(default_factory=dict)

    def __post_init__(self):
        for name, values in self.columns.items():
            if len(values) != len(self):
                raise ValueError(f"Expected {len(self)} values in the reference set's column {name!r}, "
                                 f"got {len(values)}.")
        check_pack(self._pack(), "the reference set")

    def __len__(self):
        return len(self.image_features)

    @cached_property
    def key(self):
        """Content hash of features, captions and ids: names the set in every result."""
        return content_hash(self.image_features, self.text_features, self.captions, self.ids)

    @property
    def weights(self):
        """Whose CLIP made the features, in words."""
        return self.metadata.get("model", "unknown")

    @property
    def columns(self):
        """What is known of each pair besides picture and caption: dict of lists of m values."""
        return self.metadata.get("columns", {})

    @property
    def caption_similarities(self):
        """Array (m,): the cosine of each picture with its own caption."""
        return np.sum(unit(self.image_features) * unit(self.text_features), axis=1)

    def take(self, rows):
        """The reference set of some rows, in the order given."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise ValueError(f"Expected rows from 0 to {len(self) - 1}, got {rows.min()} to {rows.max()}.")
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return replace(self, image_features=self.image_features[rows], text_features=self.text_features[rows],
                       captions=[self.captions[row] for row in rows], ids=[self.ids[row] for row in rows],
                       metadata={**self.metadata, "columns": columns})

    def shuffle_captions(self, seed):
        """Each picture with another one's caption: what the texts say of their pictures is gone.

        Pictures, ids and columns stay; the new column "caption_of" holds the id that a caption came from.
        No picture keeps its own. For `seed` the same order as `evidence.controls.shuffled_captions`.
        """
        if len(self) < 2:
            raise ValueError(f"Expected at least two pairs to shuffle captions, got {len(self)}.")
        order, source = np.random.default_rng(seed).permutation(len(self)), np.empty(len(self), np.int64)
        source[order] = np.roll(order, 1)  # around one circle
        columns = {**self.columns, "caption_of": [self.ids[row] for row in source]}
        return replace(self, text_features=self.text_features[source],
                       captions=[self.captions[row] for row in source],
                       metadata={**self.metadata, "columns": columns})

    def filter(self, *, min_similarity):
        """The pairs whose picture and caption have a cosine of at least `min_similarity`, in their order.

        Raises
        ------
        ValueError : no pair has.
        """
        similarities = self.caption_similarities
        if not (similarities >= min_similarity).any():
            raise ValueError(f"Expected a pair with min_similarity={min_similarity}, but the best of "
                             f"{len(self)} has {similarities.max(initial=-1):.3f}. Lower min_similarity.")
        return self.take(similarities >= min_similarity)

    def save(self, path):
        """Write the set as a feature pack (safetensors): no pictures, and opening it runs no code."""
        save_pack(path, self._pack())

    @classmethod
    def load(cls, path):
        """Read a set from a feature pack with texts (see `sources.features.load_pack`)."""
        return cls.from_pack(load_pack(path), path)

    @classmethod
    def from_pack(cls, pack, path="the pack"):
        """The pairs of a `Pack`; a missing caption becomes "".

        Raises
        ------
        ValueError : no text for each picture, or an id that stands for two pairs; the message names `path`.
        """
        if pack.text_features is None:
            raise ValueError(f"{path} has no text features for its {len(pack.ids)} pictures: it can't be a "
                             "reference set. Give the texts as a second file: pack:IMAGES.npz+TEXTS.npz")
        if twice := next((name for name, times in Counter(pack.ids).items() if times > 1), None):
            raise ValueError(f"{path}: expected ids that stand for one pair each, got {twice!r} "
                             f"{pack.ids.count(twice)} times. Rename or remove all but one.")
        metadata = {"model": pack.model, **({"source": pack.source} if pack.source else {}), **pack.metadata}
        if isinstance(pack.license, list):
            metadata["columns"] = {"license": pack.license, **metadata.get("columns", {})}
        return cls(pack.image_features, pack.text_features, pack.captions or [""] * len(pack.ids), pack.ids,
                   metadata)

    @classmethod
    def from_folder(cls, folder, clip, *, cache_dir):
        """Encode a folder of pictures with captions.csv beside them, as `reference build` makes it.

        Parameters
        ----------
        folder : path; captions.csv has the columns file and caption, further ones such as license are kept
        clip : Clip of `clip_model.load_clip`, or anything with its `encode_*`, `key` and `provenance`
        cache_dir : path, where the features are kept: a second call encodes nothing

        Raises
        ------
        MissingInput : there is no captions.csv.
        ValueError : a column is missing, or a file is named twice.
        """
        from impart_utils.sources.reference_folder import read_folder

        items, captions, metadata, stamp = read_folder(folder)
        return encode_pairs(clip, items, captions, metadata, stamp=stamp,
                            cache=Path(cache_dir) / f"pairs-{Path(folder).name}")

    def _pack(self):
        return Pack(self.image_features, list(self.ids), self.weights, text_features=self.text_features,
                    captions=list(self.captions), metadata=self.metadata,
                    license=self.columns.get("license", "not stated"), source=self.metadata.get("source", ""))


from_pack = ReferenceSet.from_pack


def encode_pairs(clip, items, captions, metadata, *, stamp, cache):
    """A `ReferenceSet` of pictures and captions, with all that belongs to a picture that can't be opened cut.

    Parameters
    ----------
    clip : Clip;  items : list of m (id, picture or function that opens it);  captions : list of m str
    metadata : dict as of `ReferenceSet`; "model" and "skipped" (id -> reason) are added
    stamp : str or number, names the pictures' state in the cache's key
    cache : path; features are kept in CACHE-images and CACHE-texts
    """
    cache = Path(cache)
    image_features, ids, skipped = encode_to_cache(
        clip.encode_images, items, cache.with_name(f"{cache.name}-images"), key=f"{clip.key} {stamp}",
        prepare=clip.prepare)
    kept = [row for row, (name, _) in enumerate(items) if name not in skipped]
    texts = [(items[row][0], captions[row]) for row in kept]
    text_features, _, _ = encode_to_cache(  # which texts there are depends on the pictures' ids
        clip.encode_texts, texts, cache.with_name(f"{cache.name}-texts"), batch_size=1024,
        key=f"{clip.key} {content_hash(captions)}")
    columns = {name: [values[row] for row in kept] for name, values in metadata.get("columns", {}).items()}
    return ReferenceSet(image_features, text_features, [captions[row] for row in kept], ids,
                        {**metadata, "model": clip.provenance, "columns": columns, "skipped": skipped})


def split(pairs, references, *, seed, draw=0):
    """Divide pairs into a reference set and training pairs by a seeded shuffle.

    Parameters
    ----------
    pairs : ReferenceSet;  references : int, size of the reference set (paper: 1000, 10 % of 10,000)
    seed, draw : int; another draw is another random reference set of the same size

    Returns
    -------
    reference_set, training_pairs : ReferenceSet; no pair is in both
    """
    if references > len(pairs):
        raise ValueError(f"Expected references <= number of pairs, got references={references} with "
                         f"{len(pairs)} pairs. Lower references or give more pairs.")
    order = np.random.default_rng([seed, draw]).permutation(len(pairs))
    return pairs.take(order[:references]), pairs.take(order[references:])


def keeps_norms(features):
    """True where the vectors' own lengths survive (they aren't all 1)."""
    return bool(np.abs(np.linalg.norm(features, axis=1) - 1).max() > 1e-3)


def scaled(image_features, references, scale="unit"):
    """The vectors that Eq. 1 adds, under one of the three readings in the history of the paper's code.

    Parameters
    ----------
    image_features : array (n, d), queries;  references : ReferenceSet
    scale : "unit": all of unit length (the kit's default); "raw": all as CLIP gives them, norm about 10
        (branch main); "mixed": unit queries and retrieved images, raw texts (branches jalend, veera1, where
        it came about by normalizing in place)

    Returns
    -------
    v (n, d), R_img (m, d), R_txt (m, d)

    Raises
    ------
    ValueError : unknown scale, or raw vectors asked of features whose norms are gone.
    """
    if scale not in SCALES:
        raise ValueError(f"Unknown scale {scale!r}. Known: {', '.join(SCALES)}.")
    needed = {"unit": (), "raw": ("image", "text", "query"), "mixed": ("text",)}[scale]
    unit_queries = unit(image_features, "image_features")  # raises where one has no direction
    blocks = {"query": image_features, "image": references.image_features, "text": references.text_features}
    lost = [name for name in needed if len(blocks[name]) and not keeps_norms(blocks[name])]
    if lost:
        raise ValueError(f"scale={scale!r} needs raw vectors, but the {' and '.join(lost)} features have "
                         "unit length: their norms are gone. Encode them again, or use scale='unit'.")
    v, R_img, R_txt = (np.asarray(block) for block in blocks.values())
    if scale == "raw":
        return v, R_img, R_txt
    return unit_queries, unit(R_img), R_txt if scale == "mixed" else unit(R_txt)


def vanilla_features(image_features, references, *, top_k=8, image_weight=0.5, text_weight=0.05, scale="unit",
                     neighbor_indices=None, backend="auto"):
    """RA-CLIP Vanilla from end to end: retrieve, scale, add (Eq. 1).

    Parameters
    ----------
    image_features : array (n, d);  references : ReferenceSet
    neighbor_indices : int array (n, k), optional: add these instead of the `top_k` nearest
    backend : as for `Retriever`; "torch" also adds by torch, five times as fast as the paper's code

    Returns
    -------
    augmented_features : array (n, d), not normalized
    """
    if neighbor_indices is None:
        retriever = Retriever(references.image_features, backend=backend)
        _, neighbor_indices = retriever.search(image_features, top_k)
    v, R_img, R_txt = scaled(image_features, references, scale)
    add = augment_torch if choose_backend(backend, len(references)) == "torch" else augment_fused
    return add(v, neighbor_indices, R_img, R_txt, image_weight=image_weight, text_weight=text_weight)


if __name__ == "__main__":
    from impart_utils.sources.reference_folder import main

    main()
