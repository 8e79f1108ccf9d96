"""Moments in films: curves, shots, windows, suppression, floors and reels, by hand and against loops."""

import numpy as np
import pytest

from impart_utils import scene_windows as scenes
from impart_utils.evidence.metrics import temporal_iou
from impart_utils.scene_windows import (
    draw_reels,
    film_end,
    find_windows,
    floor_windows,
    overlaps,
    propose,
    score_windows,
    shot_boundaries,
    shots,
    similarity_curves,
    smooth,
    splice,
    suppress,
)

FPS = 4


def film_of(lengths, *, dim=32, noise=0.1, seed=0):
    """A film whose shots (of so many frames) are noisy copies of a picture: (times, frames, pictures)."""
    rng = np.random.default_rng(seed)
    pictures = rng.normal(size=(len(lengths), dim))
    frames = np.repeat(pictures, lengths, axis=0) + noise * rng.normal(size=(sum(lengths), dim))
    return np.arange(sum(lengths)) / FPS, frames, pictures


def test_a_curve_is_the_cosine_with_each_frame():
    frames = np.array([[2.0, 0], [3, 4], [0, -1]])
    np.testing.assert_allclose(similarity_curves(np.array([[5.0, 0], [0, 1]]), frames),
                               [[1, 0.6, 0], [0, 0.8, -1]], atol=1e-6)


