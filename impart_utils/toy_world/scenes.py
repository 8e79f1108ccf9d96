"""The toy world's pictures and captions, drawn from a seed: image-text pairs and three test sets.

A picture is an object in a color before a surrounding, drawn in a style. Pairs (and what the tiny CLIP
learns from) come in three everyday styles; the test sets in two others, as CIFAR's shrunk pictures and
Caltech's cut-out objects differ from photographs on the web. Captions are of mixed quality, as Flickr's.
"""

import math
import random
import re
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from impart_utils.sources.features import atomic_path, content_hash

WORLD_VERSION = 1  # a change of anything below that changes a picture or a caption counts one up

COLORS = {
    "red": (214, 48, 49), "orange": (240, 140, 40), "yellow": (245, 210, 60), "green": (60, 160, 75),
    "blue": (50, 100, 210), "purple": (130, 70, 170), "pink": (240, 150, 185), "brown": (130, 85, 50),
    "white": (248, 248, 245), "black": (35, 35, 40),
}
SURROUNDINGS = {  # name -> how a caption says it
    "sea": "by the sea", "forest": "in the forest", "snow": "in the snow", "desert": "in the desert",
    "night": "at night", "meadow": "in the meadow", "city": "in the city", "room": "in a room",
}
INK, SKIN, WOOD, LEAF = (45, 42, 50), (238, 198, 165), (120, 85, 55), (70, 140, 70)

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


@dataclass(frozen=True)
class Character:
    """A person of the films. `named`: the tiny CLIP's captions give the name; otherwise only the look."""
    name: str
    hat: str  # "pointed", "tall" or "round"
    hat_color: str
    coat_color: str
    named: bool

    @property
    def look(self):
        return f"person with a {self.hat_color} hat and a {self.coat_color} coat"


CHARACTERS = {character.name: character for character in (
    Character("ada", "pointed", "red", "blue", named=True),
    Character("ben", "round", "green", "brown", named=True),
    Character("mia", "tall", "purple", "yellow", named=True),
    Character("leo", "tall", "black", "red", named=False),
    Character("zoe", "round", "yellow", "pink", named=False),
    Character("tom", "pointed", "blue", "white", named=False),
)}


# ---- objects: polygons in a square from -1 to 1 (y down), each with a paint ---------------------------

def _disk(x, y, rx, ry=None, start=0, stop=360, corners=20):
    angles = np.radians(np.linspace(start, stop, corners))
    return np.stack([x + rx * np.cos(angles), y + (ry or rx) * np.sin(angles)], axis=1)  # (corners, 2)


def _ring(x, y, outer, inner, start=0, stop=360):
    return np.concatenate([_disk(x, y, outer, None, start, stop), _disk(x, y, inner, None, stop, start)])


def _box(left, top, right, bottom):
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def _points(*numbers):
    return np.array(numbers, float).reshape(-1, 2)


def _star():
    radius, angles = np.tile([1.0, 0.45], 5), np.radians(np.arange(10) * 36 - 90)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _heart():
    t = np.linspace(0, 2 * np.pi, 28)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([np.sin(t) ** 3, -y / 16 - 0.1], axis=1)


def _moon():
    return np.concatenate([_disk(.1, 0, .95, None, 50.6, 309.4), _disk(.55, 0, .75, None, 281.8, 78.2)])


