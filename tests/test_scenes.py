"""The toy world: the same in every process, and nothing shared between who learns and who is tested."""

import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from impart_utils.config import ROOT
from impart_utils.toy_world import scenes as world
from impart_utils.toy_world.scenes import CHARACTERS, COLORS, SHAPES, STYLES, SURROUNDINGS, Scene

SETS = ("toy10", "toy100", "toy101")
SCENE = Scene("boat", "red", "sea", "flat", 123)


@pytest.fixture(scope="module")
def pairs():
    return world.pairs()


@pytest.fixture(scope="module")
def test_sets():
    return {name: world.test_set(name) for name in SETS}


def array(scene, size=32):
    return np.asarray(world.draw(scene, size)).astype(int)


# Pictures

FINGERPRINT = """
import hashlib
from impart_utils.toy_world import scenes as world
digest, shown = hashlib.sha256(), world.pairs(60, people=0.3)
for pair in shown:
    digest.update(repr(pair).encode())
drawn = [pair.scene for pair in shown]
for name in world.CLASS_NAMES:
    test = world.test_set(name)
    digest.update(repr(test.class_names).encode() + test.labels.tobytes())
    drawn += test.scenes[:20]
digest.update(world.pictures(drawn).tobytes())
print(digest.hexdigest())
"""


def test_another_process_makes_the_same_world():
    def fingerprint(hash_seed):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
        return subprocess.run([sys.executable, "-c", FINGERPRINT], env=environment, check=True,
                              capture_output=True, text=True).stdout

    assert fingerprint("1") == fingerprint("2")


def test_a_picture_depends_on_the_scene_alone():
    first = array(SCENE)
    random.seed(5)
    np.random.seed(5)
    world.draw(replace(SCENE, seed=9))
    np.testing.assert_array_equal(array(SCENE), first)
    assert world.draw(SCENE).mode == "RGB" and first.shape == (32, 32, 3)


@pytest.mark.parametrize("change", [{"shape": "star"}, {"color": "blue"}, {"surrounding": "night"},
                                    {"style": "inked"}, {"seed": 124}])
def test_each_part_of_a_scene_changes_the_picture(change):
    assert np.abs(array(SCENE) - array(replace(SCENE, **change))).mean() > 1


@pytest.mark.parametrize("shape", [*SHAPES, *CHARACTERS])
def test_the_larger_picture_shows_the_same(shape):
    scene = replace(SCENE, shape=shape)
    large = np.asarray(world.draw(scene, 64).reduce(2)).astype(int)
    assert np.abs(large - array(scene)).mean() < 4


def test_all_styles_differ():
    drawn = {style: array(replace(SCENE, style=style)) for style in STYLES}
    for one in STYLES:
        for other in STYLES:
            assert one == other or np.abs(drawn[one] - drawn[other]).mean() > 2, (one, other)


def test_thumbnails_have_lost_detail():
    """Without their noise: what is left of a picture's finest differences, averaged over shapes."""
    def detail(style):
        values = [array(replace(SCENE, shape=shape, style=style)) for shape in SHAPES]
        return np.mean([np.abs(np.diff(value, axis=1)).max() for value in values])

    soft = replace(STYLES["thumbnail"], noise=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STYLES, "thumbnail", soft)
        assert detail("thumbnail") < 0.75 * detail("flat")


def test_drawing_is_fast():
    scenes = [replace(SCENE, style=style, seed=seed) for style in STYLES for seed in range(40)]
    start = time.process_time()
    world.pictures(scenes)
    seconds = (time.process_time() - start) / len(scenes)  # of one core
    assert seconds < 1.2e-3  # 0.8 ms, with room for old machines


@pytest.mark.parametrize(("change", "message"), [
    ({"shape": "sofa"}, "Unknown shape 'sofa'. Known shapes: boat, car"),
    ({"color": "teal"}, "Unknown color 'teal'. Known colors: red, orange"),
    ({"surrounding": "moon"}, "Unknown surrounding 'moon'. Known surroundings: sea, forest"),
    ({"style": "oil"}, "Unknown style 'oil'. Known styles: flat, inked")])
def test_an_unknown_name_lists_the_known_ones(change, message):
    with pytest.raises(ValueError, match=message):
        world.draw(replace(SCENE, **change))


def canvas(shape, **options):
    picture = Image.new("RGB", (100, 100), (1, 2, 3))
    world.draw_shape(ImageDraw.Draw(picture), shape, (200, 0, 0), (20, 30, 80, 90), **options)
    return np.asarray(picture)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_its_box_and_stays_near_it(shape):
    rows, columns = np.nonzero((canvas(shape) != (1, 2, 3)).any(axis=2))
    assert 30 - 7 <= rows.min() and rows.max() <= 90 + 7
    assert 20 - 7 <= columns.min() and columns.max() <= 80 + 7
    assert (rows.max() - rows.min()) > 20 and (columns.max() - columns.min()) > 20


