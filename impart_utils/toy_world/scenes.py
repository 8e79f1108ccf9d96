"""What the toy world holds, all from a seed: scenes and their pictures, captions, pairs, three test sets.

A picture is an object in a color before a surrounding, drawn in a style. Pairs (and what the tiny CLIP
learns from) come in three everyday styles; the test sets in two others, as CIFAR's shrunk pictures and
Caltech's cut-out objects differ from photographs on the web. Captions are of mixed quality, as Flickr's.
"""

import random
import re
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from impart_utils.sources.features import atomic_path, content_hash
from impart_utils.toy_world.drawing import (
    CHARACTERS,
    COLORS,
    INK,
    SHAPES,
    draw_character,
    draw_shape,
    draw_surrounding,
    mix,
)

WORLD_VERSION = 1  # a change here or in drawing.py that changes a picture or a caption counts one up

SURROUNDINGS = {  # name -> how a caption says it
    "sea": "by the sea", "forest": "in the forest", "snow": "in the snow", "desert": "in the desert",
    "night": "at night", "meadow": "in the meadow", "city": "in the city", "room": "in a room",
}

# Captions: how often they name everything, something, nothing, or something that isn't there.
CAPTION_RATES = {"full": 0.35, "partial": 0.40, "empty": 0.15, "wrong": 0.10}
PEOPLE_RATE = 0.10  # pairs that show one of the characters instead of an object
FULL = ("a photo of a {color} {thing} {place}", "a {color} {thing} {place}", "{color} {thing} {place}")
PARTIAL = ("a photo of a {thing}", "a photo of a {color} {thing}", "a {thing} {place}", "a {color} {thing}",
           "my {thing}", "{thing}", "a view {place}")
PEOPLE_FULL = ("a photo of {thing} {place}", "{thing} {place}")
PEOPLE_PARTIAL = ("a photo of {thing}", "{thing}", "a view {place}")
EMPTY = ("our holiday", "a lovely day", "untitled", "the last one", "with friends", "one more from today")


@dataclass(frozen=True)
class Style:
    """How a picture is drawn: line around the object, and what happens to the picture afterwards."""
    outline: tuple | None = None  # RGB of the line
    line: float = 0.0             # its width, as a share of the object
    pale: float = 0.0             # how far colors go towards white
    shade: float = 0.0            # light from the upper left, 0 to 1
    shrink: int | None = None     # pixels a side that the picture is shrunk to and blown up again
    noise: float = 0.0            # standard deviation in gray levels of 255


STYLES = {
    "flat": Style(),
    "inked": Style(outline=INK, line=0.09),
    "painted": Style(shade=0.5, noise=8.0),
    "thumbnail": Style(pale=0.1, shrink=12, noise=18.0),
    "sticker": Style(outline=(255, 255, 255), line=0.35, pale=0.08),
}
WEB_STYLES = ("flat", "inked", "painted")


@dataclass(frozen=True)
class Scene:
    """One picture: everything `draw` needs. `shape` is a name of SHAPES or of CHARACTERS.

    `seed` decides place, size, tilt, mirroring and noise, and carries who may see the scene: see `_seeds`.
    """
    shape: str
    color: str
    surrounding: str
    style: str
    seed: int


@dataclass(frozen=True)
class Pair:
    id: str
    scene: Scene
    caption: str
    caption_kind: str  # "full", "partial", "empty" or "wrong"


@dataclass(frozen=True)
class ToyTestSet:
    name: str
    scenes: list
    labels: np.ndarray  # (n,) int64
    class_names: list
    ids: list


# ---- pictures ----------------------------------------------------------------------------------------

def draw(scene, size=32):
    """The scene's picture: an RGB Image of size x size pixels, the same on every call.

    Raises
    ------
    ValueError : an unknown shape, color, surrounding or style.
    """
    if scene.style not in STYLES:
        raise ValueError(f"Unknown style {scene.style!r}. Known styles: {', '.join(STYLES)}.")
    style, rng = STYLES[scene.style], random.Random(scene.seed)
    fine = 2 * size  # drawn twice as large, for smooth edges
    picture = draw_surrounding(scene.surrounding, fine, rng)
    radius = rng.uniform(0.33, 0.43) * fine
    x, y = (rng.uniform(0.45, 0.55) * fine for _ in range(2))
    place = {"box": (x - radius, y - radius, x + radius, y + radius), "angle": rng.uniform(-12, 12),
             "mirrored": rng.random() < 0.5, "outline": style.outline, "line": style.line}
    brush = ImageDraw.Draw(picture)
    if scene.shape in CHARACTERS:
        draw_character(brush, scene.shape, **place)
    else:
        draw_shape(brush, scene.shape, _tinted(scene.color, style, rng), **place)
    return _finish(picture.reduce(2), style, scene.seed)


