"""The toy films: their truth agrees with their pictures, they are made once and are the same for a seed."""

import dataclasses
import json
import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("av")
from impart_utils.toy_world import films as toy
from impart_utils.toy_world.films import make_films
from impart_utils.toy_world.scenes import CHARACTERS, COLORS, SHAPES, SURROUNDINGS
from impart_utils.video import sample_frames

RATE = float(toy.RATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def films(folder):
    return make_films(folder)


def frames_of(film):
    """All frames of a film: uint8 (f, 64, 64, 3)."""
    return np.stack([np.asarray(picture) for _, picture in sample_frames(film.path, RATE)])


def test_there_are_12_movies_of_4_clips(films, folder):
    assert len(films) == 48 and len({film.id for film in films}) == 48
    assert Counter(film.movie for film in films) == dict.fromkeys(toy.TITLES, 4)
    assert {path.name for path in folder.iterdir()} == {f"{film.id}.mp4" for film in films} | {"films.json"}
    titles = Counter((film.movie, film.title) for film in films)
    assert set(titles.values()) == {1}
    assert len({film.description for film in films}) == 48
    assert len({film.description_without_names for film in films}) == 48


def test_scenes_follow_each_other_and_fill_the_film(films):
    for film in films:
        scenes = film.scenes
        assert 4 <= len(scenes) <= 5 and scenes[0].start == 0
        assert all(a.end == b.start for a, b in zip(scenes, scenes[1:], strict=False))
        assert all(1.5 <= scene.end - scene.start <= 3 for scene in scenes)
        assert 8 <= scenes[-1].end <= 12
    for film in films[::8]:
        assert len(frames_of(film)) == round(film.scenes[-1].end * RATE)
        assert sum(1 for _ in sample_frames(film.path, 4)) == math.ceil(film.scenes[-1].end * 4)


def test_cuts_in_the_pictures_are_where_the_truth_says(films):
    for film in films[::6]:
        frames = frames_of(film).astype(np.int16)
        change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))  # (f - 1,): into frames 1 ... f - 1
        cuts = {round(scene.start * RATE) for scene in film.scenes[1:]}
        inside = [value for number, value in enumerate(change, start=1) if number not in cuts]
        assert min(change[cut - 1] for cut in cuts) > 2 * max(inside)
        assert np.median(inside) > 0.1  # something moves


def test_every_character_is_in_four_movies_and_no_two_movies_share_both(films):
    casts = {film.movie: tuple(sorted(film.characters)) for film in films}
    assert all(tuple(sorted(film.characters)) == casts[film.movie] for film in films)  # both in every clip
    assert Counter(name for cast in casts.values() for name in cast) == dict.fromkeys(CHARACTERS, 4)
    assert len(set(casts.values())) == 12
    assert set(casts.values()) < {tuple(sorted(pair)) for pair in combinations(CHARACTERS, 2)}
    shown = [name for film in films for scene in film.scenes for name in scene.characters]
    share = len(shown) / sum(len(film.scenes) for film in films)
    assert 0.4 < share < 0.9  # some scenes show nobody, so that "who is on the screen" is a question


def test_the_person_named_is_the_person_drawn(films, monkeypatch):
    for film in films[::6]:  # in the film's file: the person's two colors are there
        frames = frames_of(film)
        for scene in film.scenes:
            middle = frames[round((scene.start + scene.end) / 2 * RATE)].astype(int)
            for who in scene.characters:
                for color in (CHARACTERS[who].hat_color, CHARACTERS[who].coat_color):
                    assert (np.abs(middle - COLORS[color]).max(axis=2) < 45).mean() > 0.012, (film.id, scene)
    drawn = []  # and in every scene: exactly the persons of the truth are drawn, in every frame
    monkeypatch.setattr(toy.world, "draw_character", lambda brush, who, **place: drawn.append(who))
    for number, movie in enumerate(toy._movies(0)):
        for clip in range(toy.CLIPS):
            scenes = films[toy.CLIPS * number + clip].scenes
            for shot, scene in zip(toy._shots(movie, clip, f"0-{number}-{clip}"), scenes, strict=True):
                drawn.clear()
                frames = len(list(toy._pictures(dataclasses.replace(shot, frames=3), movie.style)))
                assert frames == 3 and drawn == 3 * scene.characters


