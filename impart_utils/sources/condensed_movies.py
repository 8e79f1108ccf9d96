"""Condensed Movies (Bain et al. 2020): its metadata as tables, and the paper's gallery rebuilt from them.

The files are those of its repository's metadata folders (m-bain/CondensedMovies), under their own names or
names that end so, such as condensed_movies_clips.csv.
"""

import ast
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from impart_utils.sources.csv_files import read_csv

# The stored gallery of the paper's code: imdbid -> title, year of the clips' upload, how many of them.
# The year matters: in the published metadata Creed II's imdbid also marks 11 clips of Creed, from 2016.
PAPER_MOVIES = {
    "tt5109784": ("mother!", 2019, 10), "tt7343762": ("Good Boys", 2019, 10),
    "tt2709692": ("The Grinch", 2019, 10), "tt6398184": ("Downton Abbey", 2019, 10),
    "tt6324278": ("Abominable", 2019, 10), "tt6095472": ("The Angry Birds Movie 2", 2019, 10),
    "tt1707386": ("Les Misérables", 2019, 10), "tt0077288": ("La Cage aux Folles", 2019, 8),
    "tt0109288": ("Blankman", 2020, 10), "tt6343314": ("Creed II", 2020, 9),
    "tt5013056": ("Dunkirk", 2020, 9), "tt0448115": ("Shazam!", 2020, 9),
}
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class StoredQuery:
    """A query of the authors' notebook and the ids of the five clips it stored, best first; no scores."""

    query: str
    videoids: tuple


# From the stored outputs of the paper's code (branch zero-shot-retrieval), plain CLIP on both sides.
PAPER_TEXT_QUERY = StoredQuery(
    "people wearing a protective device on head",
    ("lsa5PDPgJmI", "Jgye_cEhfGQ", "-jpEsYBH3g4", "RLbry-3z8yQ", "_0gn0zQx4_s"))
PAPER_PICTURE_QUERY = StoredQuery(
    "a portrait still of a man",  # the picture isn't in the repository under a free licence
    ("-mXoZz1dqMQ", "lsa5PDPgJmI", "MGBHNeYbsbg", "ljAdSzBv0ug", "sM1I11qUM44"))


def paper_gallery(metadata_folder):
    """The paper's gallery, rebuilt from the metadata of Condensed Movies: 118 clips of 12 movies.

    The paper's code stored 115 of them and no list by name. Ten movies are there with all their clips
    (`in_paper` "yes", 98 clips); of Dunkirk it holds 9 of 10 and of La Cage aux Folles 8 of 10, nobody
    knows which ("unknown", 20 clips).

    Parameters
    ----------
    metadata_folder : holds clips.csv and descriptions.csv, also under names that end so

    Returns
    -------
    DataFrame: videoid, imdbid, movie, clip_name, description (str), upload_year (int), in_paper

    Raises
    ------
    FileNotFoundError; ValueError : a column or one of the movies is missing.
    """
    columns = ("videoid", "imdbid", "clip_idx", "clip_name", "upload_year")
    clips = _metadata(metadata_folder, "clips.csv", columns)
    texts = _metadata(metadata_folder, "descriptions.csv", ("imdbid", "videoid", "description"))
    wanted = pd.DataFrame([(imdbid, *row) for imdbid, row in PAPER_MOVIES.items()],
                          columns=["imdbid", "movie", "upload_year", "in_paper"])
    clips["upload_year"] = pd.to_numeric(clips["upload_year"], errors="coerce").fillna(-1).astype(int)
    # on imdbid, never on titles: clips and movies spell 452 titles differently, and 61 titles are shared
    gallery = wanted.merge(clips, on=["imdbid", "upload_year"], how="left", validate="one_to_many")
    lacking = gallery.loc[gallery["videoid"].isna(), "movie"]
    if len(lacking):
        raise ValueError(f"The metadata in {metadata_folder} has no clip of {', '.join(lacking)}. Get the "
                         "complete clips.csv of Condensed Movies.")
    gallery = gallery.merge(texts, on=["imdbid", "videoid"], how="left", validate="one_to_one")
    gallery["description"] = gallery["description"].fillna("")
    sizes = gallery.groupby("imdbid")["videoid"].transform("size")
    gallery["in_paper"] = (sizes == gallery["in_paper"]).map({True: "yes", False: "unknown"})
    order = gallery["imdbid"].map(list(PAPER_MOVIES).index) * 1000 + gallery["clip_idx"].astype(int)
    columns = ["videoid", "imdbid", "movie", "clip_name", "description", "upload_year", "in_paper"]
    return gallery.loc[order.sort_values(kind="stable").index, columns].reset_index(drop=True)