def _tinted(color, style, rng):
    """The color's RGB, a little different in each picture."""
    if color not in COLORS:
        raise ValueError(f"Unknown color {color!r}. Known colors: {', '.join(COLORS)}.")
    jittered = [min(255, max(0, part + rng.randint(-14, 14))) for part in COLORS[color]]
    return mix(jittered, (255, 255, 255), style.pale)


def _finish(picture, style, seed):
    size = picture.width
    if style.shrink:
        small = picture.resize((style.shrink, style.shrink), Image.Resampling.BOX)
        picture = small.resize((size, size), Image.Resampling.BICUBIC)
    if not (style.shade or style.noise):
        return picture
    values = np.asarray(picture, np.float32)  # (size, size, 3)
    if style.shade:
        slope = np.linspace(0.5, -0.5, size, dtype=np.float32)
        values = values * (1 + style.shade * (slope[:, None, None] + slope[None, :, None]) / 2)
    if style.noise:
        values = values + np.random.default_rng(seed).normal(0, style.noise, values.shape)
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def pictures(scenes, cache=None, size=32):
    """Draw many scenes, once.

    Parameters
    ----------
    scenes : sequence of n Scene
    cache : folder or None: where a file named after the world's version and the scenes' content is kept
    size : int, pixels a side

    Returns
    -------
    pictures : uint8 array (n, size, size, 3)
    """
    scenes = list(scenes)
    if cache is None:
        return _draw_all(scenes, size)
    key = content_hash(WORLD_VERSION, size, [astuple(scene) for scene in scenes])
    path = Path(cache) / f"toy-pictures-{key}.npy"
    if not path.is_file():
        with atomic_path(path) as temporary:
            np.save(temporary, _draw_all(scenes, size))
    return np.load(path, allow_pickle=False)


def _draw_all(scenes, size):
    result = np.empty((len(scenes), size, size, 3), np.uint8)
    for row, scene in enumerate(scenes):
        result[row] = np.asarray(draw(scene, size))
    return result


# ---- pairs and test sets -----------------------------------------------------------------------------

ROLES = {"clip": 1, "pairs": 2, "toy10": 3, "toy100": 4, "toy101": 5, "probe": 6}  # who may see a scene
CLASS_NAMES = {
    "toy10": ["boat", "car", "bird", "cat", "fish", "tree", "house", "star", "cup", "flower"],
    # like squares of a chessboard: colors x the first 20 shapes, and 101 of the other squares
    "toy100": [f"{color} {shape}" for i, shape in enumerate(list(SHAPES)[:20])
               for j, color in enumerate(COLORS) if (i + j) % 2 == 0],
    "toy101": [f"{color} {shape}" for i, shape in enumerate(SHAPES)
               for j, color in enumerate(COLORS) if (i + j) % 2 == 1][:101],
}
TEST_STYLES = {"toy10": "thumbnail", "toy100": "thumbnail", "toy101": "sticker"}


def _seeds(role, world, count):
    """Scene seeds of a role in a world: ranges that no other role and no other world touches."""
    if not 0 <= world < 2**20 or count > 2**20:
        raise ValueError(f"Expected a seed from 0 to {2**20 - 1} and at most {2**20} scenes, "
                         f"got seed={world} and {count} scenes. Use a smaller one.")
    first = (ROLES[role] << 40) + (world << 20)
    return range(first, first + count)