def test_draw_shape_mirrors_tilts_and_outlines():
    plain = canvas("arrow")  # points to the right
    assert tuple(plain[60, 78]) == (200, 0, 0) and tuple(plain[45, 25]) == (1, 2, 3)
    np.testing.assert_array_equal(canvas("arrow", mirrored=True)[60, 22], (200, 0, 0))
    assert tuple(canvas("arrow", angle=90)[88, 50]) == (200, 0, 0)  # clockwise: now downwards
    outlined = canvas("arrow", outline=(0, 255, 0), line=0.2)
    assert (outlined == (0, 255, 0)).all(axis=2).sum() > 50
    red, still_red = ((drawn == (200, 0, 0)).all(axis=2) for drawn in (plain, outlined))
    assert (red == still_red).all()  # lines lie below


def test_characters_are_told_apart_by_hat_and_coat():
    assert len(CHARACTERS) >= 6
    assert sum(character.named for character in CHARACTERS.values()) * 2 == len(CHARACTERS)
    assert len({character.look for character in CHARACTERS.values()}) == len(CHARACTERS)
    for name, character in CHARACTERS.items():
        picture = Image.new("RGB", (60, 60))
        world.draw_character(ImageDraw.Draw(picture), name, (10, 10, 50, 50))
        found = {color for _, color in picture.getcolors()}
        assert {COLORS[character.hat_color], COLORS[character.coat_color]} <= found


# Pairs and captions

def test_pairs_do_not_depend_on_how_many_are_asked_for(pairs):
    assert len(pairs) == 10_000 and len({pair.id for pair in pairs}) == 10_000
    assert world.pairs(50) == pairs[:50]


def test_pairs_come_in_all_everyday_styles(pairs):
    assert {pair.scene.style for pair in pairs} == set(world.WEB_STYLES)
    assert {pair.scene.surrounding for pair in pairs} == set(SURROUNDINGS)
    assert {pair.scene.shape for pair in pairs} == set(SHAPES) | set(CHARACTERS)
    shown = sum(pair.scene.shape in CHARACTERS for pair in pairs)
    assert abs(shown - 1000) < 4 * np.sqrt(10_000 * 0.1 * 0.9)


@pytest.mark.parametrize("rates", [
    world.CAPTION_RATES, {"full": 0.1, "partial": 0.2, "empty": 0.3, "wrong": 0.4}])
def test_caption_kinds_come_at_the_stated_rates(rates):
    n = 3000
    kinds = Counter(pair.caption_kind for pair in world.pairs(n, rates=rates))
    for kind, rate in rates.items():
        assert abs(kinds[kind] - n * rate) < 4 * np.sqrt(n * rate * (1 - rate)), kind


def said(caption):
    """What a caption states: the shapes or characters, colors and places it names."""
    words = set(re.findall(r"\w+", caption))
    return ({shape for shape in SHAPES if shape in words}, {color for color in COLORS if color in words},
            {name for name, place in SURROUNDINGS.items() if place in caption})


def test_captions_are_of_the_kind_they_say(pairs):
    for pair in [pair for pair in pairs[:3000] if pair.scene.shape in SHAPES]:
        things, colors, places = said(pair.caption)
        true = ({pair.scene.shape}, {pair.scene.color}, {pair.scene.surrounding})
        stated = bool(things) + bool(colors) + bool(places)
        nothing_false = things <= true[0] and colors <= true[1] and places <= true[2]
        if pair.caption_kind == "full":
            assert (things, colors, places) == true, pair
        elif pair.caption_kind == "partial":
            assert 1 <= stated <= 2 and nothing_false, pair
        elif pair.caption_kind == "empty":
            assert stated == 0 and pair.caption in world.EMPTY
        else:
            assert stated and not (things & true[0] or colors & true[1] or places & true[2]), pair


def test_articles():
    texts = {world.caption(replace(SCENE, shape=shape, color=color), kind, random.Random(seed))
             for shape in ("apple", "umbrella", "boat") for color in ("orange", "red")
             for kind in ("full", "partial") for seed in range(30)}
    assert any("an apple" in text for text in texts) and any("an orange boat" in text for text in texts)
    assert not [text for text in texts if re.search(r"\ba [aeiou]|\ban [^aeiou]", text)]


def test_only_the_named_characters_are_ever_named():
    captions = " ".join(pair.caption for pair in world.pairs(3000, people=1.0, role="clip")).split()
    for name, character in CHARACTERS.items():
        assert (name in captions) == character.named, name
    looks = Counter(pair.caption for pair in world.pairs(3000, people=1.0) if pair.scene.shape == "leo")
    assert any(CHARACTERS["leo"].look in caption for caption in looks)


@pytest.mark.parametrize("rates", [
    {"full": 0.5, "partial": 0.5}, {"full": 0.5, "partial": 0.5, "empty": 0.5, "wrong": 0.5},
    {"full": 1.5, "partial": -0.5, "empty": 0.0, "wrong": 0.0}])
def test_impossible_rates(rates):
    with pytest.raises(ValueError, match="Expected shares of full, partial, empty, wrong that sum to 1, got"):
        world.pairs(1, rates=rates)


