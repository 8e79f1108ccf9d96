"""The reference set: image-text pairs as features, and Eq. 1 applied with it from end to end."""

from dataclasses import dataclass, field, replace

import numpy as np

from impart_utils.retrieval import Retriever
from impart_utils.sources.features import Pack, content_hash, load_pack, save_pack
from impart_utils.vanilla import augment_fused
from impart_utils.zeroshot import unit

SCALES = ("unit", "raw", "mixed")


@dataclass(frozen=True)
class ReferenceSet:
    """m image-text pairs.

    Attributes
    ----------
    image_features, text_features : float32 arrays (m, d), as the encoder gave them
    captions, ids : lists of m str
    metadata : dict
        "model": whose weights; "source": where the pairs come from; "columns": dict of lists of m values,
        for example licence and page, which `take` cuts like the features.

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
        from impart_utils.sources.features import check_pack

        check_pack(self._pack(), "the reference set")
        for name, values in self.metadata.get("columns", {}).items():
            if len(values) != len(self):
                raise ValueError(f"Expected {len(self)} values in the reference set's column {name!r}, got {len(values)}.")

    def __len__(self):
        return len(self.image_features)

    @property
    def key(self):
        """Content hash of features, captions and ids: names the set in every result."""
        return content_hash(self.image_features, self.text_features, self.captions, self.ids)

    @property
    def weights(self):
        """Whose CLIP made the features, in words."""
        return self.metadata.get("model", "unknown")

    def take(self, rows):
        """The reference set of some rows, in the order given."""
        rows = np.asarray(rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise ValueError(f"Expected rows from 0 to {len(self) - 1}, got {rows.min()} to {rows.max()}.")
        columns = {name: [values[row] for row in rows] for name, values in self.metadata.get("columns", {}).items()}
        return replace(self, image_features=self.image_features[rows], text_features=self.text_features[rows],
                       captions=[self.captions[row] for row in rows], ids=[self.ids[row] for row in rows],
                       metadata={**self.metadata, "columns": columns})

    def save(self, path):
        """Write the set as a feature pack (safetensors): no pictures, and opening it runs no code."""
        save_pack(path, self._pack())

    @classmethod
    def load(cls, path):
        """Read a set from a feature pack with texts (see `sources.features.load_pack`)."""
        return from_pack(load_pack(path), path)

    def _pack(self):
        return Pack(self.image_features, list(self.ids), self.weights,
                    text_features=self.text_features, captions=list(self.captions), metadata=self.metadata)


def from_pack(pack, path="the pack"):
    """A `ReferenceSet` from a pack; ValueError where it has no text for each picture."""
    if pack.text_features is None:
        raise ValueError(f"{path} has no text features for its {len(pack.ids)} pictures: it can't be a reference set. "
                         "Give the texts as a second file: pack:IMAGES.npz+TEXTS.npz")
    captions = pack.captions or [""] * len(pack.ids)
    return ReferenceSet(pack.image_features, pack.text_features, captions, pack.ids,
                        {"model": pack.model, **pack.metadata})


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
        raise ValueError(f"Expected references <= number of pairs, got references={references} with {len(pairs)} pairs. "
                         "Lower references or give more pairs.")
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
    blocks = {"query": image_features, "image": references.image_features, "text": references.text_features}
    lost = [name for name in needed if len(blocks[name]) and not keeps_norms(blocks[name])]
    if lost:
        raise ValueError(f"scale={scale!r} needs raw vectors, but the {' and '.join(lost)} features have unit length: "
                         "their norms are gone. Encode them again, or use scale='unit'.")
    v, R_img, R_txt = (np.asarray(block) for block in blocks.values())
    if scale == "raw":
        return v, R_img, R_txt
    return unit(v), unit(R_img), R_txt if scale == "mixed" else unit(R_txt)


def vanilla_features(image_features, references, *, top_k=8, image_weight=0.5, text_weight=0.05, scale="unit",
                     neighbor_indices=None):
    """RA-CLIP Vanilla from end to end: retrieve, scale, add (Eq. 1).

    Parameters
    ----------
    image_features : array (n, d);  references : ReferenceSet
    neighbor_indices : int array (n, k), optional: add these instead of the `top_k` nearest

    Returns
    -------
    augmented_features : array (n, d), not normalized
    """
    if neighbor_indices is None:
        _, neighbor_indices = Retriever(references.image_features).search(image_features, top_k)
    v, R_img, R_txt = scaled(image_features, references, scale)
    return augment_fused(v, neighbor_indices, R_img, R_txt, image_weight=image_weight, text_weight=text_weight)
