"""Frames as queries: what is held out, which pictures come, and how they are made harder."""

import numpy as np
import pytest
from PIL import Image

from impart_utils.evidence.film_evaluation import film_ranks
from impart_utils.evidence.film_variants import make_variants
from impart_utils.evidence.picture_queries import (
    blurred,
    cropped,
    draw_frames,
    frame_queries,
    harder_queries,
    kept_frames,
    query_pictures,
)

TIMES = [np.arange(frames) / 4 for frames in (40, 9, 24)]


def test_frames_are_drawn_from_every_film_once():
    films, rows = draw_frames(TIMES, per_film=5, seed=1)
    assert films.tolist() == sorted([0] * 5 + [1] * 5 + [2] * 5)
    for film in range(3):
        own = rows[films == film]
        assert (np.diff(own) > 0).all() and own.max() < len(TIMES[film])
    again = draw_frames(TIMES, per_film=5, seed=1)
    np.testing.assert_array_equal(rows, again[1])
    assert rows.tolist() != draw_frames(TIMES, per_film=5, seed=2)[1].tolist()
    assert np.bincount(draw_frames(TIMES, per_film=20)[0]).tolist() == [20, 9, 20]  # a film has no more


def test_two_seconds_on_either_side_are_held_out():
    kept, = kept_frames(TIMES, [0], [20])  # at 5 s: 3 s to 7 s are left out, both ends included
    assert TIMES[0][kept].tolist() == [t for t in TIMES[0] if t < 3 or t > 7]
    kept, = kept_frames(TIMES, [0], [20], skip=0)
    assert kept.tolist() == [row for row in range(40) if row != 20]
    assert len(kept_frames(TIMES, [1], [4])[0]) == 0  # 2.25 s long, all of it is near


def test_the_whole_shot_can_be_held_out():
    shots = [np.array([[0, 4.1], [4.1, 8.3], [8.3, 10]])] + [np.array([[0, 9.0]])] * 2
    kept, = kept_frames(TIMES, [0], [20], skip=0.5, shots=shots)
    assert TIMES[0][kept].tolist() == [t for t in TIMES[0] if t < 4.1 or t >= 8.3]
    near, = kept_frames(TIMES, [0], [17], skip=2, shots=shots)  # 4.25 s: its shot, and 2 s before it
    assert TIMES[0][near].tolist() == [t for t in TIMES[0] if t < 2.25 or t >= 8.3]


def scene_films(seed=0):
    """Films of 4 shots of 4 s; (timestamps, frame features). A film's shots resemble each other a little."""
    rng = np.random.default_rng(seed)
    films = [np.repeat(film + 2 * rng.normal(size=(4, 12)), 16, axis=0) + 0.1 * rng.normal(size=(64, 12))
             for film in rng.normal(size=(10, 1, 12))]
    return [np.arange(64) / 4] * 10, films


def test_queries_get_harder_step_by_step():
    times, films = scene_films()
    queries = frame_queries(times, films, *draw_frames(times, per_film=3))
    assert [some.kind for some in queries] == ["frame of the film", "held-out frame", "held-out shot"]
    ways = make_variants(films, None, names=("CLIP",))
    ranks = film_ranks(queries, ways, list("ABCDEFGHIJ"), poolings=("max",))
    first, held, shot = (np.mean(placed.ranks == 1) for placed in ranks.values())
    assert first == 1 and first >= held > shot
    for some in queries[1:]:  # no query's own frame is in its film
        for feature, film, kept in zip(some.features, some.films, some.kept, strict=True):
            assert not (films[film][kept] == feature).all(axis=1).any()


def test_films_too_short_are_left_out_of_the_kind_only():
    times = [np.arange(40) / 4, np.arange(9) / 4]
    films = [np.random.default_rng(n).normal(size=(len(t), 4)) for n, t in enumerate(times)]
    queries = frame_queries(times, films, np.array([0, 1]), np.array([20, 4]))
    # no cut is found in these films: the shot that is held out is all, and its kind has no query
    assert {some.kind: some.films.tolist() for some in queries} == {"frame of the film": [0, 1],
                                                                   "held-out frame": [0]}
    np.testing.assert_array_equal(queries[1].features, films[0][20:21])


def make_film(path, count):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "5"}
        for number in range(count):
            picture = np.full((64, 64, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_query_pictures_are_the_frames_in_the_order_asked(tmp_path):
    paths = [make_film(tmp_path / "a.mp4", 20), make_film(tmp_path / "b.mp4", 5)]
    times = [np.arange(20) / 4, np.arange(5) / 4]
    pictures = query_pictures(paths, times, [1, 0, 0, 0], [4, 11, 2, 11], fps=4)
    found = [np.asarray(picture).mean() for picture in pictures]
    np.testing.assert_allclose(found, [40, 110, 20, 110], atol=4)
    with pytest.raises(ValueError, match="none for film 1: a pack holds no pictures"):
        query_pictures([paths[0], None], times, [0, 1], [0, 0], fps=4)


def test_a_crop_is_half_of_the_picture_and_in_it():
    rows, columns = np.mgrid[:100, :200]
    picture = Image.fromarray(np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8))
    places = set()
    for seed in range(8):
        part = np.asarray(cropped(picture, seed=seed))
        assert part.shape == (71, 141, 3)  # half of the area, same proportions
        top, left = part[0, 0, :2]
        np.testing.assert_array_equal(part, np.asarray(picture)[top:top + 71, left:left + 141])
        places.add((int(top), int(left)))
    assert len(places) > 4
    assert cropped(picture, share=1.0).size == picture.size
    assert np.array_equal(np.asarray(cropped(picture, seed=3)), np.asarray(cropped(picture, seed=3)))


def test_blur_grows_with_the_picture():
    small, large = (Image.fromarray((np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8))
                    for side in (40, 400))
    for picture in (small, large):
        assert np.asarray(picture).std() > 100
    assert np.asarray(blurred(large)).std() < 5 < np.asarray(blurred(small, share=0.01)).std()


def test_harder_queries_encode_changed_pictures_and_hold_out_the_same_frames():
    times, films = scene_films()
    owners, rows = np.array([0, 3]), np.array([8, 40])
    given = []

    def encode(pictures):
        given.append([picture.size for picture in pictures])
        return np.ones((len(pictures), 12)) * np.arange(1, len(pictures) + 1)[:, None]

    queries = harder_queries([Image.new("RGB", (100, 100))] * 2, encode, times, owners, rows)
    assert [some.kind for some in queries] == ["held-out frame, cropped", "held-out frame, blurred"]
    assert given == [[(71, 71)] * 2, [(100, 100)] * 2]
    for some in queries:
        for found, expected in zip(some.kept, kept_frames(times, owners, rows), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert some.features[:, 0].tolist() == [1, 2] and some.modality == "picture"
