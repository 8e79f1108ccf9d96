"""Picture queries without labels: frames of the films themselves, held out, and made harder step by step.

A frame in the gallery finds itself, which proves little. Held out, a film must be known by its other frames;
cropped, blurred, or with its whole shot held out, by less and less of them.
"""

import numpy as np

from impart_utils.evidence.film_variants import FilmQueries
from impart_utils.scene_windows import shots as find_shots
from impart_utils.video import sample_frames

SKIP = 2.0  # seconds left out on either side of a held-out frame


def draw_frames(timestamps, *, per_film=1, seed=0):
    """Query frames, as many from each film: (films (q,), rows (q,)), the rows of a film's frames rising."""
    rng = np.random.default_rng(seed)
    films, rows = [], []
    for film, times in enumerate(timestamps):
        drawn = np.sort(rng.choice(len(times), size=min(per_film, len(times)), replace=False))
        films += [film] * len(drawn)
        rows += drawn.tolist()
    return np.array(films, dtype=np.int64), np.array(rows, dtype=np.int64)


def kept_frames(timestamps, films, rows, *, skip=SKIP, shots=None):
    """Which frames of its own film each held-out query may be found by.

    Parameters
    ----------
    timestamps : list of arrays (f,);  films, rows : int arrays (q,) of `draw_frames`
    skip : float, seconds on either side that are left out with the frame
    shots : list of arrays (s, 2), each film's shots, or None: also leave out the whole shot of the frame, so
        that only other shots can tell the film

    Returns
    -------
    kept : list of q index arrays; empty where the film is too short to have anything left
    """
    kept = []
    for film, row in zip(films, rows, strict=True):
        times, at = np.asarray(timestamps[film]), timestamps[film][row]
        far = np.abs(times - at) > skip + 1e-9
        if shots is not None:
            start, end = next(shot for shot in shots[film] if shot[0] <= at < shot[1])
            far &= (times < start) | (times >= end)
        kept.append(np.flatnonzero(far))
    return kept


def frame_queries(timestamps, frame_features, films, rows, *, skip=SKIP):
    """The queries that need no picture but the frames' own features, easy to hard.

    Parameters
    ----------
    timestamps, frame_features : lists of arrays;  films, rows : of `draw_frames`

    Returns
    -------
    queries : list of FilmQueries: "frame of the film" (in the gallery), "held-out frame", "held-out shot". A
        query whose film has nothing left is left out of its kind, a kind without queries of the list.
    """
    features = np.stack([frame_features[film][row] for film, row in zip(films, rows, strict=True)])
    found = [find_shots(times, frames) for times, frames in zip(timestamps, frame_features, strict=True)]
    held = {"held-out frame": kept_frames(timestamps, films, rows, skip=skip),
            "held-out shot": kept_frames(timestamps, films, rows, skip=skip, shots=found)}
    return [FilmQueries("frame of the film", "picture", features, films),
            *_held_out({kind: features for kind in held}, films, held)]


def _held_out(features, films, kept):
    """FilmQueries per kind, from dicts kind -> features (q, d) and kept frames, without those left empty."""
    queries = []
    for kind, frames in kept.items():
        rows = [row for row, left in enumerate(frames) if len(left)]
        if rows:
            queries.append(FilmQueries(kind, "picture", features[kind][rows], films[rows],
                                       [frames[row] for row in rows]))
    return queries


def query_pictures(paths, timestamps, films, rows, *, fps):
    """The query frames as pictures, decoded anew: list of q PIL pictures.

    Parameters
    ----------
    paths : list of each film's file;  fps : float, the rate at which `timestamps` were sampled

    Raises
    ------
    ValueError : a film has no file (a gallery from a pack); queries by its features are in `frame_queries`.
    """
    missing = [int(film) for film in films if paths[film] is None]
    if missing:
        raise ValueError(f"Expected a file for each film, got none for film {missing[0]}: a pack holds no "
                         "pictures. Leave out the queries that need them.")
    wanted, pictures = {}, [None] * len(films)
    for number, (film, row) in enumerate(zip(films, rows, strict=True)):
        wanted.setdefault(int(film), {}).setdefault(int(row), []).append(number)
    for film, numbers in wanted.items():  # each film is decoded once, up to its last query
        frames = sample_frames(paths[film], fps, problems=[])
        for row, (_, picture) in zip(range(max(numbers) + 1), frames, strict=False):
            for number in numbers.get(row, ()):
                pictures[number] = picture
        frames.close()
    return pictures


def cropped(picture, *, share=0.5, seed=0):
    """A random part of a picture: `share` of its area, its own proportions."""
    rng = np.random.default_rng(seed)
    width, height = (max(1, round(side * share**0.5)) for side in picture.size)
    left, top = (int(rng.integers(0, whole - part + 1))
                 for whole, part in zip(picture.size, (width, height), strict=True))
    return picture.crop((left, top, left + width, top + height))


def blurred(picture, *, share=0.03):
    """A picture out of focus: Gaussian blur whose radius is `share` of the shorter side."""
    from PIL import ImageFilter

    return picture.filter(ImageFilter.GaussianBlur(share * min(picture.size)))


def harder_queries(pictures, encode_images, timestamps, films, rows, *, skip=SKIP, seed=0):
    """Held-out frames cropped to half their area, and blurred: list of FilmQueries.

    Parameters
    ----------
    pictures : list of q PIL pictures of `query_pictures`;  encode_images : callable, such as
        ``clip.encode_images``;  films, rows : of `draw_frames`;  seed : int, of the crops
    """
    kept = kept_frames(timestamps, films, rows, skip=skip)
    changed = {"held-out frame, cropped": [cropped(picture, seed=[seed, number])
                                           for number, picture in enumerate(pictures)],
               "held-out frame, blurred": [blurred(picture) for picture in pictures]}
    features = {kind: encode_images(some) for kind, some in changed.items()}
    return _held_out(features, films, dict.fromkeys(changed, kept))
