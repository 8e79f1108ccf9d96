"""The toy world's films: 12 movies of 4 short clips, with the truth about every scene.

The clips of a movie share their cast of two, their surroundings, colors and manner of drawing, so that they
look alike as clips of a real movie do; no object appears twice in a movie, so that they can be told apart.
"""

import dataclasses
import json
import math
import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from PIL import ImageDraw

from impart_utils.sources.features import atomic_path
from impart_utils.toy_world import scenes as world

FILMS_VERSION = 1  # a change below that changes a frame or a text counts one up
SIZE = 64          # pixels a side
RATE = Fraction(25, 2)  # frames per second; 4 samples a second thus fall between frames
CLIPS = 4
TITLES = ("The Lantern Keeper", "A Long Way to Plum Hill", "Summer on Mill Street", "The Quiet Harbor",
          "Paper Wings", "The Last Ferry", "The Baker's Map", "Letters to Nobody", "Nine Small Wishes",
          "The Clockmaker", "Tomorrow's Orchard", "A Song for Later")


@dataclass(frozen=True)
class FilmScene:
    """One shot: from `start` to `end` in seconds, what it shows, and the names of who is on the screen."""

    start: float
    end: float
    description: str
    description_without_names: str
    characters: list


@dataclass(frozen=True)
class Film:
    """A clip: its file, the movie it is from, texts with and without names, its scenes and its cast."""

    id: str
    path: Path
    movie: str
    title: str
    description: str
    description_without_names: str
    scenes: list
    characters: list


@dataclass(frozen=True)
class _Shot:
    """What a scene shows and how long: at least one of `who` and `shape`; `seed` decides all motion."""

    who: str | None
    color: str | None
    shape: str | None
    surrounding: str
    frames: int
    seed: str


@dataclass(frozen=True)
class _Movie:
    title: str
    cast: tuple
    surroundings: list
    colors: list
    shapes: list  # each used once
    style: str


def make_films(folder, seed=0):
    """The films of a seed, written to `folder` on the first call and found there later.

    Parameters
    ----------
    folder : where the MP4 files and films.json go; films of another seed or version are replaced
    seed : int

    Returns
    -------
    list of 48 `Film`, the clips of a movie next to each other
    """
    folder = Path(folder)
    films, record = _read(folder, seed)
    if films:
        return films
    for number, movie in enumerate(_movies(seed)):
        for clip in range(CLIPS):
            shots = _shots(movie, clip, f"{seed}-{number}-{clip}")
            film = _film(folder, movie, clip, shots)
            with atomic_path(film.path) as temporary:
                _write(temporary, shots, movie.style)
            films.append(film)
    # films.json comes last: after a kill it is missing or older, and all films are made again
    rows = [{**dataclasses.asdict(film), "path": film.path.name} for film in films]
    with atomic_path(folder / "films.json") as temporary:
        temporary.write_text(json.dumps({**record, "films": rows}, indent=1) + "\n", encoding="utf-8")
    return films


def _read(folder, seed):
    """(the films of films.json, or an empty list unless all are there; what films.json must say)."""
    record = {"world_version": world.WORLD_VERSION, "films_version": FILMS_VERSION, "seed": seed}
    path = folder / "films.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if {name: known.get(name) for name in record} != record:
        path.unlink(missing_ok=True)  # it must not vouch for what is written from here on
        return [], record
    films = [Film(**{**row, "path": folder / row["path"],
                     "scenes": [FilmScene(**scene) for scene in row["scenes"]]}) for row in known["films"]]
    return (films if all(film.path.exists() for film in films) else []), record


# ---- the stories -------------------------------------------------------------------------------------

def _movies(seed):
    """12 movies; no two share both characters, and each character is in four of them."""
    rng = random.Random(f"movies {seed}")
    names = rng.sample(list(world.CHARACTERS), 6)
    pairs = []
    for turn in range(4):  # rounds of a tournament: the first sits still, the others move up one seat
        seats = [names[0], *(names[1:][(place + turn) % 5] for place in range(5))]
        pairs += [(seats[place], seats[-1 - place]) for place in range(3)]
    rng.shuffle(pairs)
    return [_Movie(title, cast, rng.sample(list(world.SURROUNDINGS), 2), rng.sample(list(world.COLORS), 4),
                   rng.sample(list(world.SHAPES), 4 * CLIPS), rng.choice(("flat", "inked")))
            for title, cast in zip(TITLES, pairs, strict=True)]