def pairs(count=10_000, seed=0, *, rates=None, people=PEOPLE_RATE, role="pairs"):
    """Image-text pairs as a web collection has them: everyday styles, captions of mixed quality.

    Parameters
    ----------
    count : int;  seed : int, the world's seed: another seed is another draw of everything
    rates : dict kind -> share of the captions (default CAPTION_RATES), of full, partial, empty, wrong
    people : share of pairs that show a character
    role : "pairs", or "clip" for what the tiny CLIP learns from; the two share no scene

    Returns
    -------
    pairs : list of Pair; the first m are the same whatever `count` is

    Raises
    ------
    ValueError : rates with another kind, negative, or whose sum isn't 1.
    """
    rates = CAPTION_RATES if rates is None else rates
    if set(rates) != set(CAPTION_RATES) or min(rates.values()) < 0 or abs(sum(rates.values()) - 1) > 1e-9:
        raise ValueError(f"Expected shares of {', '.join(CAPTION_RATES)} that sum to 1, got {rates}.")
    result = []
    for row, scene_seed in enumerate(_seeds(role, seed, count)):
        rng = random.Random(f"pair {scene_seed}")
        scene = _any_scene(rng, scene_seed, people)
        kind = rng.choices(list(rates), list(rates.values()))[0]
        result.append(Pair(f"{role}-{seed}-{row:05d}", scene, caption(scene, kind, rng), kind))
    return result


def _any_scene(rng, seed, people):
    surrounding, style = rng.choice(list(SURROUNDINGS)), rng.choice(WEB_STYLES)
    if rng.random() < people:
        who = CHARACTERS[rng.choice(list(CHARACTERS))]
        return Scene(who.name, who.hat_color, surrounding, style, seed)
    return Scene(rng.choice(list(SHAPES)), rng.choice(list(COLORS)), surrounding, style, seed)


def caption(scene, kind, rng):
    """A caption of the given kind ("full", "partial", "empty", "wrong") for a scene.

    A character is called by name where `named` says so (in two captions of three), else by the look.
    """
    if kind == "empty":
        return rng.choice(EMPTY)
    if kind == "wrong":
        other = scene
        while any(getattr(other, part) == getattr(scene, part) for part in ("shape", "color", "surrounding")):
            other = _any_scene(rng, scene.seed, people=float(scene.shape in CHARACTERS))
        return caption(other, rng.choice(("full", "partial")), rng)
    words = {"color": scene.color, "thing": scene.shape, "place": SURROUNDINGS[scene.surrounding]}
    if scene.shape not in CHARACTERS:
        text = rng.choice(FULL if kind == "full" else PARTIAL).format(**words)
        return re.sub(r"\ba (?=[aeiou])", "an ", text)
    who = CHARACTERS[scene.shape]
    words["thing"] = who.name if who.named and rng.random() < 2 / 3 else f"a {who.look}"
    return rng.choice(PEOPLE_FULL if kind == "full" else PEOPLE_PARTIAL).format(**words)


def test_set(name, seed=0):
    """One of the three test sets, shaped like the paper's: CIFAR-10, CIFAR-100 and Caltech101.

    Parameters
    ----------
    name : "toy10" (10 shapes, 2000 pictures), "toy100" (100 color-shape pairs, 5000 pictures) or
        "toy101" (101 uneven classes of 20 to 300 pictures in another style, 4000 or more)
    seed : int, the world's seed

    Returns
    -------
    test_set : ToyTestSet; classes are mixed, so that the first pictures are a fair sample

    Raises
    ------
    ValueError : an unknown name.
    """
    if name not in CLASS_NAMES:
        raise ValueError(f"Unknown toy test set {name!r}. Known: {', '.join(CLASS_NAMES)}.")
    names = CLASS_NAMES[name]
    rng = np.random.default_rng([ROLES[name], seed])
    sizes = {"toy10": np.full(10, 200), "toy100": np.full(100, 50),
             "toy101": rng.permutation(_uneven(101))}[name]
    labels = rng.permutation(np.repeat(np.arange(len(names)), sizes)).astype(np.int64)  # (n,)
    scenes = []
    for label, scene_seed in zip(labels, _seeds(name, seed, len(labels)), strict=True):
        *color, shape = names[label].split()
        surrounding = list(SURROUNDINGS)[rng.integers(len(SURROUNDINGS))]
        color = color[0] if color else list(COLORS)[rng.integers(len(COLORS))]
        scenes.append(Scene(shape, color, surrounding, TEST_STYLES[name], scene_seed))
    ids = [f"{name}-{seed}-{row:05d}" for row in range(len(scenes))]
    return ToyTestSet(name, scenes, labels, list(names), ids)


def _uneven(classes):
    """Class sizes from 20 to 300, most of them small, as Caltech101's (31 to 800)."""
    return np.rint(20 * 15 ** (np.linspace(0, 1, classes) ** 4)).astype(int)  # (classes,)