def test_smoothing_is_a_gaussian_in_seconds_whatever_the_rate():
    for rate in (2, 8):
        times = np.arange(40 * rate) / rate
        pulse = np.zeros((1, len(times)))
        pulse[0, 20 * rate] = rate  # of area one second
        expected = np.exp(-0.5 * ((times - 20) / 2) ** 2) / (2 * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(smooth(pulse, times, seconds=2)[0], expected, atol=2e-3)
    curve = np.random.default_rng(0).normal(size=(2, 9))
    np.testing.assert_allclose(smooth(curve, np.arange(9) / 4, seconds=0), curve, rtol=1e-6)
    np.testing.assert_allclose(smooth(np.full((1, 7), 0.3), np.arange(7) / 4, seconds=1), 0.3, rtol=1e-6)
    assert smooth(np.ones((3, 1)), np.zeros(1)).shape == (3, 1)


def test_shots_are_found_where_the_picture_changes():
    times, frames, _ = film_of([7, 3, 12, 5])
    np.testing.assert_allclose(shot_boundaries(times, frames), np.array([7, 10, 22]) / FPS - 0.5 / FPS)
    edges = [0, 1.625, 2.375, 5.375, 6.75]
    np.testing.assert_allclose(shots(times, frames), np.stack([edges[:-1], edges[1:]], axis=1))


def test_slow_change_is_no_cut_and_a_still_film_is_one_shot():
    angle = np.linspace(0, np.pi / 2, 60)  # a pan: all of a quarter turn, but evenly
    assert len(shot_boundaries(np.arange(60) / FPS, np.stack([np.cos(angle), np.sin(angle)], axis=1))) == 0
    np.testing.assert_allclose(shots(np.arange(8) / FPS, np.ones((8, 3))), [[0, 2]])
    np.testing.assert_allclose(shots(np.zeros(1), np.ones((1, 3))), [[0, 1]])  # one frame: a second


def test_a_restless_film_needs_a_larger_jump():
    times, frames, _ = film_of([8, 8], noise=0.1, seed=1)
    restless = frames + 0.5 * np.random.default_rng(2).normal(size=frames.shape)
    assert len(shot_boundaries(times, frames)) == 1
    assert len(shot_boundaries(times, restless, spread=40)) == 0


def test_proposals_are_all_runs_of_shots():
    three = np.array([[0, 1], [1, 4], [4, 6]])
    assert propose(three).tolist() == [[0, 1], [0, 4], [0, 6], [1, 4], [1, 6], [4, 6]]
    assert propose(three, most=1).tolist() == three.tolist()
    assert len(propose(np.stack([np.arange(30), np.arange(1, 31)], axis=1), most=8)) == 23 * 8 + 28


def test_scores_worked_by_hand():
    times, curve = np.arange(4) / FPS, np.array([[1.0, 2, 6, 3]])
    windows = np.array([[0.5, 0.75], [0.5, 1.0], [0, 1.0], [0.1, 0.2]])
    # frame 2: 6 - 2; frames 2, 3: 4.5 - 1.5; all, and none: 0
    np.testing.assert_allclose(score_windows(curve, times, windows), [[4, 3, 0, 0]])
    np.testing.assert_allclose(score_windows(curve, times, windows, extent=0.5),
                               [[4 * np.sqrt(3 / 16), 3 / 2, 0, 0]])


def test_scores_equal_the_loop_and_the_deviation_explained():
    rng = np.random.default_rng(3)
    times, curves = np.arange(50) / FPS, rng.normal(size=(3, 50))
    windows = np.sort(rng.uniform(0, 12.5, size=(40, 2)), axis=1)
    for extent in (0, 0.5, 1):
        found = score_windows(curves, times, windows, extent=extent)
        for query in range(3):
            for number, (start, end) in enumerate(windows):
                inside = (times >= start) & (times < end)
                slow = 0.0
                if inside.any() and not inside.all():
                    slow = curves[query, inside].mean() - curves[query, ~inside].mean()
                    slow *= (inside.mean() * (1 - inside.mean())) ** extent
                assert found[query, number] == pytest.approx(slow, abs=1e-12)
    inside = (times >= windows[0, 0]) & (times < windows[0, 1])  # Otsu: the square is the variance between
    means = np.where(inside, curves[0, inside].mean(), curves[0, ~inside].mean())
    assert abs(score_windows(curves, times, windows, extent=0.5)[0, 0]) == pytest.approx(means.std())


def test_the_best_short_window_wins_plainly_and_the_long_one_by_extent():
    times = np.arange(40) / FPS
    curve = np.where((times >= 4) & (times < 7), 0.5, 0.0) + np.where((times >= 5) & (times < 5.5), 0.2, 0.0)
    windows = np.array([[5, 5.5], [4, 7], [0, 5]])
    assert score_windows(curve[None], times, windows)[0].argmax() == 0
    assert score_windows(curve[None], times, windows, extent=0.5)[0].argmax() == 1


def test_suppression_worked_by_hand():
    windows, values = np.array([[0, 4], [1, 4], [4, 8], [0, 8], [5, 9]]), [0.9, 0.8, 0.7, 0.95, 0.7]
    # 3 first; 0 overlaps it by half: kept at 0.5; 1 overlaps 0 by 3/4: dropped; 2 before 4 at equal scores
    assert suppress(windows, values).tolist() == [3, 0, 2]
    # at 0.4 also 0 and 2 go (1/2 with 3); 1 (3/8) and 4 (1/3) stay
    assert suppress(windows, values, iou=0.4).tolist() == [3, 1, 4]
    assert suppress(windows, values, keep=1).tolist() == [3]
    assert suppress(windows, values, iou=1.0).tolist() == [3, 0, 1, 2, 4]


def test_overlap_is_the_metrics_iou():
    rng = np.random.default_rng(4)
    a, b = np.sort(rng.uniform(0, 9, 2)), np.sort(rng.uniform(0, 9, size=(50, 2)), axis=1)
    np.testing.assert_allclose(overlaps(a, b), temporal_iou(a, b))


def test_windows_of_a_film_are_found_to_the_shot():
    lengths = [7, 9, 12, 6, 8]
    times, frames, pictures = film_of(lengths)
    found = find_windows(pictures, times, frames)
    edges = np.concatenate([[0], np.cumsum(lengths) / FPS])
    for one, start, end in zip(found, edges[:-1], edges[1:], strict=True):
        assert temporal_iou(one.windows[0], [start, end]) > 0.8  # a cut's time is known to 1/8 s
        assert (np.diff(one.scores) <= 0).all() and one.curve.shape == (42,)
    known = find_windows(pictures, times, frames, cuts=np.stack([edges[:-1], edges[1:]], axis=1))
    assert [one.windows[0].tolist() for one in known] == [[a, b] for a, b in zip(edges[:-1], edges[1:],
                                                                                 strict=True)]


def test_a_query_about_two_shots_is_found_by_extent():
    times, frames, pictures = film_of([8] * 6, seed=5)
    query = (pictures[2] + 0.6 * pictures[3])[None]
    both, one = (find_windows(query, times, frames, extent=extent)[0].windows[0] for extent in (0.5, 0))
    assert temporal_iou(both, [4, 8]) > 0.9 and temporal_iou(one, [4, 6]) > 0.8  # else the better shot alone


def test_floors():
    assert floor_windows("whole", 10, 2).tolist() == [[0, 10]] * 2
    assert floor_windows("center", 10, 1, share=0.4).tolist() == [[3, 7]]
    drawn = floor_windows("random", 10, 4000, rng=np.random.default_rng(0))
    assert (drawn[:, 0] <= drawn[:, 1]).all() and drawn.min() >= 0 and drawn.max() <= 10
    assert np.diff(drawn, axis=1).mean() == pytest.approx(10 / 3, abs=0.15)  # two random moments
    with pytest.raises(ValueError, match="Unknown floor 'prior'. Known: random, whole, center"):
        floor_windows("prior", 10, 1)


def test_a_reel_is_its_films_one_after_the_other():
    times = [np.arange(8) / FPS, np.arange(3) / FPS, np.arange(5) / FPS]
    frames = [np.full((len(film), 2), number) for number, film in enumerate(times)]
    reel = splice([2, 0], times, frames)
    assert reel.windows.tolist() == [[0, 1.25], [1.25, 3.25]] and reel.films.tolist() == [2, 0]
    np.testing.assert_allclose(reel.timestamps, np.arange(13) / FPS)
    assert reel.frame_features[:, 0].tolist() == 5 * [2] + 8 * [0]
    assert film_end(reel.timestamps) == 3.25
    for (start, end), film in zip(reel.windows, reel.films, strict=True):
        inside = (reel.timestamps >= start) & (reel.timestamps < end)
        np.testing.assert_array_equal(reel.frame_features[inside], frames[film])
    with pytest.raises(ValueError, match="at least one film to splice"):
        splice([], times, frames)


def test_every_film_is_in_one_reel():
    movies = [f"movie {number // 4}" for number in range(24)]
    first, again, other = ([reel.tolist() for reel in draw_reels(movies, parts=5, seed=seed)]
                           for seed in (1, 1, 2))
    assert sorted(sum(first, [])) == list(range(24)) and [len(reel) for reel in first] == [5, 5, 5, 5, 4]
    assert first == again != other
    own = draw_reels(movies, parts=4, same_movie=True)
    assert len(own) == 6 and all(len({movies[film] for film in reel}) == 1 for reel in own)
    assert draw_reels(["A", "B"], same_movie=True) == []  # nothing to tell apart


def test_the_toy_films_cuts_are_found(tmp_path):
    pytest.importorskip("av")
    from impart_utils.clip_model import load_clip
    from impart_utils.toy_world import films as toy
    from impart_utils.video import encode_film

    encode = load_clip("tiny", device="cpu").encode_images
    for film in toy.make_films(tmp_path, seed=0)[::12]:
        encoded = encode_film(encode, film.path)
        found = shot_boundaries(encoded.timestamps, encoded.frame_features)
        truth = np.array([scene.start for scene in film.scenes[1:]])
        assert len(found) == len(truth) and np.abs(found - truth).max() <= 0.5 / FPS + 1e-9
        assert scenes.frame_seconds(encoded.timestamps) == 1 / FPS