# paint: "main" the scene's color, "dark" and "light" shades of it, or an RGB
SHAPES = {
    "boat": [(INK, _box(-.05, -.9, .05, .4)), ("light", _points(.1, -.85, .85, .25, .1, .25)),
        ("light", _points(-.1, -.7, -.7, .25, -.1, .25)),
        ("main", _points(-1, .35, 1, .35, .6, .9, -.6, .9))],
    "car": [("light", _points(-.55, .05, -.35, -.5, .35, -.5, .65, .05)), ("main", _box(-1, 0, 1, .5)),
        (INK, _disk(-.5, .5, .27)), (INK, _disk(.5, .5, .27))],
    "bird": [("dark", _points(.3, 0, 1, -.45, .95, .2)), ("main", _disk(0, .1, .65, .45)),
        ("main", _disk(-.5, -.4, .35)), ("dark", _points(-.2, 0, .5, -.1, .2, .4)),
        ((240, 160, 50), _points(-.8, -.5, -1.1, -.3, -.8, -.25)), (INK, _disk(-.55, -.45, .08)),
        (INK, _box(-.1, .5, 0, .95)), (INK, _box(.15, .5, .25, .95))],
    "cat": [("main", _points(-.8, -.95, -.1, -.5, -.75, 0)), ("main", _points(.8, -.95, .1, -.5, .75, 0)),
        ("main", _disk(0, .15, .8, .7)), ((250, 250, 190), _disk(-.3, .05, .17)),
        ((250, 250, 190), _disk(.3, .05, .17)), (INK, _disk(-.3, .05, .07)), (INK, _disk(.3, .05, .07)),
        ((230, 120, 130), _points(-.13, .3, .13, .3, 0, .45))],
    "fish": [("dark", _points(.4, .0, 1, -.55, 1, .55)), ("main", _disk(-.2, 0, .75, .5)),
        ("dark", _points(-.2, -.15, .15, -.15, 0, .25)), ((255, 255, 255), _disk(-.6, -.12, .13)),
        (INK, _disk(-.62, -.12, .07))],
    "tree": [(WOOD, _box(-.15, .4, .15, 1)), ("main", _points(0, -.3, .85, .6, -.85, .6)),
        ("main", _points(0, -.7, .7, .15, -.7, .15)), ("main", _points(0, -1, .5, -.3, -.5, -.3))],
    "house": [("main", _box(-.7, -.1, .7, .9)), ("dark", _points(-1, -.1, 0, -.95, 1, -.1)),
        (INK, _box(-.15, .35, .2, .9)), ("light", _box(-.55, .1, -.25, .4)),
        ("light", _box(.35, .1, .6, .4))],
    "star": [("main", _star())],
    "cup": [("main", _ring(.6, 0, .42, .22)), ("main", _points(-.75, -.7, .65, -.7, .5, .8, -.6, .8)),
        ("dark", _disk(-.05, -.7, .7, .17))],
    "flower": [(LEAF, _box(-.06, 0, .06, 1)), (LEAF, _points(0, .8, .5, .45, .1, .6)),
        *(("main", _disk(x, y - .35, .3, corners=12)) for x, y in _disk(0, 0, .42, corners=7)[:6]),
        ((250, 225, 120), _disk(0, -.35, .25))],
    "heart": [("main", _heart())],
    "moon": [("main", _moon())],
    "mushroom": [((240, 228, 205), _points(-.25, 0, .25, 0, .35, .95, -.35, .95)),
        ("main", _disk(0, .1, 1, .95, 180, 360)), ("light", _disk(-.45, -.2, .17)),
        ("light", _disk(.1, -.5, .18)), ("light", _disk(.55, -.15, .14))],
    "kite": [("main", _points(0, -1, .65, -.35, 0, .45, -.65, -.35)),
        ("dark", _points(0, -1, .65, -.35, 0, -.35)), ("dark", _points(0, .45, -.65, -.35, 0, -.35)),
        (INK, _points(0, .45, .3, .7, .05, 1, .15, .7)), ("main", _points(.05, .6, .45, .5, .4, .85))],
    "apple": [("main", _disk(-.28, .15, .6, .72)), ("main", _disk(.28, .15, .6, .72)),
        (WOOD, _points(-.05, -.3, .05, -.3, .2, -.95, .08, -.95)),
        (LEAF, _points(.1, -.6, .5, -.95, .75, -.75, .4, -.55))],
    "umbrella": [(INK, _box(-.05, -.95, .05, .8)), (INK, _ring(.2, .75, .25, .14, 0, 180)),
        ("main", _disk(0, 0, 1, .85, 180, 360)), ("dark", _points(0, -.85, .35, 0, -.35, 0)),
        ("light", _points(.35, 0, .68, -.18, 1, 0)), ("light", _points(-.35, 0, -.68, -.18, -1, 0))],
    "key": [("main", _ring(-.55, 0, .45, .2)), ("main", _box(-.15, -.12, 1, .12)),
        ("main", _box(.5, .1, .65, .45)), ("main", _box(.82, .1, .97, .5))],
    "arrow": [("main", _points(-1, -.25, .1, -.25, .1, -.7, 1, 0, .1, .7, .1, .25, -1, .25))],
    "cloud": [("main", _disk(-.5, .15, .45)), ("main", _disk(.05, -.15, .55)), ("main", _disk(.55, .2, .42)),
        ("main", _box(-.5, .1, .55, .6))],
    "bell": [("dark", _disk(0, .72, .22)),
        ("main", _points(-.15, -.9, .15, -.9, .45, -.5, .55, .2, .9, .65, -.9, .65, -.55, .2, -.45, -.5)),
        ("dark", _box(-.9, .5, .9, .65))],
    "crown": [("main", _points(-1, -.6, -.5, 0, 0, -.85, .5, 0, 1, -.6, .75, .7, -.75, .7)),
        ("dark", _box(-.75, .4, .75, .7)), ("light", _disk(0, .15, .14))],
    "rocket": [((250, 170, 60), _points(-.25, .55, .25, .55, 0, 1.1)),
        ("dark", _points(-.3, .1, -.8, .75, -.2, .6)), ("dark", _points(.3, .1, .8, .75, .2, .6)),
        ("main", _points(0, -1.05, .28, -.6, .36, 0, .25, .65, -.25, .65, -.36, 0, -.28, -.6)),
        ("light", _disk(0, -.25, .18))],
}
HATS = {
    "pointed": [("hat", _points(0, -1.15, .5, -.35, -.5, -.35))],
    "tall": [("hat", _box(-.35, -1.1, .35, -.4)), ("hat", _box(-.65, -.5, .65, -.35))],
    "round": [("hat", _disk(0, -.35, .5, .5, 180, 360)), ("hat", _box(-.1, -.48, .75, -.35))],
}
PERSON = [("coat", _points(-.3, .35, .3, .35, .75, 1.05, -.75, 1.05)), (SKIN, _disk(0, 0, .45)),
          (INK, _disk(-.17, -.05, .07)), (INK, _disk(.17, -.05, .07)),
          ((190, 80, 80), _disk(0, .15, .16, .12, 0, 180))]


