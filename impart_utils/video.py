"""Films as features: frames by timestamp, decoded in one pass and encoded in batches."""

import os
import warnings
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from impart_utils.film_scores import (  # noqa: F401  pooling and ranking can be had from here too
    POOLINGS,
    best_first,
    pool,
    rank_films,
    score_films,
)

LOST_SECONDS = 1  # a film that ends this long before its declared end is called partial


class PartialFilmWarning(UserWarning):
    """A film's end is missing or damaged; the frames before it were given out."""


def sample_frames(path, fps=4.0, *, protocol="timestamps", problems=None, side=None):
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
    side : int or None
        The decoder scales each picture (bicubic) so that its shorter side has so many pixels. None: it
        doesn't.

    Yields
    ------
    (seconds from the film's start, PIL picture in RGB, turned as the film says). A frame held over
    several samples comes as the same object. Pixel aspect and mirroring stay as stored.

    Raises
    ------
    FileNotFoundError; ValueError : not a film, no video stream, fps or side <= 0, unknown protocol: at
        once; not one good frame: at the first picture.
    """
    if not 0 < fps < float("inf"):
        raise ValueError(f"Expected fps > 0 frames per second, got fps={fps}.")
    if protocol not in ("timestamps", "paper_code"):
        raise ValueError(f"Unknown protocol {protocol!r}. Known protocols: timestamps, paper_code.")
    if protocol == "paper_code" and fps != 4:
        raise ValueError(f"Expected fps=4 with protocol='paper_code' (step int(rate) // 4), got fps={fps}.")
    if side is not None and not side > 0:
        raise ValueError(f"Expected side > 0 pixels or None, got side={side}.")
    container, stream = _open(path)
    shown = _on_screen(path, container, stream, problems)
    if protocol == "paper_code":
        return _every_nth(shown, _paper_step(path, container, stream), side)
    # a float such as 0.1 is a trifle off; the fraction that was meant keeps frame boundaries exact
    return _hold(shown, Fraction(fps).limit_denominator(1_000_000), side)


def _hold(shown, fps, side):
    sample = 0
    for frame, _, end in shown:
        picture = None
        while sample / fps < end:
            picture = picture or _picture(frame, side)
            yield float(sample / fps), picture
            sample += 1


def _every_nth(shown, step, side):
    for number, (frame, begin, _) in enumerate(shown):
        if number % step == 0:
            yield float(begin), _picture(frame, side)


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


def _picture(frame, side=None):
    if side is None:
        image = frame.to_image()
    else:  # to the size that torchvision's Resize, and so CLIP's preprocessing, gives: that then only crops
        shorter = min(frame.width, frame.height)
        image = frame.to_image(width=int(side * frame.width / shorter),
                               height=int(side * frame.height / shorter), interpolation="BICUBIC")
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image  # both counter-clockwise


@dataclass(frozen=True)
class FilmFeatures:
    """A film's frames: timestamps float64 (f,) in seconds, frame_features float32 (f, d), raw.

    `partial` says why the film's end is missing; it is "" for a whole film.
    """

    timestamps: np.ndarray
    frame_features: np.ndarray
    partial: str


def encode_film(encode_images, path, *, fps=4.0, batch_size=32, protocol="timestamps", resize="clip",
                side=224):
    """A film's `FilmFeatures`, in batches: pictures in memory don't grow with the film's length.

    Parameters
    ----------
    encode_images : callable, list of b PIL pictures -> array (b, d), for example ``clip.encode_images``
    path, fps, protocol : see `sample_frames`, also for the errors
    resize : "clip" or "decoder"
        "clip": `encode_images` gets whole frames and scales them itself, as CLIP was trained. "decoder": the
        decoder scales them, which saves time and moves the features a little (benchmarks/video.py says how
        far): don't mix the two in one gallery.
    side : int, pixels on the shorter side that the model takes (OpenAI's ViT-B/32: 224), for "decoder"
    """
    if resize not in ("clip", "decoder"):
        raise ValueError(f"Unknown resize {resize!r}. Known: clip, decoder.")
    timestamps, features, batch, problems = [], [], [], []
    frames = sample_frames(path, fps, protocol=protocol, problems=problems,
                           side=side if resize == "decoder" else None)
    for seconds, picture in frames:
        timestamps.append(seconds)
        batch.append(picture)
        if len(batch) == batch_size:
            features.append(encode_images(batch))
            batch = []
    if batch:
        features.append(encode_images(batch))
    frame_features = np.concatenate(features).astype(np.float32)  # list of (b, d) -> (f, d)
    return FilmFeatures(np.array(timestamps), frame_features, "; ".join(problems))