def test_texts_name_what_the_scenes_hold(films):
    names = {name.capitalize() for name in CHARACTERS}
    for film in films:
        for scene in film.scenes:
            words = set(scene.description.rstrip(".").replace(",", "").split())
            assert {word.lower() for word in words & names} == set(scene.characters)
            assert any(scene.description.rstrip(".").endswith(place) for place in SURROUNDINGS.values())
            assert scene.characters or words & set(SHAPES)
            assert not names & set(scene.description_without_names.replace(".", " ").split())
        told = film.description.split(", then ")
        assert len(told) == 2 and set(film.characters) == {part.split()[0].lower() for part in told}
        scenes = [scene.description.rstrip(".") for scene in film.scenes]
        places = [scenes.index(part.rstrip(".")) for part in told]  # made of its scenes, in their order
        assert places[0] < places[1]
        without = film.description
        for name in names:
            without = without.replace(name, "a person")
        assert without.lower() == film.description_without_names.lower()


def test_clips_of_a_movie_share_their_look_but_no_object(films):
    for movie in {film.movie for film in films}:
        texts = [scene.description for film in films if film.movie == movie for scene in film.scenes]
        words = [word.strip(".") for text in texts for word in text.split()]
        assert len({place for place in SURROUNDINGS.values() for text in texts if place in text}) <= 2
        assert len(set(words) & set(COLORS)) <= 4
        assert max(Counter(word for word in words if word in SHAPES).values()) == 1


def test_films_are_made_once(films, folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert make_films(folder) == films
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others(films, tmp_path, monkeypatch):
    again = make_films(tmp_path)
    assert [film.scenes for film in films] == [film.scenes for film in again]
    assert [film.path.read_bytes() for film in films] == [film.path.read_bytes() for film in again]
    monkeypatch.setattr(toy, "_write", lambda path, shots, style: path.write_bytes(b"film"))
    changed = make_films(tmp_path, seed=1)  # into the same folder: replaces them
    assert json.loads((tmp_path / "films.json").read_text())["seed"] == 1
    assert sum(a.description == b.description for a, b in zip(films, changed, strict=True)) == 0
    assert {film.path.read_bytes() for film in changed} == {b"film"}
    assert Counter(name for film in changed for name in film.characters) == dict.fromkeys(CHARACTERS, 16)


def test_a_kill_in_the_middle_leaves_no_half_film_and_the_next_call_makes_all(films, tmp_path, monkeypatch):
    write, calls = toy._write, []

    def killed(path, shots, style):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half a film")
            raise KeyboardInterrupt
        write(path, shots, style)

    (tmp_path / "films.json").write_text('{"seed": 1, "films": []}')  # of other films: no longer true
    monkeypatch.setattr(toy, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        make_films(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{film.id}.mp4" for film in films[:2])
    monkeypatch.setattr(toy, "_write", lambda path, shots, style: path.write_bytes(b"film"))
    assert [film.id for film in make_films(tmp_path)] == [film.id for film in films]


def test_another_version_or_a_missing_file_makes_them_anew(films, tmp_path, monkeypatch):
    made = []

    def fake(path, shots, style):
        made.append(path)
        path.write_bytes(b"film")

    monkeypatch.setattr(toy, "_write", fake)
    make_films(tmp_path)
    make_films(tmp_path)
    assert len(made) == 48
    (tmp_path / f"{films[7].id}.mp4").unlink()
    make_films(tmp_path)
    assert len(made) == 96
    monkeypatch.setattr(toy.world, "WORLD_VERSION", toy.world.WORLD_VERSION + 1)
    make_films(tmp_path)
    assert len(made) == 144
