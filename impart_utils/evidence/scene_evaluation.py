"""How well moments are found in films (when?) and characters in scenes (who?), beside what guessing gives."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from impart_utils.evidence import metrics
from impart_utils.evidence.cluster_bootstrap import draw_counts, mean_row
from impart_utils.evidence.film_protocols import expected_precision
from impart_utils.film_scores import score_films
from impart_utils.scene_windows import FLOORS, film_end, find_windows, floor_windows

IOUS = (0.3, 0.5, 0.7)
RANDOM_DRAWS = 100  # windows per query, averaged: the floor's own luck is no result


@dataclass(frozen=True)
class Moments:
    """Queries about moments of one film or reel.

    Attributes
    ----------
    timestamps : array (f,), seconds;  frame_features : array (f, d);  features : array (q, d), the queries'
    windows : array (q, 2), where each query is right, in seconds
    group : str, what the bootstrap draws as a whole, such as the movie
    """

    timestamps: np.ndarray
    frame_features: np.ndarray
    features: np.ndarray
    windows: np.ndarray
    group: str


def moment_table(moments, *, query, floors=FLOORS, share=None, seed=0, **options):
    """R1@IoU 0.3, 0.5, 0.7 and mIoU of the best window, and of windows that know nothing.

    Parameters
    ----------
    moments : list of `Moments`;  query : str, what tables call them
    floors : of scene_windows.FLOORS
    share : float, length of the center window; None: the mean share of the true windows, which favors it
    seed : int, of random windows and the bootstrap;  **options : of `scene_windows.find_windows`

    Returns
    -------
    table : DataFrame with query, method ("CLIP, window by shots" and the floors), metric, value, low, high, n
    """
    ends = [film_end(some.timestamps) for some in moments]
    groups = [some.group for some in moments for _ in some.windows]
    counts = draw_counts(groups, seed=seed)
    found = [find_windows(some.features, some.timestamps, some.frame_features, **options) for some in moments]
    overlap = {"CLIP, window by shots": np.concatenate([
        metrics.temporal_iou(np.stack([one.windows[0] for one in films]), some.windows)[:, None]
        for films, some in zip(found, moments, strict=True)])}  # (q, 1)
    if share is None:
        share = np.mean([length for some, end in zip(moments, ends, strict=True)
                         for length in np.diff(some.windows, axis=1)[:, 0] / end])
    rng = np.random.default_rng(seed)
    for floor in floors:
        draws = RANDOM_DRAWS if floor == "random" else 1
        overlap[floor] = np.concatenate([
            metrics.temporal_iou(floor_windows(floor, end, draws, share=share, rng=rng)[None],
                                 some.windows[:, None]) for some, end in zip(moments, ends, strict=True)])
    return pd.DataFrame([{"query": query, "method": method, **row} for method, values in overlap.items()
                         for row in moment_rows(values, counts)])


def moment_rows(overlaps, counts):
    """R1@IoU and mIoU from overlaps (q, draws), averaged over draws, and `draw_counts`' (resamples, q)."""
    values = {f"R1@IoU {iou}": (overlaps >= iou).mean(axis=1) for iou in IOUS}
    values["mIoU"] = overlaps.mean(axis=1)
    return [mean_row(name, column, counts) for name, column in values.items()]


# ---- Characters ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenes:
    """Scenes with who is in them.

    Attributes
    ----------
    features : list of arrays (f, d), each scene's frames
    present : bool array (c, s), character c is in scene s
    films : int array (s,);  movies : list of s str;  characters : list of c str
    """

    features: list
    present: np.ndarray
    films: np.ndarray
    movies: list
    characters: list


def scenes_of(timestamps, frame_features, films, characters):
    """`Scenes` cut from films whose truth is known, such as the toy world's.

    Parameters
    ----------
    timestamps, frame_features : lists of arrays;  films : list of toy_world.films.Film, in the same order
    characters : list of str
    """
    features, present, owner, movies = [], [], [], []
    for number, film in enumerate(films):
        for scene in film.scenes:
            inside = (timestamps[number] >= scene.start) & (timestamps[number] < scene.end)
            if not inside.any():
                continue
            features.append(frame_features[number][inside])
            present.append([who in scene.characters for who in characters])
            owner.append(number)
            movies.append(film.movie)
    return Scenes(features, np.array(present).T, np.array(owner), movies, list(characters))


