"""Films as features: frames by timestamp, pooling over frames, ranking of films."""

import os
import warnings
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

POOLINGS = ("mean_raw", "mean_unit", "max", "query_scored")
LOST_SECONDS = 1  # a film that ends this long before its declared end is called partial


class PartialFilmWarning(UserWarning):
    """A film's end is missing or damaged; the frames before it were given out."""


def sample_frames(path, fps=4.0, *, protocol="timestamps", problems=None):
    """The pictures of a film at a steady rate, in one pass, whatever its own frame rate is.

    Parameters
    ----------
    path : a film in any container that FFmpeg reads
    fps : float, pictures per second (paper, Sec. 3.3: 4)
    protocol : "timestamps" or "paper_code"
        "timestamps": picture i is the frame on the screen i/fps seconds after the first frame appeared,
        while i/fps lies before the end (sample and hold: each second counts the same in a mean).
        "paper_code": every (int(film's rate) // 4)-th frame, as the paper's code does: 4.17 a second
        of a film of 25 frames per second, 4.8 of one of 23.976. It knows no other fps than 4.
    problems : list or None
        Gets, after the last picture, a line on why the film is partial. None: a PartialFilmWarning
        instead. Partial: damage stopped the decoder (at the first), or the film ends a second or more
        before its declared end. MPEG-TS declares none, so there only damage tells.

    Yields
    ------
    (seconds from the film's start, PIL picture in RGB, turned as the film says). A frame held over
    several samples comes as the same object. Pixel aspect and mirroring stay as stored.

    Raises
    ------
    FileNotFoundError; ValueError : not a film, no video stream, fps <= 0, unknown protocol: at once;
        not one good frame: at the first picture.
    """
    if not 0 < fps < float("inf"):
        raise ValueError(f"Expected fps > 0 frames per second, got fps={fps}.")
    if protocol not in ("timestamps", "paper_code"):
        raise ValueError(f"Unknown protocol {protocol!r}. Known protocols: timestamps, paper_code.")
    if protocol == "paper_code" and fps != 4:
        raise ValueError(f"Expected fps=4 with protocol='paper_code' (step int(rate) // 4), got fps={fps}.")
    container, stream = _open(path)
    if protocol == "paper_code":
        return _every_nth(_on_screen(path, container, stream, problems), _paper_step(path, container, stream))
    # a float such as 0.1 is a trifle off; the fraction that was meant keeps frame boundaries exact
    return _hold(_on_screen(path, container, stream, problems), Fraction(fps).limit_denominator(1_000_000))


def _hold(shown, fps):
    sample = 0
    for frame, _, end in shown:
        picture = None
        while sample / fps < end:
            picture = picture or _picture(frame)
            yield float(sample / fps), picture
            sample += 1


def _every_nth(shown, step):
    for number, (frame, begin, _) in enumerate(shown):
        if number % step == 0:
            yield float(begin), _picture(frame)


def _paper_step(path, container, stream):
    rate = stream.guessed_rate or stream.average_rate or 0  # OpenCV's idea of a film's rate
    if rate < 4:
        container.close()
        raise ValueError(f"{path}: the paper's code takes every (int(rate) // 4)-th frame: every 0th at "
                         f"{float(rate):.3g} frames per second. Use protocol='timestamps'.")
    return int(rate) // 4


def _open(path):
    """The container and its first stream of moving pictures, or an error that names the file."""
    import av

    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no film at {path}.")
    if os.path.isdir(path) or not os.path.getsize(path):
        raise ValueError(f"{path} is {'a folder' if os.path.isdir(path) else 'empty'}, not a film.")
    try:  # an absolute path, or FFmpeg takes "Title: Part 2.mp4" for a protocol
        container = av.open(os.path.abspath(path), metadata_errors="ignore")
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a film, or its index is lost (a download cut short, a web page "
                         f"saved as a film?): {error.strerror}. Get the file again.") from error
    name, cover = container.format.name, av.stream.Disposition.attached_pic  # a song's cover is a stream, too
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams or name == "tty" or name.endswith("_pipe"):  # FFmpeg "plays" text files and photos
        container.close()
        what = f"FFmpeg takes it for {name!r}" if streams else "no video stream (sound alone? a cut index?)"
        raise ValueError(f"{path} is not a film: {what}. Leave it out of the gallery.")
    return container, streams[0]


