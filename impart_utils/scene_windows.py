"""When in a film? From a query to a curve over time, shots, and the windows that stand out.

All functions take features and times; none runs a model. A window is (start, end) in seconds.
"""

from dataclasses import dataclass

import numpy as np

from impart_utils.film_scores import cosines

FLOORS = ("random", "whole", "center")


def similarity_curves(query_features, frame_features):
    """Cosine of each query with each frame: (q, d), (f, d) -> float32 (q, f)."""
    return cosines(query_features, frame_features, "frame_features")


def smooth(curves, timestamps, *, seconds=0.5):
    """Curves (q, f) smoothed over time by a Gaussian whose standard deviation is `seconds`; 0 leaves them.

    Frames are taken to be evenly spaced, as `video.sample_frames` gives them.
    """
    from scipy.ndimage import gaussian_filter1d

    curves = np.asarray(curves, dtype=np.float32)
    if not seconds or curves.shape[1] < 2:
        return curves
    return gaussian_filter1d(curves, seconds / frame_seconds(timestamps), axis=1, mode="nearest")


def frame_seconds(timestamps):
    """How long a sampled frame stands for: the median step; 1 s where there is one frame only."""
    steps = np.diff(timestamps)
    return float(np.median(steps)) if len(steps) else 1.0


def shot_boundaries(timestamps, frame_features, *, spread=8.0, least=0.05):
    r"""Where the picture changes at once: times of cuts, in seconds.

    Between frames i-1 and i lies a cut where :math:`\delta_i = 1 - \cos(f_{i-1}, f_i)` exceeds what is
    usual in this film, its median + `spread` median absolute deviations, and `least`. The two numbers were
    set on the toy films of seed 1, which no table shows. A cut's time is known only to one sampling step;
    the middle of the step is given.

    Returns
    -------
    boundaries : float array (b,), rising, without the film's beginning and end
    """
    times = np.asarray(timestamps, dtype=np.float64)
    if len(times) < 2:
        return np.empty(0)
    unit = frame_features / np.linalg.norm(frame_features, axis=1, keepdims=True)
    change = 1 - (unit[1:] * unit[:-1]).sum(axis=1)  # (f - 1,)
    usual = np.median(change)
    deviation = np.median(np.abs(change - usual))
    cut = change > max(least, usual + spread * deviation)
    return (times[1:] + times[:-1])[cut] / 2


def shots(timestamps, frame_features, **options):
    """The shots between `shot_boundaries`: array (s, 2) that covers the film from 0 to its end."""
    edges = [0.0, *shot_boundaries(timestamps, frame_features, **options), film_end(timestamps)]
    return np.stack([edges[:-1], edges[1:]], axis=1)


def film_end(timestamps):
    """A film's end in seconds: the last sampled frame stands for one step."""
    return float(timestamps[-1]) + frame_seconds(timestamps)


def propose(shots, *, most=8):
    """All runs of one to `most` shots in a row, as windows (w, 2).

    Boundaries found in the pictures make better windows than a grid: the right one is then among few.
    """
    shots = np.asarray(shots, dtype=np.float64)
    pairs = [(first, last) for first in range(len(shots))
             for last in range(first, min(first + most, len(shots)))]
    first, last = np.array(pairs).T
    return np.stack([shots[first, 0], shots[last, 1]], axis=1)


def score_windows(curves, timestamps, windows, *, extent=0.0):
    r"""How much windows stand out: mean of the curve inside minus mean outside.

    .. math:: s = (\bar c_{in} - \bar c_{out}) \, (p (1 - p))^{extent}, \quad p = n_{in} / n

    Parameters
    ----------
    curves : array (q, f);  timestamps : (f,);  windows : array (w, 2); frame i is inside where
        start <= t_i < end
    extent : float
        0: the plain difference, which the shortest window around the peak wins: for a query about one
        shot. 0.5: the standard deviation that the division into inside and outside explains (Otsu's
        criterion), which long windows can win: for a query about several shots.

    Returns
    -------
    scores : float64 array (q, w). 0 for a window without a frame inside or without one outside: the whole
        film stands out from nothing.
    """
    curves, windows = np.asarray(curves, dtype=np.float64), np.asarray(windows, dtype=np.float64)
    total = np.concatenate([np.zeros((len(curves), 1)), np.cumsum(curves, axis=1)], axis=1)  # (q, f + 1)
    first, last = (np.searchsorted(timestamps, windows[:, side] - 1e-9) for side in (0, 1))  # (w,)
    inside, outside = last - first, curves.shape[1] - (last - first)
    within = total[:, last] - total[:, first]  # (q, w)
    scores = within / np.maximum(inside, 1) - (total[:, -1:] - within) / np.maximum(outside, 1)
    scores = scores * (inside * outside / curves.shape[1] ** 2) ** extent
    return np.where((inside > 0) & (outside > 0), scores, 0.0)