def clips_as_scenes(frame_features, movies, descriptions, names, *, least=6):
    """`Scenes` without truth: whole clips, and who their descriptions name. A weak label.

    A clip may show a character it doesn't name, and most of its frames may show others.

    Parameters
    ----------
    frame_features : list of arrays (f, d);  movies, descriptions : lists of str, one per clip
    names : list of str, such as of sources.cast_names;  least : int, names in fewer clips are left out
    """
    named = {name: [re.search(rf"\b{re.escape(name)}\b", text) is not None for text in descriptions]
             for name in names}
    kept = [name for name, clips in named.items() if sum(clips) >= least]
    if not kept:
        raise ValueError(f"Expected a name in at least {least} descriptions, got none of {len(names)}. Lower "
                         "least or give other names.")
    return Scenes(list(frame_features), np.array([named[name] for name in kept]),
                  np.arange(len(frame_features)), list(movies), kept)


def example_frames(scenes, character, k, rng):
    """k frames that show a character, from k different films: (features (k, d), films (k,)).

    Raises
    ------
    ValueError : the character is in fewer films, or in no other one that could be found.
    """
    own = np.flatnonzero(scenes.present[character])
    films = rng.permutation(np.unique(scenes.films[own]))
    if len(films) <= k:
        raise ValueError(f"Expected {scenes.characters[character]!r} in more than k={k} films, got "
                         f"{len(films)}. Lower k.")
    frames = []
    for film in films[:k]:
        scene = scenes.features[rng.choice(own[scenes.films[own] == film])]
        frames.append(scene[rng.integers(len(scene))])
    return np.stack(frames), films[:k]


def character_table(scenes, text_features, *, k=4, draws=5, how="mean_unit", within=False, seed=0):
    """Average precision per character: named in a text, shown in one picture, shown in `k`.

    All search the same scenes: those of films that gave no picture in the draw. k pictures are one query,
    the mean of their unit vectors.

    Parameters
    ----------
    scenes : `Scenes`;  text_features : dict kind of text -> array (c, d), for example {"name in a text": …}
    k : int, pictures;  draws : int, how often pictures are drawn; AP is averaged
    how : of film_scores.POOLINGS, a scene's frames to its score
    within : bool, search only the movies that the character is in: else a movie's look, which its scenes
        share, is half the answer

    Returns
    -------
    table : DataFrame with query, character ("all" for the mean, mAP), metric ("AP", "mAP"), value, low, high
        (mAP: bootstrap over characters), prevalence (share of scenes with the character), chance (expected AP
        of a random order), n (scenes searched, mean)
    """
    found = {kind: np.empty((draws, len(scenes.characters))) for kind in
             (*text_features, "one picture", f"{k} pictures")}
    level = np.empty((draws, len(scenes.characters), 3))  # prevalence, chance, n
    for draw in range(draws):
        for character in range(len(scenes.characters)):
            rng = np.random.default_rng([seed, draw, character])
            frames, films = example_frames(scenes, character, k, rng)
            unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
            queries = {**{kind: features[character] for kind, features in text_features.items()},
                       "one picture": unit[0], f"{k} pictures": unit.mean(axis=0)}
            searched = np.flatnonzero(_searched(scenes, character, films, within))
            right = scenes.present[character, searched]
            scores = score_films(np.stack(list(queries.values())), [scenes.features[row] for row in searched],
                                 how)
            for kind, line in zip(queries, scores, strict=True):
                found[kind][draw, character] = metrics.average_precision(line, right)
            level[draw, character] = right.mean(), expected_precision(right.sum(), len(right)), len(right)
    return _character_rows(scenes.characters, found, level.mean(axis=0), seed)


def _searched(scenes, character, without, within):
    mask = ~np.isin(scenes.films, without)
    if within:
        movies = np.asarray(scenes.movies)
        mask &= np.isin(movies, movies[scenes.present[character]])
    return mask


def _character_rows(characters, found, level, seed):
    rows = []
    for kind, values in found.items():
        each = values.mean(axis=0)  # (draws, c) -> (c,)
        for name, value, line in zip(characters, each, level, strict=True):
            rows.append({"query": kind, "character": name, "metric": "AP", "value": float(value),
                         "prevalence": line[0], "chance": line[1], "n": line[2]})
        mean = mean_row("mAP", each, draw_counts(np.arange(len(each)), seed=seed))
        rows.append({"query": kind, "character": "all", **mean, "prevalence": level[:, 0].mean(),
                     "chance": level[:, 1].mean(), "n": level[:, 2].mean()})
    columns = ["query", "character", "metric", "value", "low", "high", "prevalence", "chance", "n"]
    return pd.DataFrame(rows, columns=columns)
