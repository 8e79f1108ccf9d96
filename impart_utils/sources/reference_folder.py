"""A reference folder: pictures, captions.csv and where they come from, built from metadata or read.

    python -m impart_utils.reference build --metadata FILE --pairs 1000 --seed 0 --out data/reference/NAME

It holds the pictures as the servers sent them; captions.csv (file, caption, id, license, page); manifest.csv,
what became of each row that was tried; card.md, the data card; source.json, all that the set depends on.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from impart_utils.config import ROOT, MissingInput
from impart_utils.sources.data_card import data_card, set_hash
from impart_utils.sources.datasets import Files, stamp
from impart_utils.sources.files import atomic_path, file_hash
from impart_utils.sources.metadata import (
    LICENSES,
    captions,
    clean_caption,
    join_ids,
    license_code,
    read_ids,
    read_metadata,
    seeded_order,
)
from impart_utils.sources.pictures import commons_url, download_pictures


def plan(frame, *, seed=0, how="paper", **filters):
    """Which rows of a metadata list can be used, and in which order they are tried.

    Parameters
    ----------
    frame : DataFrame of `metadata.read_metadata`
    seed : int;  how : "paper" or "full"
    **filters : empty, duplicates, licenses, no_derivatives, as for `metadata.captions`

    Returns
    -------
    table : DataFrame of `metadata.captions`: each row's caption and why it can't be used, "" if it can
    order : list of positions of the usable rows, in the seeded order
    """
    table = captions(frame, how, **filters)
    return table, [row for row in seeded_order(frame, seed) if not table["reason"].iloc[row]]


def build(metadata, folder, *, pairs=1000, seed=0, how="paper", filters=None, ids=None, source="YFCC15M",
          retry=False, **download):
    """Fetch `pairs` pictures of a metadata list and write them with their captions as a reference folder.

    Rows are tried in a seeded order until enough pictures are good, so that 1000 means 1000; after a kill
    the same call goes on where it was. The same metadata and the same pictures alive give the same set.

    Parameters
    ----------
    metadata : path of a list that `sources.metadata.read_metadata` reads, such as the paper's csv
    folder : where all goes (see above); `folder:FOLDER` is then a reference of the notebooks
    pairs : int;  seed : int, of the order;  how : "paper" or "full", cleaning of captions
    filters : dict, optional: empty, duplicates, licenses, no_derivatives, as for `metadata.captions`
    ids : OpenAI's list of YFCC15M's photos (path), optional: it adds hashes, by which a mirror is asked
    source : str, what the list is a part of; results name it
    retry : bool, try rows again that failed before
    **download : further arguments of `sources.pictures.download_pictures`, such as per_host

    Returns
    -------
    rows : DataFrame with file, caption, id, license, page, title, description; fewer than `pairs`
        where the list is used up
    """
    frame, filters = _read(metadata, ids), filters or {}
    table, order = plan(frame, seed=seed, how=how, **filters)
    if download.get("progress", True):
        dropped = Counter(reason for reason in table["reason"] if reason).most_common()
        print(f"{len(order)} of {len(frame)} rows can be used"
              + "".join(f"; {reason}: {count}" for reason, count in dropped))
    wanted = frame.iloc[order].assign(
        fallbackurl=[commons_url(name) if name else "" for name in frame["hash"].iloc[order]])
    manifest = download_pictures(wanted, folder, wanted=pairs, retry=retry, **download)
    place = {frame["photoid"].iloc[row]: row for row in order}
    good = [row for row in manifest if row["state"] == "ok"]
    kept, pictures = [place[row["id"]] for row in good], [row["sha256"] for row in good]
    rows = _rows(frame.iloc[kept], table["caption"].iloc[kept], [row["file"] for row in good])
    origin = {"source": source, "metadata": Path(metadata).name, "metadata_sha256": file_hash(metadata),
              "ids_sha256": file_hash(ids) if ids else None, "seed": seed, "captions": how,
              "filters": {name: sorted(value) if isinstance(value, set) else value
                          for name, value in filters.items()},
              "pairs": len(rows), "hash": set_hash(rows["id"], rows["caption"], pictures)}
    card = "# Data card: no picture was good\n" if not kept else data_card(
        frame, kept, table, source=f"{origin['metadata']}, SHA-256 {origin['metadata_sha256']}", seed=seed,
        how=how, states={row["id"]: row["state"] for row in manifest}, count_tokens=_token_counter(),
        picture_hashes=pictures)
    _write(Path(folder), rows, origin, card)
    return rows


def _read(metadata, ids):
    if ids is None:
        return read_metadata(metadata)
    ids = read_ids(ids)
    return join_ids(read_metadata(metadata, ids=ids), ids)  # streamed: a few of 100 million rows


def _rows(frame, texts, files):
    licenses = map(license_code, frame["licenseurl"], frame["licensename"])
    return pd.DataFrame({"file": files, "caption": list(texts), "id": list(frame["photoid"]),
                         "license": list(licenses), "page": list(frame["pageurl"]),
                         # cleaned, so that notebook 07 can compare captions made of either or both
                         "title": [clean_caption("", "full", title=title) for title in frame["title"]],
                         "description": [clean_caption(text, "full") for text in frame["description"]]},
                        dtype=str)


def _token_counter():
    from impart_utils.sources.checkpoints import import_clip

    tokenize = import_clip().tokenize
    return lambda caption: int((tokenize(caption, 1000, truncate=True) != 0).sum())


def _write(folder, rows, origin, card):
    with atomic_path(folder / "captions.csv") as temporary:
        rows.to_csv(temporary, index=False)
    with atomic_path(folder / "source.json") as temporary:
        temporary.write_text(json.dumps(origin, indent=2) + "\n")
    with atomic_path(folder / "card.md") as temporary:
        temporary.write_text(card, encoding="utf-8")


def read_folder(folder):
    """A folder of pictures with captions.csv beside them, for `reference.encode_pairs`.

    Parameters
    ----------
    folder : path; captions.csv has the columns file and caption, further ones such as license are kept

    Returns
    -------
    items : list of (file name, function that opens the picture);  captions : list of str
    metadata : dict with source and columns;  stamp : str, changes where a picture's file does

    Raises
    ------
    MissingInput : there is no captions.csv.
    ValueError : a column is missing, or a file is named twice.
    """
    folder = Path(folder)
    table, origin = folder / "captions.csv", folder / "source.json"
    if not table.is_file():
        raise MissingInput(f"There is no reference set in {folder} (captions.csv is missing). Make one from "
                           "YFCC metadata (data/README.md), or give features: --set reference=pack:FILE")
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)  # a caption "None" stays text
    if missing := sorted({"file", "caption"} - set(rows.columns)):
        raise ValueError(f"{table}: expected the columns file and caption, {', '.join(missing)} is missing.")
    if (again := rows["file"].duplicated()).any():
        row = int(again.to_numpy().argmax())
        raise ValueError(f"{table}, row {row + 1}: {rows['file'][row]!r} is named a second time. A picture "
                         "has one caption: remove the other row.")
    pictures = Files(folder / name for name in rows["file"])
    items = [(name, lambda row=row: pictures[row]) for row, name in enumerate(rows["file"])]
    source = json.loads(origin.read_text())["source"] if origin.is_file() else f"the folder {folder.name}"
    columns = {name: list(rows[name]) for name in rows.columns if name not in ("file", "caption")}
    return items, list(rows["caption"]), {"source": source, "columns": columns}, stamp(pictures.paths)


def main(arguments=None):
    """Build a reference set from a list of photos: pictures by URL, captions, a data card."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m impart_utils.reference", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help=build.__doc__.splitlines()[0])
    add = command.add_argument
    add("--metadata", required=True, help="the paper's csv, YFCC100M's tab file, or parquet")
    add("--ids", help="OpenAI's id list, which adds hashes for the mirror")
    add("--pairs", type=int, default=10_000, help="1000 references and 9000 to train RAM (the default)")
    add("--seed", type=int, default=0, help="of the order in which rows are tried")
    add("--captions", choices=["paper", "full"], default="paper", help="how captions are cleaned")
    add("--empty", choices=["drop", "keep"], default="drop", help="blank captions (the paper's code: keep)")
    add("--duplicates", choices=["drop", "keep"], default="drop",
        help="captions of an earlier row (the paper's code: keep)")
    add("--licences", help=f"codes to keep, with commas, of {', '.join(LICENSES)}; all otherwise")
    add("--no-derivatives", choices=["drop", "keep"], default="keep", help="licences with nd")
    add("--per-host", type=float, default=2.0, help="requests per second to one host; 0: no limit")
    add("--threads", type=int, default=32)
    add("--allow-private", action="store_true", help="let addresses lead into private networks (a mirror)")
    add("--retry", action="store_true", help="try rows again that failed before")
    add("--source", default="YFCC15M", help="what the list is a part of")
    add("--out", default=str(ROOT / "data" / "reference" / "yfcc"))
    given = parser.parse_args(arguments)
    try:
        rows = build(given.metadata, given.out, pairs=given.pairs, seed=given.seed, how=given.captions,
                     filters={"empty": given.empty, "duplicates": given.duplicates,
                              "licenses": _licenses(given.licences), "no_derivatives": given.no_derivatives},
                     ids=given.ids, source=given.source, retry=given.retry, threads=given.threads,
                     per_host=given.per_host or None, allow_private=given.allow_private)
    except (MissingInput, ValueError, OSError, ImportError) as error:
        sys.exit(str(error))
    print(f"{len(rows)} of {given.pairs} pairs are in {given.out}; what became of each row: manifest.csv "
          "there; what the set is: card.md.")


def _licenses(codes):
    """The set of codes to keep, or None for all."""
    kept = codes and set(codes.replace(" ", "").split(","))
    if kept and (unknown := sorted(kept - set(LICENSES))):
        raise ValueError(f"Unknown licence {unknown[0]!r}. Known: {', '.join(LICENSES)}.")
    return kept or None
