"""Shared endings: found where they are, nowhere else, and never cut without saying so."""

import numpy as np
import pytest

from impart_utils.gallery import Gallery
from impart_utils.outros import append_ending, cut, find_ends, trim_gallery

FPS = 4


def make_films(count=6, *, frames=40, dim=32, seed=0):
    """Films of random frames, each a movie of its own: (timestamps, frame features, movies)."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(frames - 10, frames + 10, count)
    return ([np.arange(length) / FPS for length in lengths],
            [rng.normal(size=(length, dim)).astype(np.float32) for length in lengths],
            [f"movie {number}" for number in range(count)])


def ending(frames=12, dim=32, seed=9):
    return np.random.default_rng(seed).normal(size=(frames, dim)).astype(np.float32)


def noisy(frame_features, amount, seed=3):
    """The same pictures coded anew in each film."""
    rng = np.random.default_rng(seed)
    return [frames + amount * rng.normal(size=frames.shape).astype(np.float32) for frames in frame_features]


def test_films_without_a_common_ending_keep_all():
    times, frames, movies = make_films()
    np.testing.assert_allclose(find_ends(times, frames, movies), [len(film) / FPS for film in frames])


def test_an_ending_of_three_seconds_is_found_to_the_frame_though_coded_anew():
    times, frames, movies = make_films()
    own = [len(film) / FPS for film in frames]
    longer = append_ending(times, noisy(frames, 0.0), ending())
    assert longer[0][0][-1] == own[0] + 11 / FPS and len(longer[1][0]) == len(frames[0]) + 12
    np.testing.assert_allclose(find_ends(longer[0], noisy(longer[1], 0.1), movies), own)
    # noise that makes the cosine about 0.8 is no near-identity any more
    np.testing.assert_allclose(find_ends(longer[0], noisy(longer[1], 0.5), movies), np.add(own, 12 / FPS))


def test_only_the_films_that_have_it_lose_it():
    times, frames, movies = make_films(8)
    longer = append_ending(times, frames, ending())
    mixed = [longer[part][film] if film % 2 else (times, frames)[part][film]
             for part in (0, 1) for film in range(8)]
    np.testing.assert_allclose(find_ends(mixed[:8], mixed[8:], movies), [len(film) / FPS for film in frames])


def test_clips_of_one_movie_are_no_witnesses_for_each_other():
    times, frames, _ = make_films()
    longer, seconds = append_ending(times, frames, ending()), np.array([len(film) / FPS for film in frames])
    np.testing.assert_allclose(find_ends(*longer, ["M"] * 6), seconds + 3)
    # two movies of three clips: each clip has three witnesses; with four asked, none
    np.testing.assert_allclose(find_ends(*longer, list("MMMNNN")), seconds)
    np.testing.assert_allclose(find_ends(*longer, list("MMMNNN"), films=4), seconds + 3)


def test_sampling_that_falls_one_step_beside_still_matches():
    times, frames, movies = make_films()
    times, frames = append_ending(times, frames, np.repeat(ending(6), 2, axis=0))  # two samples a picture
    own = [len(film) / FPS - 3 for film in frames]
    frames[0] = np.concatenate([frames[0][:-12], frames[0][-11:], frames[0][-1:]])  # as if half a step later
    found = find_ends(times, frames, movies)
    np.testing.assert_allclose(found[1:], own[1:])
    assert abs(found[0] - own[0]) <= 1 / FPS


def test_a_gap_is_bridged_up_to_its_length_and_no_further():
    times, frames, movies = make_films()
    own = np.array([len(film) / FPS for film in frames])
    times, frames = append_ending(times, frames, ending(20))
    broken = [film.copy() for film in frames]
    for number, film in enumerate(broken):
        film[-12:-8] = np.random.default_rng(number).normal(size=(4, 32))  # one second that differs
    np.testing.assert_allclose(find_ends(times, broken, movies, gap=1.0), own)
    np.testing.assert_allclose(find_ends(times, broken, movies, gap=0.9), own + 3)  # 8 of 20 frames are cut


def test_never_more_than_half_of_a_film_or_the_longest():
    times, _, movies = make_films()
    same = [np.repeat(ending(1), len(film), axis=0) for film in times]  # the films are all one picture
    seconds = np.array([len(film) / FPS for film in times])
    np.testing.assert_allclose(find_ends(times, same, movies), seconds - np.floor(seconds / 2 * FPS) / FPS)
    np.testing.assert_allclose(find_ends(times, same, movies, longest=1), seconds - 1)
    one = [film[:1] for film in times]  # films of a single frame have no half
    np.testing.assert_allclose(find_ends(one, [film[:1] for film in same], movies), 1.0)


def test_an_ending_makes_films_alike_and_cutting_it_undoes_that():
    times, frames, movies = make_films(dim=64)
    longer = append_ending(times, frames, np.repeat(8 * ending(1, dim=64), 20, axis=0))

    def likeness(films):
        means = np.stack([film.mean(axis=0) for film in films])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return (means @ means.T)[np.triu_indices(len(means), 1)].mean()

    ends = find_ends(*longer, movies)
    trimmed = [cut(*film, end)[1] for film, end in zip(zip(*longer, strict=True), ends, strict=True)]
    assert likeness(longer[1]) > 0.9 > 0.3 > likeness(trimmed)


# ---- galleries ---------------------------------------------------------------------------------------

def make_gallery():
    times, frames, movies = make_films(4)
    times, frames = append_ending(times, frames, ending())
    ids = [f"2019/-id{number}.mp4" for number in range(4)]
    texts = [[""] * 4] * 2
    return Gallery("folder:films", ids, movies, ids, *texts, [None] * 4, times, frames, {}, "fake")


def test_trimming_is_said_in_the_name_and_per_film():
    gallery = make_gallery()
    same, cuts = trim_gallery(gallery, "none")
    assert same is gallery and {row["trim"] for row in cuts} == {"none"}
    detected, cuts = trim_gallery(gallery, "detect")
    assert detected.name == "folder:films, trim=detect (4 of 4 films)" and detected.key != gallery.key
    assert [row["seconds"] - row["end"] for row in cuts] == pytest.approx([3.0] * 4)
    for before, after, times in zip(gallery.frame_features, detected.frame_features, detected.timestamps,
                                    strict=True):
        np.testing.assert_array_equal(after, before[:-12])
        assert len(times) == len(after)


def test_known_durations_leave_a_mixture_that_is_counted():
    gallery = make_gallery()
    known, cuts = trim_gallery(gallery, "known", durations={"-id1": 5.0, "-id2": 1000.0, "other": 1.0})
    assert known.name == "folder:films, trim=known (2 of 4 films)"
    assert [row["trim"] for row in cuts] == ["none", "known", "known", "none"]
    assert [len(frames) for frames in known.frame_features] == [
        len(gallery.frame_features[0]), 20, *map(len, gallery.frame_features[2:])]
    assert cuts[2]["end"] == cuts[2]["seconds"]  # longer than the file: nothing to cut
    with pytest.raises(ValueError, match="got none for '-id0' and the other 3. Give .*durations.csv"):
        trim_gallery(gallery, "known", durations={"other": 1.0})


def test_bad_arguments_are_named():
    gallery = make_gallery()
    with pytest.raises(ValueError, match="Unknown trim 'auto'. Known: none, known, detect"):
        trim_gallery(gallery, "auto")
    with pytest.raises(ValueError, match="films=0, 4 films and 4 movies"):
        trim_gallery(gallery, "detect", films=0)
    with pytest.raises(ValueError, match="4 films and 3 movies"):
        find_ends(gallery.timestamps, gallery.frame_features, gallery.movies[:3])


def test_cut_keeps_at_least_a_frame():
    times, frames = np.arange(4) / 4, np.eye(4)
    assert cut(times, frames, 0.5)[0].tolist() == [0, 0.25]
    assert len(cut(times, frames, 0.0)[0]) == 1 and len(cut(times, frames, 99)[0]) == 4