def _on_screen(path, container, stream, problems):
    """(frame, begin, end) for each good frame in order: exact seconds after the first frame appeared."""
    found, held, start, time, gap = [], None, None, None, None
    with container:
        for frame in _decode(container, stream, found):
            previous, time = time, _time(frame, time, stream)
            if held is None:
                start = time
            else:
                gap = time - previous
                yield held, previous - start, time - start
            held = frame
        if held is None:
            reason = "; ".join(found) or "it holds none"
            raise ValueError(f"{path}: not one frame could be decoded ({reason}). Get the file again.")
        seconds = held.duration * stream.time_base if held.duration else gap or _frame_seconds(stream)
        end, declared = time + seconds, _declared_end(container, stream)
        yield held, time - start, end - start
    if not found and declared and end <= declared - LOST_SECONDS:
        found.append(f"declared to last {float(declared - start):.2f} s")
    if found:
        text = f"{path} is partial: {'; '.join(found)}. Its first {float(end - start):.2f} s were kept."
        if problems is None:
            warnings.warn(text, PartialFilmWarning, stacklevel=3)
        else:
            problems.append(text)


def _decode(container, stream, found):
    """Frames in order until the end or the first damage, which is noted in `found`."""
    import av

    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:  # decoding half a packet gives half a picture
                found.append("a cut or damaged packet")
                break
            yield from (frame for frame in packet.decode() if not frame.is_corrupt)
        else:
            return
    except av.FFmpegError as error:
        found.append(error.strerror)
    try:  # the decoder still holds good frames that wait for their order
        yield from (frame for frame in stream.codec_context.decode(None) if not frame.is_corrupt)
    except av.FFmpegError as error:
        found.append(error.strerror)


def _time(frame, previous, stream):
    """When the frame appears, on the stream's clock; AVI and raw streams may store no or wrong times."""
    time = None if frame.pts is None else frame.pts * stream.time_base
    if previous is not None and (time is None or time <= previous):
        return previous + _frame_seconds(stream)
    return Fraction(0) if time is None else time


def _frame_seconds(stream):
    rate = stream.guessed_rate or stream.average_rate
    return 1 / rate if rate else Fraction(1, 25)


def _declared_end(container, stream):
    """Where the film should end, on the stream's clock; None where the container doesn't say it."""
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    tag = next((value for key, value in stream.metadata.items() if key.startswith("DURATION")), None)
    if tag:  # Matroska, per stream: "00:02:11.500000000"
        hours, minutes, seconds = tag.split(":")
        return Fraction(hours) * 3600 + Fraction(minutes) * 60 + Fraction(seconds)
    alone = container.duration and len(container.streams) == 1  # else it may be the sound that lasts longer
    return Fraction(container.duration, 1_000_000) if alone else None


def _picture(frame):
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image  # both counter-clockwise


@dataclass(frozen=True)
class FilmFeatures:
    """A film's frames: timestamps float64 (f,) in seconds, frame_features float32 (f, d), raw.

    `partial` says why the film's end is missing; it is "" for a whole film.
    """

    timestamps: np.ndarray
    frame_features: np.ndarray
    partial: str


def encode_film(encode_images, path, *, fps=4.0, batch_size=32, protocol="timestamps"):
    """A film's `FilmFeatures`, in batches: pictures in memory don't grow with the film's length.

    Parameters
    ----------
    encode_images : callable, list of b PIL pictures -> array (b, d), for example ``clip.encode_images``
    path, fps, protocol : see `sample_frames`, also for the errors
    """
    timestamps, features, batch, problems = [], [], [], []
    for seconds, picture in sample_frames(path, fps, protocol=protocol, problems=problems):
        timestamps.append(seconds)
        batch.append(picture)
        if len(batch) == batch_size:
            features.append(encode_images(batch))
            batch = []
    if batch:
        features.append(encode_images(batch))
    frame_features = np.concatenate(features).astype(np.float32)  # list of (b, d) -> (f, d)
    return FilmFeatures(np.array(timestamps), frame_features, "; ".join(problems))