@pytest.mark.parametrize("seed", [-1, 2**20])
def test_a_seed_out_of_range_could_touch_another_world(seed):
    with pytest.raises(ValueError, match=f"Expected a seed from 0 to 1048575 .* got seed={seed} "):
        world.pairs(1, seed)


# Test sets

@pytest.mark.parametrize(("name", "classes", "least"), [
    ("toy10", 10, 2000), ("toy100", 100, 5000), ("toy101", 101, 4000)])
def test_sizes_of_the_test_sets(test_sets, name, classes, least):
    test = test_sets[name]
    counts = np.bincount(test.labels, minlength=len(test.class_names))
    assert len(test.class_names) == len(set(test.class_names)) == classes and test.labels.dtype == np.int64
    assert len(test.scenes) == len(test.labels) == len(set(test.ids)) >= least
    if name == "toy101":
        assert counts.min() == 20 and counts.max() == 300
        assert np.median(counts) < counts.mean()  # uneven: many small classes, a few large ones
    else:
        assert counts.min() == counts.max()


@pytest.mark.parametrize("name", SETS)
def test_labels_name_what_is_drawn(test_sets, name):
    test = test_sets[name]
    for scene, label in zip(test.scenes, test.labels, strict=True):
        shown = scene.shape if name == "toy10" else f"{scene.color} {scene.shape}"
        assert shown == test.class_names[label]
        assert scene.style == world.TEST_STYLES[name] not in world.WEB_STYLES


def test_the_first_pictures_are_a_fair_sample(test_sets):
    """`limit` takes the first n: they must not all be of the first classes."""
    for test in test_sets.values():
        assert len(set(test.labels[:200])) > min(len(test.class_names), 200) / 2


def test_unknown_test_set():
    with pytest.raises(ValueError, match="Unknown toy test set 'toy7'. Known: toy10, toy100, toy101."):
        world.test_set("toy7")


def test_nobody_is_tested_on_what_was_seen(pairs, test_sets):
    seen = {"clip": {pair.scene for pair in world.pairs(24_000, role="clip")},
            "pairs": {pair.scene for pair in pairs},
            **{name: set(test.scenes) for name, test in test_sets.items()}}
    seen["another world"] = {pair.scene for pair in world.pairs(10_000, seed=1)}
    seeds = {name: {scene.seed for scene in scenes} for name, scenes in seen.items()}
    for name, scenes in seen.items():
        assert len(scenes) == len(seeds[name])
        for other in seen:
            assert other == name or not (scenes & seen[other] or seeds[name] & seeds[other]), (name, other)


def test_no_two_pictures_are_equal(pairs, test_sets):
    """Different scenes might still be drawn alike; on samples of each set they aren't."""
    sample = [pair.scene for pair in pairs[:600]]
    sample += [scene for test in test_sets.values() for scene in test.scenes[:600]]
    drawn = world.pictures(sample)
    assert len({picture.tobytes() for picture in drawn}) == len(sample)


def test_another_world_is_another_draw_of_everything(test_sets, pairs):
    other = world.pairs(500, seed=3)
    assert np.mean([a.caption == b.caption for a, b in zip(other, pairs, strict=False)]) < 0.2
    for name, test in test_sets.items():
        again = world.test_set(name, seed=3)
        assert again.class_names == test.class_names  # as CIFAR's names stay
        assert np.mean(again.labels == test.labels) < 0.3
        assert not set(again.scenes) & set(test.scenes)
    sizes = [np.bincount(world.test_set("toy101", seed).labels) for seed in (0, 3)]
    assert (sizes[0] != sizes[1]).any() and sorted(sizes[0]) == sorted(sizes[1])


# The cache of pictures

def test_pictures_are_drawn_once(tmp_path, monkeypatch, pairs):
    scenes = [pair.scene for pair in pairs[:20]]
    drawn = world.pictures(scenes, tmp_path / "new" / "folder")
    np.testing.assert_array_equal(drawn, np.stack([np.asarray(world.draw(scene)) for scene in scenes]))
    assert drawn.dtype == np.uint8 and drawn.shape == (20, 32, 32, 3)

    def refuse(*arguments):
        raise AssertionError("drawn again")

    monkeypatch.setattr(world, "draw", refuse)
    np.testing.assert_array_equal(world.pictures(scenes, tmp_path / "new" / "folder"), drawn)
    for changed, size in ((scenes[::-1], 32), (scenes[:19], 32), (scenes, 64)):
        with pytest.raises(AssertionError, match="drawn again"):
            world.pictures(changed, tmp_path / "new" / "folder", size)
    monkeypatch.setattr(world, "WORLD_VERSION", world.WORLD_VERSION + 1)
    with pytest.raises(AssertionError, match="drawn again"):
        world.pictures(scenes, tmp_path / "new" / "folder")
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1  # failures left nothing behind


def test_no_scenes():
    assert world.pictures([]).shape == (0, 32, 32, 3)
