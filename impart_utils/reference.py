"""The reference set: image-text pairs as features, and Eq. 1 applied with it from end to end."""

import json
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from impart_utils.config import ROOT, SCALES, MissingInput
from impart_utils.retrieval import Retriever
from impart_utils.sources.features import Pack, content_hash, load_pack, save_pack
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
                raise ValueError(f"Expected {len(self)} values in the reference set's column {name!r}, "
                                 f"got {len(values)}.")

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

    def take(self, rows):
        """The reference set of some rows, in the order given."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise ValueError(f"Expected rows from 0 to {len(self) - 1}, got {rows.min()} to {rows.max()}.")
        columns = {name: [values[row] for row in rows]
                   for name, values in self.metadata.get("columns", {}).items()}
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
        raise ValueError(f"{path} has no text features for its {len(pack.ids)} pictures: it can't be a "
                         "reference set. Give the texts as a second file: pack:IMAGES.npz+TEXTS.npz")
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
    return augment_fused(v, neighbor_indices, R_img, R_txt, image_weight=image_weight,
                         text_weight=text_weight)


def build(metadata, folder, *, pairs=1000, seed=0, how="paper", licenses=None, ids=None,
          source="YFCC15M", retry=False, **download):
    """Fetch `pairs` pictures of a metadata list and write them with their captions as a reference folder.

    Rows are tried in a seeded order until enough pictures are good, so that 1000 means 1000; after a kill
    the same call goes on where it was. The same metadata and the same pictures alive give the same set.

    Parameters
    ----------
    metadata : path of a list that `sources.metadata.read_metadata` reads, such as the paper's csv
    folder : where pictures, manifest.csv, captions.csv and card.md go; `folder:FOLDER` is then a reference
    pairs : int;  seed : int, of the order;  how : "paper" or "full", cleaning of captions
    licenses : set of codes such as {"by", "by-sa"}, or None for all
    ids : OpenAI's list of YFCC15M's photos (path), optional: it adds hashes, by which a mirror is asked
    source : str, what the list is a part of; results name it
    retry : bool, try rows again that failed before
    **download : further arguments of `sources.pictures.download_pictures`, such as per_host

    Returns
    -------
    rows : DataFrame with file, caption, id, license, page; fewer than `pairs` where the list is used up
    """
    import pandas as pd

    from impart_utils.sources.checkpoints import import_clip
    from impart_utils.sources.features import atomic_path
    from impart_utils.sources.metadata import (
        captions,
        data_card,
        join_ids,
        license_code,
        read_ids,
        read_metadata,
        seeded_order,
    )
    from impart_utils.sources.pictures import commons_url, download_pictures

    if ids is None:
        frame = read_metadata(metadata)
    else:
        ids = read_ids(ids)
        frame = join_ids(read_metadata(metadata, ids=ids), ids)  # streamed: a few of 100 million rows
    table = captions(frame, how, licenses=licenses)
    order = [row for row in seeded_order(frame, seed) if not table["reason"].iloc[row]]
    wanted = frame.iloc[order].assign(
        fallbackurl=[commons_url(name) if name else "" for name in frame["hash"].iloc[order]])
    manifest = download_pictures(wanted, folder, wanted=pairs, retry=retry, **download)
    position = {frame["photoid"].iloc[row]: row for row in order}
    good = [row for row in manifest if row["state"] == "ok"]
    kept = [position[row["id"]] for row in good]
    rows = pd.DataFrame({"file": [row["file"] for row in good], "caption": list(table["caption"].iloc[kept]),
                         "id": [row["id"] for row in good],
                         "license": [license_code(url) for url in frame["licenseurl"].iloc[kept]],
                         "page": list(frame["pageurl"].iloc[kept])})
    with atomic_path(Path(folder) / "captions.csv") as temporary:
        rows.to_csv(temporary, index=False)
    with atomic_path(Path(folder) / "source.json") as temporary:
        origin = {"source": source, "metadata": Path(metadata).name, "seed": seed}
        temporary.write_text(json.dumps(origin) + "\n")
    if kept:
        tokenize = import_clip().tokenize
        card = data_card(
            frame, kept, table, source=metadata, seed=seed, how=how,
            states={row["id"]: row["state"] for row in manifest},
            count_tokens=lambda caption: int((tokenize(caption, 1000, truncate=True) != 0).sum()))
        with atomic_path(Path(folder) / "card.md") as temporary:
            temporary.write_text(card)
    return rows


def main():
    """Build a reference set: python -m impart_utils.reference build --metadata FILE --out FOLDER."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m impart_utils.reference", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help=build.__doc__.splitlines()[0])
    command.add_argument("--metadata", required=True, help="the paper's csv, YFCC100M's tab file, or parquet")
    command.add_argument("--ids", help="OpenAI's id list, which adds hashes for the mirror")
    command.add_argument("--pairs", type=int, default=10_000, help="1000 references and 9000 to train RAM")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--captions", choices=["paper", "full"], default="paper")
    command.add_argument("--licences", help="codes to keep, such as by,by-sa; all otherwise")
    command.add_argument("--per-host", type=float, default=2.0, help="requests per second to one host")
    command.add_argument("--retry", action="store_true", help="try rows again that failed before")
    command.add_argument("--source", default="YFCC15M", help="what the list is a part of")
    command.add_argument("--out", default=str(ROOT / "data" / "reference" / "yfcc"))
    given = parser.parse_args()
    try:
        rows = build(given.metadata, given.out, pairs=given.pairs, seed=given.seed, how=given.captions,
                     ids=given.ids, licenses=set(given.licences.split(",")) if given.licences else None,
                     source=given.source, retry=given.retry, per_host=given.per_host)
    except (MissingInput, ValueError, OSError, ImportError) as error:
        sys.exit(str(error))
    print(f"{len(rows)} of {given.pairs} pairs are in {given.out}; "
          "what became of each row: manifest.csv there.")


if __name__ == "__main__":
    main()
