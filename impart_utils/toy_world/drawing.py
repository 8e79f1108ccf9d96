"""How the parts of a toy picture are drawn: objects and people from polygons, and what is behind them.

Where a part stands, its size and its tilt come from the caller: `scenes.draw` puts a picture together.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

COLORS = {
    "red": (214, 48, 49), "orange": (240, 140, 40), "yellow": (245, 210, 60), "green": (60, 160, 75),
    "blue": (50, 100, 210), "purple": (130, 70, 170), "pink": (240, 150, 185), "brown": (130, 85, 50),
    "white": (248, 248, 245), "black": (35, 35, 40),
}
INK, SKIN, WOOD, LEAF = (45, 42, 50), (238, 198, 165), (120, 85, 55), (70, 140, 70)


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


def mix(color, other, share):
    """The RGB that lies `share` (0 to 1) of the way from `color` to `other`."""
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
    paints = {"main": color, "dark": mix(color, (20, 20, 30), 0.35),
              "light": mix(color, (255, 255, 255), 0.55)}
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
    upper, lower = (mix(paint, glow, abs(light)) for paint in (upper, lower))
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
    pale, dim = mix(lower, (255, 255, 255), 0.35), mix(lower, (0, 0, 0), 0.18)
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
        walls = (mix(upper, (90, 95, 120), 0.35), mix(upper, (120, 100, 100), 0.3))
        return [("rectangle", walls[i % 2],
                 (i * 0.22 - 0.1 * x, horizon - 0.2 - 0.4 * y, i * 0.22 + 0.17, horizon))
                for i, (x, y) in enumerate(spots[:5])]
    x, y = spots[0]  # a room: a window and the light on the floor
    return [("rectangle", (250, 250, 250), (0.7 * x, 0.08, 0.7 * x + 0.3, 0.42)),
            ("rectangle", (185, 215, 235), (0.7 * x + 0.03, 0.11, 0.7 * x + 0.27, 0.39)),
            ("polygon", pale, (0.5 * y, 0.85, 0.5 * y + 0.4, 0.85, 0.5 * y + 0.5, 0.95, 0.5 * y - 0.1, 0.95))]