def _shots(movie, clip, seed):
    """Four or five shots in mixed order: both of the cast with an object, one alone, and objects alone."""
    rng = random.Random(f"clip {seed}")
    first, second = rng.sample(movie.cast, 2)
    plan = [(first, True), (second, True), (first, False), (None, True)]
    if rng.random() < 0.5:
        plan.append((None, True))
    rng.shuffle(plan)
    shapes = iter(movie.shapes[4 * clip:4 * clip + 4])
    shots = []
    for number, (who, with_object) in enumerate(plan):
        color, shape = (rng.choice(movie.colors), next(shapes)) if with_object else (None, None)
        frames = rng.randint(*((25, 37) if len(plan) == 4 else (20, 30)))  # 1.6 to 3 s; 8 to 12 s in all
        place = rng.choice(movie.surroundings)
        shots.append(_Shot(who, color, shape, place, frames, f"shot {seed}-{number}"))
    return shots


def _film(folder, movie, clip, shots):
    scenes, begin = [], 0
    for shot in shots:
        end = begin + shot.frames
        scenes.append(FilmScene(float(begin / RATE), float(end / RATE), _sentence([_tell(shot, names=True)]),
                                _sentence([_tell(shot, names=False)]), [shot.who] if shot.who else []))
        begin = end
    told = [shot for shot in shots if shot.who and shot.shape]  # the two that tell the story
    things = [shot for shot in shots if shot.shape]
    name = "".join(letter if letter.isalnum() else "-" for letter in movie.title.lower().replace("'", ""))
    return Film(f"{name}-{clip + 1}", folder / f"{name}-{clip + 1}.mp4", movie.title,
                f"The {things[0].color} {things[0].shape}".title(),
                _sentence([_tell(shot, names=True) for shot in told]),
                _sentence([_tell(shot, names=False) for shot in told]), scenes,
                [who for who in movie.cast if any(shot.who == who for shot in shots)])


def _tell(shot, names):
    """A shot in words: "Ada finds a red star in the snow"."""
    who = shot.who and (shot.who.capitalize() if names else "a person")
    thing = shot.shape and f"{'an' if shot.color[0] in 'aeiou' else 'a'} {shot.color} {shot.shape}"
    place = world.SURROUNDINGS[shot.surrounding]
    return " ".join(word for word in (who, "finds" if who and thing else None, thing, place) if word)


def _sentence(parts):
    text = ", then ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


# ---- the pictures ------------------------------------------------------------------------------------

def _write(path, shots, style):
    """The shots one after the other as an MP4 file (H.264)."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = SIZE
        # mbtree off: on pictures this small it reads memory it never wrote, and films differ from run to run
        stream.options = {"crf": "20", "preset": "veryfast", "x264-params": "mbtree=0"}
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # more only cost time on pictures this small
        for shot in shots:
            for picture in _pictures(shot, style):
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def _pictures(shot, style):
    """One picture per frame: person and object drift and sway before a still background."""
    rng, fine = random.Random(shot.seed), 2 * SIZE  # drawn twice as large, for smooth edges
    background = world.draw_surrounding(shot.surrounding, fine, rng)
    line = {"outline": world.STYLES[style].outline, "line": world.STYLES[style].line}
    both = shot.who is not None and shot.shape is not None
    left_right = rng.sample((0.27, 0.73), 2)
    sides, radius = (left_right, (0.24, 0.28)) if both else ([0.5, 0.5], (0.31, 0.38))
    things = zip((shot.who, shot.shape), sides, strict=True)
    movers = [(thing, _motion(rng, side, radius)) for thing, side in things if thing]
    for frame in range(shot.frames):
        picture = background.copy()
        brush = ImageDraw.Draw(picture)
        for thing, motion in movers:
            place = _place(motion, frame, shot.frames, fine)
            if thing == shot.who:
                world.draw_character(brush, thing, **place, **line)
            else:
                world.draw_shape(brush, thing, world.COLORS[shot.color], **place, **line)
        yield picture.reduce(2)


def _motion(rng, side, radius):
    """Where a thing is and how it moves, in shares of the picture's side and degrees."""
    return {"radius": rng.uniform(*radius), "x": side, "y": rng.uniform(0.47, 0.53),
            "drift_x": rng.uniform(-0.06, 0.06), "drift_y": rng.uniform(-0.06, 0.06),
            "mirrored": rng.random() < 0.5, "sway": rng.uniform(4, 12), "phase": rng.uniform(0, 2 * math.pi)}


def _place(motion, frame, frames, fine):
    along = 2 * frame / frames - 1  # from -1 to 1
    x, y = motion["x"] + motion["drift_x"] * along, motion["y"] + motion["drift_y"] * along
    r = motion["radius"]
    angle = motion["sway"] * math.sin(motion["phase"] + 2 * math.pi * frame / float(RATE))
    return {"box": (fine * (x - r), fine * (y - r), fine * (x + r), fine * (y + r)), "angle": angle,
            "mirrored": motion["mirrored"]}
