"""Endings that clips share, such as a channel's advertisement: found, cut off, and never cut unsaid.

A common ending makes all films more alike in their mean. Works on features of sampled frames; the films'
files stay as they are.
"""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np

from impart_utils.scene_windows import film_end, frame_seconds

TRIMS = ("none", "known", "detect")


def find_ends(timestamps, frame_features, movies, *, least=0.97, films=3, gap=1.0, longest=30.0):
    """Where each film's own pictures end and an ending begins that films of other movies have, too.

    Seen from the end, frames at the same distance are compared. One is shared if it is nearly the same
    (cosine `least` or more) in at least `films` films of other movies; the shared ending reaches back from
    the end as long as shared frames follow each other. Clips of one movie aren't witnesses for each other:
    they may just go on. Every film is compared with every other: fine for hundreds.

    Parameters
    ----------
    timestamps, frame_features : lists of arrays (f,) and (f, d), one per film
    movies : list of str
    least : float. Black frames reach it, too: a fade to black that many clips end with is cut.
    films : int, at least 1, how many others must agree
    gap : float, seconds without a shared frame that the ending may have inside (a cut sampled differently)
    longest : float, seconds; no more is ever cut, nor more than half of a film

    Returns
    -------
    ends : float array (n,), seconds; the film's full length where nothing is shared
    """
    if films < 1 or not len(timestamps) == len(frame_features) == len(movies):
        raise ValueError(f"Expected films >= 1 and one movie for each film, got films={films}, "
                         f"{len(frame_features)} films and {len(movies)} movies.")
    ends = np.array([film_end(times) for times in timestamps])
    step = min(frame_seconds(times) for times in timestamps)
    tails = [_tail(times, frames, end, step, longest)
             for times, frames, end in zip(timestamps, frame_features, ends, strict=True)]
    witnesses = [np.zeros(len(tail), dtype=int) for tail in tails]
    for a, b in combinations(range(len(tails)), 2):
        if movies[a] != movies[b]:
            alike = tails[a] @ tails[b].T >= least  # (t, u)
            witnesses[a] += _beside(alike)
            witnesses[b] += _beside(alike.T)
    halves = (ends / 2 / step + 1e-6).astype(int)
    return ends - step * np.array([_reach(seen[:half] >= films, gap / step)
                                   for seen, half in zip(witnesses, halves, strict=True)])


def _tail(times, frames, end, step, longest):
    """The frames at end - step, end - 2 step, …, at most `longest` seconds: unit vectors (t, d)."""
    count = int(min(longest, end) / step + 1e-6)
    moments = end - step * np.arange(1, count + 1)
    tail = frames[np.maximum(np.searchsorted(times, moments + 1e-6, side="right") - 1, 0)]
    return tail / np.linalg.norm(tail, axis=1, keepdims=True)


def _beside(alike):
    """Which rows of (t, u) hold True on the diagonal or one step beside: sampling falls differently."""
    found = np.zeros(len(alike), dtype=bool)
    for shift in (-1, 0, 1):
        line = np.diagonal(alike, offset=shift)
        start = max(0, -shift)
        found[start:start + len(line)] |= line
    return found


def _reach(shared, gap):
    """How many frames the ending has: up to the last shared one with no more than `gap` others before it."""
    reach = 0
    for place in np.flatnonzero(shared):  # distances from the end, in frames
        if place - reach > gap:
            break
        reach = int(place) + 1
    return reach


def cut(timestamps, frame_features, end):
    """A film's frames before `end` seconds: (timestamps, frame features). Never none: the first stays."""
    kept = max(1, int(np.searchsorted(timestamps, end - 1e-6)))
    return timestamps[:kept], frame_features[:kept]


def trim_gallery(gallery, how, *, durations=None, **options):
    """A gallery without its films' endings, whose name says how they were found.

    Parameters
    ----------
    gallery : gallery.Gallery
    how : "none": as it is. "known": cut at `durations`; films that lack one stay whole, and the name counts
        them. "detect": cut where `find_ends` (which gets ``options``) finds a shared ending.
    durations : dict, id of a clip -> seconds, from `sources.condensed_movies.durations`; a film's id is its
        file's name without the ending

    Returns
    -------
    gallery : Gallery, its name with "trim=…" unless "none"
    cuts : list of dict, one per film: id, movie, seconds, end (where it was cut), trim ("none", "known",
        "detect": what this film's end comes from)

    Raises
    ------
    ValueError : unknown `how`; "known" with no duration for any film.
    """
    if how not in TRIMS:
        raise ValueError(f"Unknown trim {how!r}. Known: {', '.join(TRIMS)}.")
    full = np.array([film_end(times) for times in gallery.timestamps])
    ends, by = full, ["none"] * len(full)
    if how == "known":
        names = [_stem(name) for name in gallery.ids]
        ends = np.array([(durations or {}).get(name, math.inf) for name in names])
        by = ["known" if math.isfinite(end) else "none" for end in ends]
        if "known" not in by:
            raise ValueError(f"Expected durations of the films, got none for {names[0]!r} and the other "
                             f"{len(names) - 1}. Give Condensed Movies' durations.csv or use trim='detect'.")
        ends = np.minimum(ends, full)
    elif how == "detect":
        ends = find_ends(gallery.timestamps, gallery.frame_features, gallery.movies, **options)
        by = ["detect" if end < whole else "none" for end, whole in zip(ends, full, strict=True)]
    cuts = [{"id": name, "movie": movie, "seconds": float(whole), "end": float(end), "trim": source}
            for name, movie, whole, end, source
            in zip(gallery.ids, gallery.movies, full, ends, by, strict=True)]
    if how == "none":
        return gallery, cuts
    kept = [cut(times, frames, end) for times, frames, end
            in zip(gallery.timestamps, gallery.frame_features, ends, strict=True)]
    count = sum(source == how for source in by)
    return replace(gallery, name=f"{gallery.name}, trim={how} ({count} of {len(by)} films)",
                   timestamps=[times for times, _ in kept],
                   frame_features=[frames for _, frames in kept]), cuts


def _stem(name):
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def append_ending(timestamps, frame_features, ending_features):
    """Every film with the same ending behind it, as clips of one channel have: to see what it does.

    Parameters
    ----------
    timestamps, frame_features : lists of arrays (f,) and (f, d)
    ending_features : array (e, d), frames at the films' own rate

    Returns
    -------
    timestamps, frame_features : lists, e frames longer each
    """
    steps = np.arange(len(ending_features))
    longer = [np.concatenate([times, film_end(times) + frame_seconds(times) * steps]) for times in timestamps]
    return longer, [np.concatenate([frames, ending_features]) for frames in frame_features]