def pool(frame_features, how="mean_raw"):
    """One vector for a film: float32 (d,), not normalized, from its frame_features (f, d).

    `how` is "mean_raw", the mean of the vectors as they are (the paper's code; long vectors count
    more), or "mean_unit", the mean of their directions. The other POOLINGS need a query: `score_films`.
    """
    if how not in ("mean_raw", "mean_unit"):
        raise ValueError(f"Unknown pooling {how!r}. Known: mean_raw, mean_unit; with a query in score_films "
                         f"also {', '.join(POOLINGS[2:])}.")
    frames = (_unit if how == "mean_unit" else _matrix)(frame_features, "frame_features")  # (f, d)
    return frames.mean(axis=0).astype(np.float32)


def score_films(query_features, films, how="mean_raw", *, tau=0.1):
    r"""Similarity of each query with each film, whose frames are pooled in one of four ways.

    "mean_raw" and "mean_unit" as in `pool`; "max", the cosine with the best frame; "query_scored"
    (Bain et al. 2022): a mean of the unit frames f weighted by how well each fits the query t,

    .. math:: a_j = \mathrm{softmax}_j(\cos(t, f_j) / \tau), \quad s = \cos(t, \sum_j a_j f_j),

    which tends to "max" for small :math:`\tau` and to "mean_unit" for large.

    Parameters
    ----------
    query_features : array (q, d), texts or pictures;  films : list of arrays (f, d), one per film

    Returns
    -------
    similarities : float32 array (q, number of films); `best_first` orders them
    """
    if how not in POOLINGS:
        raise ValueError(f"Unknown pooling {how!r}. Known: {', '.join(POOLINGS)}.")
    if not len(films) or not tau > 0:
        raise ValueError(f"Expected at least one film and tau > 0, got {len(films)} films and tau={tau}.")
    if how in ("mean_raw", "mean_unit"):
        return _cosines(query_features, np.stack([pool(frames, how) for frames in films]))
    queries, columns = _unit(query_features, "query_features"), []
    for frames in films:
        similarities = _cosines(queries, frames, "frame_features")  # (q, f)
        if how == "max":
            columns.append(similarities.max(axis=1))
            continue
        weights = np.exp((similarities - similarities.max(axis=1, keepdims=True)) / tau)  # the largest is 1
        pooled = weights @ _unit(frames, "frame_features")  # (q, f) @ (f, d) -> (q, d)
        columns.append((queries * _unit(pooled, "pooled frames")).sum(axis=1))
    return np.stack(columns, axis=1).astype(np.float32)


def rank_films(query_features, film_features):
    """All films for each query, best first, by cosine whatever the norms.

    Parameters
    ----------
    query_features : array (q, d);  film_features : array (f, d), one row per film

    Returns
    -------
    similarities : float32 array (q, f), in the order of film_features
    order : int array (q, f), rows of film_features from best to worst; equal ones by row

    Raises
    ------
    ValueError : different dimensions, an empty array, a row that is zero, NaN or infinite.
    """
    similarities = _cosines(query_features, film_features)
    return similarities, best_first(similarities)


def best_first(similarities):
    """Indices (q, f) of the columns from the highest to the lowest similarity; equal ones by index."""
    similarities = np.asarray(similarities)
    if np.isnan(similarities).any():
        raise ValueError("Expected similarities without NaN: what is not a number has no rank.")
    return np.argsort(-similarities, axis=1, kind="stable")


def _cosines(query_features, features, name="film_features"):
    """float32 (q, f). Worked in float64, so that equal films get equal numbers and ties stay ties."""
    queries, films = _unit(query_features, "query_features"), _unit(features, name)
    if queries.shape[1] != films.shape[1]:
        raise ValueError(f"Expected query_features and {name} of one dimension, got {queries.shape} and "
                         f"{films.shape}. Encode both with the same model.")
    return (queries @ films.T).astype(np.float32)  # (q, d) @ (d, f) -> (q, f)


def _matrix(features, name):
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"Expected {name} of shape (rows, d) with at least one row, got {features.shape}.")
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1) | ~features.any(axis=1))
    if len(bad):
        raise ValueError(f"Row {bad[0]} of {name} is zero or not finite (NaN or infinity): it "
                         "has no direction. Encode that item again or leave it out.")
    return features


def _unit(features, name):
    features = _matrix(features, name)
    return features / np.linalg.norm(features, axis=1, keepdims=True)