def split_clips(metadata_folder, split="test"):
    """The clips of a part of Condensed Movies, chosen as its own data loader chooses them.

    Clips without a description are left out, and those whose description another clip of the part has,
    too ("probably errors by the channel"); ``attrs["left_out"]`` counts both.

    Parameters
    ----------
    metadata_folder : holds clips.csv, descriptions.csv and, unless `split` is "all", split.csv
    split : "train", "val", "test" (by movie) or "all"

    Returns
    -------
    DataFrame: videoid, imdbid, movie, clip_name, description (str), upload_year (int). `movie` is the title,
        with the imdbid behind it where two movies share one.

    Raises
    ------
    FileNotFoundError; ValueError : a column is missing, an unknown split, or no clip in it.
    """
    if split not in (*SPLITS, "all"):
        raise ValueError(f"Unknown split {split!r}. Known: {', '.join(SPLITS)}, all.")
    columns = ("videoid", "imdbid", "title", "clip_name", "upload_year")
    clips = _metadata(metadata_folder, "clips.csv", columns)
    texts = _metadata(metadata_folder, "descriptions.csv", ("imdbid", "videoid", "description"))
    if split != "all":
        parts = _metadata(metadata_folder, "split.csv", ("imdbid", "split"))
        clips = clips[clips["imdbid"].isin(parts.loc[parts["split"] == split, "imdbid"])]
    if not len(clips):
        raise ValueError(f"The metadata in {metadata_folder} has no clip in split {split!r}.")
    texts = texts[texts["videoid"].isin(clips["videoid"]) & (texts["description"] != "")]
    alone = ~texts["description"].duplicated(keep=False)
    table = clips.merge(texts.loc[alone, ["videoid", "description"]], on="videoid", validate="one_to_one")
    first = table.drop_duplicates("imdbid").set_index("imdbid")["title"]  # titles differ within a movie
    shared = set(first[first.duplicated(keep=False)])
    table["movie"] = [f"{first[name]} ({name})" if first[name] in shared else first[name]
                      for name in table["imdbid"]]
    years = pd.to_numeric(table["upload_year"], errors="coerce").fillna(-1).astype(int)
    columns = ["videoid", "imdbid", "movie", "clip_name", "description", "upload_year"]
    table = table.assign(upload_year=years)[columns]
    table.attrs["left_out"] = {"without description": int(len(clips) - len(texts)),
                               "description of two clips": int((~alone).sum())}
    return table


def durations(metadata_folder):
    """Where each clip's own pictures end, in seconds, before the channel's ending: dict videoid -> float.

    From durations.csv (columns videoid, duration). Of the paper's 118 clips it lacks those of Blankman,
    Creed II, Dunkirk and Shazam!. A duration that is no positive number is left out.
    """
    table = _metadata(metadata_folder, "durations.csv", ("videoid", "duration"))
    seconds = pd.to_numeric(table["duration"], errors="coerce")
    return {name: float(value) for name, value in zip(table["videoid"], seconds, strict=True) if value > 0}


def casts(metadata_folder):
    """Who plays whom: dict imdbid -> dict actor -> character, from casts.csv.

    The file holds Python dicts as text; they are read as literals, no code is run. Rows that aren't one are
    left out with a warning.
    """
    table, found, bad = _metadata(metadata_folder, "casts.csv", ("imdbid", "cast")), {}, []
    for line, (name, text) in enumerate(zip(table["imdbid"], table["cast"], strict=True), start=2):
        try:
            found[name] = {str(actor): str(who) for actor, who in ast.literal_eval(text).items()}
        except (ValueError, SyntaxError, AttributeError):
            bad.append(line)
    if bad:
        warnings.warn(f"{len(bad)} of {len(table)} rows of casts.csv in {metadata_folder} are no cast, the "
                      f"first is line {bad[0]}.", stacklevel=2)
    return found


def _metadata(folder, ending, columns):
    found = sorted(path for path in Path(folder).glob(f"*{ending}"))
    if not found:
        raise FileNotFoundError(f"There is no *{ending} in {folder}. Expected the metadata of Condensed "
                                "Movies (its repository's folders metadata and data/metadata).")
    return read_csv(found[0], columns)