def suppress(windows, scores, *, iou=0.5, keep=5):
    """Non-maximum suppression: the best windows of which no two overlap much.

    Parameters
    ----------
    windows : array (w, 2);  scores : array (w,)
    iou : float, a window that overlaps a better one by more is dropped;  keep : int, how many at most

    Returns
    -------
    rows : int array, best first; of equal scores the earlier row
    """
    order, rows = np.argsort(-np.asarray(scores), kind="stable"), []
    while len(order) and len(rows) < keep:
        best, order = order[0], order[1:]
        rows.append(int(best))
        order = order[overlaps(windows[best], windows[order]) <= iou]
    return np.array(rows, dtype=np.int64)


def overlaps(window, windows):
    """Temporal IoU of one window with each of others: (2,), (w, 2) -> (w,)."""
    inside = np.minimum(window[1], windows[:, 1]) - np.maximum(window[0], windows[:, 0])
    inside = np.maximum(inside, 0.0)
    return inside / (window[1] - window[0] + windows[:, 1] - windows[:, 0] - inside)


@dataclass(frozen=True)
class Found:
    """What `find_windows` found for a query: windows (w, 2) with scores (w,), best first; the curve (f,)."""

    windows: np.ndarray
    scores: np.ndarray
    curve: np.ndarray


def find_windows(query_features, timestamps, frame_features, *, seconds=0.5, most=8, extent=0.0, iou=0.5,
                 keep=5, cuts=None):
    """The windows of a film that fit each query best: curve, smoothing, shots, scores, suppression.

    Parameters
    ----------
    query_features : array (q, d);  timestamps : (f,);  frame_features : (f, d)
    seconds : of `smooth`;  most : of `propose`;  extent : of `score_windows`;  iou, keep : of `suppress`
    cuts : array (s, 2) or None, the film's shots where they are known; None finds them

    Returns
    -------
    found : list of q `Found`
    """
    curves = smooth(similarity_curves(query_features, frame_features), timestamps, seconds=seconds)  # (q, f)
    windows = propose(shots(timestamps, frame_features) if cuts is None else cuts, most=most)
    scores = score_windows(curves, timestamps, windows, extent=extent)  # (q, w)
    rows = [suppress(windows, line, iou=iou, keep=keep) for line in scores]
    return [Found(windows[kept], line[kept], curve)
            for kept, line, curve in zip(rows, scores, curves, strict=True)]


def floor_windows(how, end, count, *, share=0.5, rng=None):
    """Windows that know nothing of the query, for comparison.

    Parameters
    ----------
    how : "random": two random moments are start and end; "whole": the film; "center": a window of the
        length `share` of the film in its middle
    end : float, the film's length in seconds;  count : int, how many windows;  rng : of "random"

    Returns
    -------
    windows : array (count, 2)
    """
    if how not in FLOORS:
        raise ValueError(f"Unknown floor {how!r}. Known: {', '.join(FLOORS)}.")
    if how == "random":
        return np.sort(rng.uniform(0, end, size=(count, 2)), axis=1)
    margin = 0.0 if how == "whole" else end * (1 - share) / 2
    return np.tile([margin, end - margin], (count, 1))


@dataclass(frozen=True)
class Reel:
    """Several films one after the other, made by `splice`: where each begins and ends is known.

    timestamps (f,), frame_features (f, d); films : int array (p,), which film part i is; windows (p, 2)
    """

    timestamps: np.ndarray
    frame_features: np.ndarray
    films: np.ndarray
    windows: np.ndarray


def splice(films, timestamps, frame_features):
    """A longer film with known scenes: feature sequences of several films, one after the other.

    Parameters
    ----------
    films : sequence of int, which films in which order
    timestamps, frame_features : lists of arrays (f,) and (f, d), one per film of the gallery
    """
    if not len(films):
        raise ValueError("Expected at least one film to splice, got none.")
    times, windows, begin = [], [], 0.0
    for film in films:
        times.append(begin + np.asarray(timestamps[film]))
        end = begin + film_end(timestamps[film])
        windows.append((begin, end))
        begin = end
    return Reel(np.concatenate(times), np.concatenate([frame_features[film] for film in films]),
                np.array(films, dtype=np.int64), np.array(windows))


def draw_reels(movies, *, parts=6, seed=0, same_movie=False):
    """Which films go into which reel: every film into one, in a seeded order.

    Parameters
    ----------
    movies : list of str, each film's movie;  parts : int, films in a reel
    same_movie : bool, True: all of a reel from one movie, alike in cast and look, which is harder; False:
        mixed

    Returns
    -------
    reels : list of int arrays, each of two films or more (a film that is left alone is in none)
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(movies))
    groups = [order] if not same_movie else [
        order[[movies[film] == movie for film in order]] for movie in dict.fromkeys(movies)]
    reels = [group[start:start + parts] for group in groups for start in range(0, len(group), parts)]
    return [reel for reel in reels if len(reel) > 1]
