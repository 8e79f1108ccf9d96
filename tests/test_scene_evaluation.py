"""When and who, as tables: by hand, against loops, and on the toy films' truth."""

import numpy as np
import pytest

from impart_utils.evidence import metrics
from impart_utils.evidence.film_protocols import expected_precision
from impart_utils.evidence.scene_evaluation import (
    Moments,
    Scenes,
    character_table,
    clips_as_scenes,
    example_frames,
    moment_table,
    scenes_of,
)
from impart_utils.scene_windows import find_windows, shots
from impart_utils.toy_world.films import FilmScene

FPS = 4


def made_moments(films=5, seed=0, noise=0.1):
    """Films of five random shots; a query is a shot's picture."""
    rng, found = np.random.default_rng(seed), []
    for film in range(films):
        lengths = rng.integers(6, 14, 5)
        pictures = rng.normal(size=(5, 32))
        frames = np.repeat(pictures, lengths, axis=0) + noise * rng.normal(size=(lengths.sum(), 32))
        edges = np.concatenate([[0], np.cumsum(lengths)]) / FPS
        found.append(Moments(np.arange(lengths.sum()) / FPS, frames, pictures,
                             np.stack([edges[:-1], edges[1:]], axis=1), f"movie {film // 2}"))
    return found


def values_of(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    return dict(zip(table["metric"], table["value"], strict=True))


def test_moments_equal_the_loop():
    moments = made_moments(noise=1.5)
    table = moment_table(moments, query="shot")
    found = []
    for some in moments:
        windows = find_windows(some.features, some.timestamps, some.frame_features)
        for window, one in zip(some.windows, windows, strict=True):
            found.append(float(metrics.temporal_iou(one.windows[0], window)))
    expected = {f"R1@IoU {iou}": np.mean([value >= iou for value in found]) for iou in (0.3, 0.5, 0.7)}
    expected["mIoU"] = np.mean(found)
    assert values_of(table, method="CLIP, window by shots") == pytest.approx(expected)
    assert set(table["query"]) == {"shot"} and set(table["n"]) == {25}
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_floors_are_what_they_say():
    moments = made_moments()
    table = moment_table(moments, query="shot", share=0.2)
    shares = [length / some.windows[-1, 1] for some in moments for length in np.diff(some.windows)[:, 0]]
    whole = values_of(table, method="whole")
    assert whole["mIoU"] == pytest.approx(np.mean(shares)) and whole["R1@IoU 0.5"] == 0
    center = [metrics.temporal_iou(some.windows[-1, 1] * np.array([0.4, 0.6]), window)
              for some in moments for window in some.windows]
    assert values_of(table, method="center")["mIoU"] == pytest.approx(np.mean(center))
    random = values_of(table, method="random")
    rng, guesses = np.random.default_rng(9), []
    for some in moments:
        for window in some.windows:
            drawn = np.sort(rng.uniform(0, some.windows[-1, 1], size=(500, 2)), axis=1)
            guesses.append(metrics.temporal_iou(drawn, window))
    assert random["mIoU"] == pytest.approx(np.mean(guesses), abs=0.01)
    assert random["R1@IoU 0.3"] == pytest.approx(np.mean(np.array(guesses) >= 0.3), abs=0.02)
    assert moment_table(moments, query="shot").equals(moment_table(moments, query="shot"))
    assert values_of(table, method="CLIP, window by shots")["R1@IoU 0.7"] > 0.9


def test_options_reach_the_search():
    moments = made_moments(noise=0.3)
    one_shot = moment_table(moments, query="shot", most=1, floors=())
    many = moment_table(moments, query="shot", extent=2.0, floors=())  # favors half of the film
    assert not one_shot.equals(many) and set(one_shot["method"]) == {"CLIP, window by shots"}


# ---- Characters --------------------------------------------------------------------------------------

def made_scenes(films=12, seed=0, strength=1.5):
    """Scenes of two characters and nobody; a character's direction is in its scenes' frames."""
    rng = np.random.default_rng(seed)
    persons = strength * rng.normal(size=(2, 16))
    features, present, owner = [], [], []
    for film in range(films):
        for who in (0, 1, None):
            frames = rng.normal(size=(4, 16)) + rng.normal(size=16) + (0 if who is None else persons[who])
            features.append(frames)
            present.append([who == 0, who == 1])
            owner.append(film)
    movies = [f"movie {film // 3}" for film in owner]
    return persons, Scenes(features, np.array(present).T, np.array(owner), movies, ["ada", "leo"])


def test_several_pictures_find_a_character_better_than_one_and_both_better_than_guessing():
    persons, scenes = made_scenes()
    texts = {"name in a text": persons, "another text": np.random.default_rng(1).normal(size=(2, 16))}
    table = character_table(scenes, texts, k=4, draws=8)
    mean = table[table["metric"] == "mAP"].set_index("query")
    assert list(mean.index) == ["name in a text", "another text", "one picture", "4 pictures"]
    value, chance = mean["value"], mean["chance"].iloc[0]
    assert value["name in a text"] > value["4 pictures"] > value["one picture"] > chance + 0.05
    assert abs(value["another text"] - chance) < 0.25
    each = table[table["metric"] == "AP"]
    assert set(each["character"]) == {"ada", "leo"} and each["low"].isna().all()
    # 12 films less 4, three scenes each, one of them with the character
    assert set(table["n"]) == {24} and table["prevalence"].to_numpy() == pytest.approx(1 / 3)
    assert table["chance"].to_numpy() == pytest.approx(expected_precision(8, 24))
    assert table.equals(character_table(scenes, texts, k=4, draws=8))


def test_average_precision_per_character_equals_the_steps_by_hand():
    persons, scenes = made_scenes(seed=3)
    table = character_table(scenes, {"text": persons}, k=2, draws=1, how="max", seed=5)
    for character, name in enumerate(scenes.characters):
        frames, films = example_frames(scenes, character, 2, np.random.default_rng([5, 0, character]))
        rows = [row for row in range(36) if scenes.films[row] not in films]
        both = (frames / np.linalg.norm(frames, axis=1, keepdims=True)).sum(axis=0)
        for query, vector in (("text", persons[character]), ("one picture", frames[0]), ("2 pictures", both)):
            scores = [max(frame @ vector / np.linalg.norm(frame) / np.linalg.norm(vector)
                          for frame in scenes.features[row]) for row in rows]
            expected = metrics.average_precision(scores, scenes.present[character, rows])
            found = table[(table["query"] == query) & (table["character"] == name)]["value"].item()
            assert found == pytest.approx(expected), (name, query)


def test_examples_show_the_character_in_different_films():
    _, scenes = made_scenes()
    for seed in range(5):
        frames, films = example_frames(scenes, 1, 5, np.random.default_rng(seed))
        assert len(set(films)) == 5
        for frame, film in zip(frames, films, strict=True):
            own, = (row for row in range(36) if scenes.films[row] == film and scenes.present[1, row])
            assert (scenes.features[own] == frame).all(axis=1).any()
    with pytest.raises(ValueError, match="'leo' in more than k=12 films, got 12. Lower k"):
        example_frames(scenes, 1, 12, np.random.default_rng(0))


def test_within_its_movies_a_look_is_no_help():
    """Two movies of different look, a character in one of them: frames without anybody find the movie."""
    rng = np.random.default_rng(0)
    look = 5 * rng.normal(size=(2, 16))
    features = [rng.normal(size=(3, 16)) + look[film // 6] for film in range(12) for _ in range(3)]
    present = np.array([[film < 6 and scene == 0 for film in range(12) for scene in range(3)]])
    scenes = Scenes(features, present, np.repeat(np.arange(12), 3), ["A"] * 18 + ["B"] * 18, ["ada"])
    tables = [character_table(scenes, {}, k=2, draws=10, within=within) for within in (False, True)]
    anywhere, within = (table.set_index(["query", "metric"]).loc[("one picture", "mAP")] for table in tables)
    assert anywhere["value"] > 1.6 * anywhere["prevalence"]  # the movie is found, the person isn't
    assert within["value"] < 1.6 * within["prevalence"] and within["prevalence"] == pytest.approx(1 / 3)


def test_scenes_are_cut_by_the_truth():
    class Film:
        def __init__(self, movie, *scenes):
            self.movie = movie
            self.scenes = [FilmScene(start, end, "", "", who) for start, end, who in scenes]

    films = [Film("M", (0, 1.1, ["ada"]), (1.1, 2, []), (2, 2.1, ["leo"])),
             Film("N", (0, 1, ["leo", "ada"]))]
    times = [np.arange(8) / FPS, np.arange(4) / FPS]
    frames = [np.arange(8)[:, None], 10 + np.arange(4)[:, None]]
    scenes = scenes_of(times, frames, films, ["leo", "ada"])
    assert [block[:, 0].tolist() for block in scenes.features] == [
        [0, 1, 2, 3, 4], [5, 6, 7], [10, 11, 12, 13]]
    # the scene of 0.1 s has no frame
    assert scenes.present.tolist() == [[False, False, True], [True, False, True]]
    assert scenes.films.tolist() == [0, 0, 1] and scenes.movies == ["M", "M", "N"]


def test_clips_are_labelled_by_the_names_in_their_texts():
    texts = ["Ada runs.", "Adam runs from Leo.", "Leo's dog", "Leo", "Leo and Ada"]
    scenes = clips_as_scenes([np.ones((1, 2))] * 5, list("AABBB"), texts, ["Ada", "Leo", "Max"], least=2)
    assert scenes.characters == ["Ada", "Leo"]
    assert scenes.present.tolist() == [[True, False, False, False, True], [False, True, True, True, True]]
    with pytest.raises(ValueError, match="a name in at least 6 descriptions, got none of 2"):
        clips_as_scenes([np.ones((1, 2))] * 5, list("AABBB"), texts, ["Ada", "Leo"])


@pytest.mark.slow
def test_on_the_toy_films_names_that_clip_knows_are_found_and_pictures_find_all(tmp_path):
    pytest.importorskip("av")
    from impart_utils.clip_model import load_clip
    from impart_utils.toy_world.films import make_films
    from impart_utils.toy_world.scenes import CHARACTERS
    from impart_utils.video import encode_film

    clip, films = load_clip("tiny", device="cpu"), make_films(tmp_path)
    encoded = [encode_film(clip.encode_images, film.path) for film in films]
    times, frames = [film.timestamps for film in encoded], [film.frame_features for film in encoded]
    moments = [Moments(at, block, clip.encode_texts([scene.description for scene in film.scenes]),
                       np.array([(scene.start, scene.end) for scene in film.scenes]), film.movie)
               for at, block, film in zip(times, frames, films, strict=True)]
    table = moment_table(moments, query="scene")
    ours, floor = (values_of(table, method=method)["mIoU"] for method in ("CLIP, window by shots", "whole"))
    assert ours > 2 * floor
    assert sum(len(shots(at, block)) == len(film.scenes) for at, block, film
               in zip(times, frames, films, strict=True)) > 44
    names = sorted({who for film in films for who in film.characters})
    found = character_table(scenes_of(times, frames, films, names),
                            {"name": clip.encode_texts([name.capitalize() for name in names])})
    mean = found[found["metric"] == "mAP"].set_index("query")
    assert mean.loc["4 pictures", "value"] > mean.loc["one picture", "value"] > 2 * mean["chance"].iloc[0]
    by_name = found[(found["query"] == "name") & (found["metric"] == "AP")].set_index("character")["value"]
    known, unknown = ([by_name[who] for who in names if CHARACTERS[who].named == named]
                      for named in (True, False))  # half of the names are in CLIP's training captions
    assert min(known) > 2 * max(unknown)
