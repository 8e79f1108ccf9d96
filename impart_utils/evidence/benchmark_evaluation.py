"""Standard video benchmarks by the kit's own functions, from films' features and texts' features.

Annotations come from sources.video_benchmarks; films from a pack, or from the user's folder by gallery.py.
Published values to stand beside ours are in data/published_video_values.csv.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from impart_utils.config import ROOT
from impart_utils.evidence import film_protocols
from impart_utils.evidence.film_evaluation import place, placed_rows
from impart_utils.evidence.scene_evaluation import Moments, moment_table
from impart_utils.film_scores import score_films

PUBLISHED_COLUMNS = ("benchmark", "protocol", "method", "metric", "value", "unit", "source", "mark", "note")


def films_by_id(gallery):
    """A gallery's films for `evaluate_benchmark`: dict, file name without its ending -> (times, frames).

    Raises
    ------
    ValueError : two files of one name.
    """
    names = [Path(name).stem for name in gallery.ids]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"Expected each video once, got two files called {twice!r} in {gallery.name}.")
    return dict(zip(names, zip(gallery.timestamps, gallery.frame_features, strict=True), strict=True))


def evaluate_benchmark(table, films, text_features, *, poolings=("mean_unit", "query_scored"), seed=0,
                       **options):
    """A benchmark's table: retrieval where its sentences tell of whole videos, moments where of intervals.

    Parameters
    ----------
    table : DataFrame of sources.video_benchmarks: benchmark, video_id, sentence, start, end; with `movie`
        (Condensed Movies) also the within-movie protocol
    films : dict video_id -> (timestamps (f,), frame features (f, d))
    text_features : array (q, d), a row per row of `table`
    poolings : of film_scores.POOLINGS, for retrieval;  seed : int, of the bootstrap
    **options : of scene_windows.find_windows, for moments

    Returns
    -------
    found : DataFrame with benchmark, protocol, method, metric, value, low, high, n. Its ``attrs`` hold
        "videos" (in the table), "missing" (ids without a film; their rows are left out: a smaller gallery
        is easier, so a number from it stands beside no published one).

    Raises
    ------
    ValueError : not one text per row, or none of the videos is there.
    """
    if len(text_features) != len(table):
        raise ValueError(f"Expected a text feature for each of {len(table)} rows, got {len(text_features)}.")
    names = list(dict.fromkeys(table["video_id"]))
    here = [name for name in names if name in films]
    if not here:
        raise ValueError(f"Expected films of the {len(names)} videos of {table['benchmark'].iloc[0]}, got "
                         f"none: {names[0]!r} for one is missing among {len(films)} films.")
    rows = np.flatnonzero(table["video_id"].isin(here))
    part, queries = table.iloc[rows], np.asarray(text_features)[rows]
    if part["start"].notna().any():
        found = _moments(part, films, queries, seed, options)
    else:
        found = _retrieval(part, films, here, queries, poolings, seed)
    found.insert(0, "benchmark", table["benchmark"].iloc[0])
    found.attrs = {"videos": len(names), "missing": [name for name in names if name not in films]}
    return found


def _retrieval(table, films, names, queries, poolings, seed):
    frames, row = [films[name][1] for name in names], {name: place for place, name in enumerate(names)}
    truth = np.array([row[name] for name in table["video_id"]])
    movies = names
    if "movie" in table:
        movies = list(table.drop_duplicates("video_id").set_index("video_id").loc[names, "movie"])
    rows = []
    for how in poolings:
        similarities = score_films(queries, frames, how)  # (q, videos)
        ways = {"text to video": placed_rows(place(similarities, truth, movies), movies, seed=seed)}
        if len(truth) == len(names):  # one sentence a video: also the other way round
            turned = place(similarities[np.argsort(truth)].T, np.arange(len(names)), movies)
            ways["video to text"] = placed_rows(turned, movies, seed=seed)
        if "movie" in table:
            ways["text to video, within a movie"] = film_protocols.within_movies(similarities, truth, movies,
                                                                                 seed=seed)
        rows += [{"protocol": way, "method": f"CLIP, {how}", **line} for way, lines in ways.items()
                 for line in lines if "movie" in table or line["metric"] != "right movie at 1"]
    return pd.DataFrame(rows)


def _moments(table, films, queries, seed, options):
    moments = []
    for name, part in table.reset_index(drop=True).groupby("video_id", sort=False):
        windows = part[["start", "end"]].to_numpy(dtype=float)
        moments.append(Moments(*films[name], queries[part.index], windows, name))
    found = moment_table(moments, query="sentence", seed=seed, **options)
    return found.rename(columns={"query": "protocol"})


def published_values(path=ROOT / "data" / "published_video_values.csv"):
    """Published values of video retrieval and moment search: DataFrame with PUBLISHED_COLUMNS, value float.

    `mark` says how far a value was checked: R, read in the named source or its code; S, in a secondary one.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in PUBLISHED_COLUMNS if name not in table]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing. "
                         f"Expected {', '.join(PUBLISHED_COLUMNS)}.")
    return table[list(PUBLISHED_COLUMNS)].assign(value=table["value"].astype(float))