def _mix(color, other, share):
    return tuple(round((1 - share) * a + share * b) for a, b in zip(color, other, strict=True))


def _draw_parts(draw, parts, paints, box, *, angle=0.0, mirrored=False, outline=None, line=0.0):
    """Polygons scaled into `box` (left, top, right, bottom in pixels), tilted by `angle` degrees."""
    left, top, right, bottom = box
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[c, s], [-s, c]]) * [(right - left) / 2, (bottom - top) / 2]
    if mirrored:
        turn = np.array([[-1.0], [1.0]]) * turn
    center = ((left + right) / 2, (top + bottom) / 2)
    polygons = [(paints.get(paint, paint), (points @ turn + center).ravel().tolist())
                for paint, points in parts]
    if outline is not None:  # first all lines, so that they surround the whole object
        width = max(1, round(line * (right - left) / 2))
        for _, corners in polygons:
            draw.line(corners + corners[:4], fill=outline, width=width)
    for fill, corners in polygons:
        draw.polygon(corners, fill=fill)


def draw_shape(draw, shape, color, box, *, angle=0.0, mirrored=False, outline=None, line=0.0):
    """Draw one of SHAPES.

    Parameters
    ----------
    draw : ImageDraw of an RGB picture
    shape : str, a name of SHAPES
    color : (red, green, blue), the object's main color
    box : (left, top, right, bottom) in pixels
    angle : degrees, clockwise;  mirrored : bool
    outline : RGB or None;  line : its width as a share of half the box

    Raises
    ------
    ValueError : an unknown shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"Unknown shape {shape!r}. Known shapes: {', '.join(SHAPES)}.")
    paints = {"main": color, "dark": _mix(color, (20, 20, 30), 0.35),
              "light": _mix(color, (255, 255, 255), 0.55)}
    _draw_parts(draw, SHAPES[shape], paints, box, angle=angle, mirrored=mirrored, outline=outline, line=line)


def draw_character(draw, character, box, *, angle=0.0, mirrored=False, outline=None, line=0.0):
    """Draw a person: `character` is a Character or a name of CHARACTERS; the rest as in `draw_shape`."""
    who = CHARACTERS[character] if isinstance(character, str) else character
    paints = {"hat": COLORS[who.hat_color], "coat": COLORS[who.coat_color]}
    _draw_parts(draw, PERSON + HATS[who.hat], paints, box, angle=angle, mirrored=mirrored, outline=outline,
                line=line)


# ---- surroundings ------------------------------------------------------------------------------------

# name -> (upper color, lower color, height of the horizon as a share of the picture)
GROUNDS = {
    "sea": ((200, 225, 240), (95, 160, 200), 0.5), "forest": ((190, 215, 185), (115, 150, 100), 0.7),
    "snow": ((205, 215, 228), (240, 243, 248), 0.55), "desert": ((240, 225, 195), (225, 190, 130), 0.6),
    "night": ((48, 52, 88), (70, 72, 95), 0.75), "meadow": ((205, 230, 245), (150, 200, 120), 0.55),
    "city": ((222, 222, 226), (150, 150, 155), 0.8), "room": ((235, 220, 200), (175, 135, 105), 0.7),
}


def draw_surrounding(surrounding, size, rng):
    """A square background.

    Parameters
    ----------
    surrounding : str, a name of SURROUNDINGS;  size : int, pixels a side;  rng : random.Random

    Returns
    -------
    picture : RGB Image, size x size

    Raises
    ------
    ValueError : an unknown surrounding.
    """
    if surrounding not in GROUNDS:
        raise ValueError(f"Unknown surrounding {surrounding!r}. Known surroundings: {', '.join(GROUNDS)}.")
    upper, lower, horizon = GROUNDS[surrounding]
    light = rng.uniform(-0.12, 0.12)
    glow = (255, 255, 255) if light > 0 else (0, 0, 0)
    upper, lower = (_mix(paint, glow, abs(light)) for paint in (upper, lower))
    horizon += rng.uniform(-0.08, 0.08)
    picture = Image.new("RGB", (size, size), upper)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, horizon * size, size, size), fill=lower)
    for shape, paint, corners in _details(surrounding, upper, lower, horizon, rng):
        getattr(draw, shape)([size * number for number in corners], fill=paint)
    return picture


def _details(surrounding, upper, lower, horizon, rng):
    """A few things of the surrounding: ("polygon" | "ellipse" | "rectangle", RGB, numbers from 0 to 1)."""
    spots = [(rng.random(), rng.random()) for _ in range(8)]
    below = [(x, horizon + y * (1 - horizon)) for x, y in spots]
    pale, dim = _mix(lower, (255, 255, 255), 0.35), _mix(lower, (0, 0, 0), 0.18)
    if surrounding == "sea":
        return [("rectangle", pale, (x, y, x + 0.2, y + 0.02)) for x, y in below]
    if surrounding == "forest":
        return [("polygon", dim, (x, horizon - 0.3 - 0.3 * y, x + 0.14, horizon, x - 0.14, horizon))
                for x, y in spots[:6]]
    if surrounding == "snow":
        return [("ellipse", (252, 252, 255), (x, y, x + 0.06, y + 0.06)) for x, y in spots]
    if surrounding == "desert":
        return [("polygon", tint, (x - 0.5, horizon, x, horizon - 0.1 - 0.15 * y, x + 0.5, horizon))
                for (x, y), tint in zip(spots[:2], (pale, dim), strict=True)]
    if surrounding == "night":
        return [("ellipse", (235, 230, 190), (x, y * horizon, x + 0.035, y * horizon + 0.035))
                for x, y in spots]
    if surrounding == "meadow":
        petals = ((250, 250, 240), (245, 225, 130), (240, 190, 205))
        return [("ellipse", petals[i % 3], (x, y, x + 0.05, y + 0.05)) for i, (x, y) in enumerate(below)]
    if surrounding == "city":
        walls = (_mix(upper, (90, 95, 120), 0.35), _mix(upper, (120, 100, 100), 0.3))
        return [("rectangle", walls[i % 2],
                 (i * 0.22 - 0.1 * x, horizon - 0.2 - 0.4 * y, i * 0.22 + 0.17, horizon))
                for i, (x, y) in enumerate(spots[:5])]
    x, y = spots[0]  # a room: a window and the light on the floor
    return [("rectangle", (250, 250, 250), (0.7 * x, 0.08, 0.7 * x + 0.3, 0.42)),
            ("rectangle", (185, 215, 235), (0.7 * x + 0.03, 0.11, 0.7 * x + 0.27, 0.39)),
            ("polygon", pale, (0.5 * y, 0.85, 0.5 * y + 0.4, 0.85, 0.5 * y + 0.5, 0.95, 0.5 * y - 0.1, 0.95))]


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
    return _mix(jittered, (255, 255, 255), style.pale)


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
