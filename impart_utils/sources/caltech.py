"""Caltech101's three protocols: which pictures and classes are scored, all from one folder of pictures.

- *torchvision*, the paper's: all pictures of the 101 classes, without the background.
- *vtab*: 102 classes with the background; VTAB and TensorFlow Datasets (TFDS) take 30 random pictures a
  class away for training, and test on the other 6084.
- *coop*: 100 classes without the background and without Faces_easy, whose pictures show what Faces shows;
  CoOp tests on 2465 pictures named in its split file.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from impart_utils.config import MissingInput

BACKGROUND = "BACKGROUND_Google"
LEFT_OUT = {"torchvision": {BACKGROUND}, "vtab": set(), "coop": {BACKGROUND, "Faces_easy"}}
# lists of test pictures, looked for beside 101_ObjectCategories (data/README.md says how to get them)
SPLIT_FILES = {"vtab": "vtab_test.txt", "coop": "split_zhou_Caltech101.json"}
# pictures per folder of the whole archive: 8677 in 101 classes, and the background
COUNTS = dict(
    BACKGROUND_Google=467, Faces=435, Faces_easy=435, Leopards=200, Motorbikes=798, accordion=55,
    airplanes=800, anchor=42, ant=42, barrel=47, bass=54, beaver=46, binocular=33, bonsai=128, brain=98,
    brontosaurus=43, buddha=85, butterfly=91, camera=50, cannon=43, car_side=123, ceiling_fan=47,
    cellphone=59, chair=62, chandelier=107, cougar_body=47, cougar_face=69, crab=73, crayfish=70,
    crocodile=50, crocodile_head=51, cup=57, dalmatian=67, dollar_bill=52, dolphin=65, dragonfly=68,
    electric_guitar=75, elephant=64, emu=53, euphonium=64, ewer=85, ferry=67, flamingo=67, flamingo_head=45,
    garfield=34, gerenuk=34, gramophone=51, grand_piano=99, hawksbill=100, headphone=42, hedgehog=54,
    helicopter=88, ibis=80, inline_skate=31, joshua_tree=64, kangaroo=86, ketch=114, lamp=61, laptop=81,
    llama=78, lobster=41, lotus=66, mandolin=43, mayfly=40, menorah=87, metronome=32, minaret=76, nautilus=55,
    octopus=35, okapi=39, pagoda=47, panda=38, pigeon=45, pizza=53, platypus=34, pyramid=57, revolver=82,
    rhino=59, rooster=49, saxophone=40, schooner=63, scissors=39, scorpion=84, sea_horse=57, snoopy=35,
    soccer_ball=64, stapler=45, starfish=86, stegosaurus=59, stop_sign=64, strawberry=35, sunflower=85,
    tick=49, trilobite=86, umbrella=75, watch=239, water_lilly=37, wheelchair=59, wild_cat=34,
    windsor_chair=56, wrench=39, yin_yang=60)


@dataclass(frozen=True)
class Selection:
    """What a protocol scores, as rows of all pictures.

    Attributes
    ----------
    rows : int array (n,), rising;  labels : int64 array (n,), rows of `classes`
    classes : int array (c,), which of all classes are asked for
    notes : list of str, differences from what the paper scored
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    notes: list


def select(protocol, class_names, labels, ids, *, beside=None):
    """The pictures and classes that a protocol scores.

    Parameters
    ----------
    protocol : "torchvision", "vtab" or "coop"
    class_names : list of str, all folders of 101_ObjectCategories that are there
    labels : int array (m,), rows of class_names;  ids : list of m str, "CLASS/image_NNNN.jpg"
    beside : folder that may hold the protocol's list of test pictures, or None. Without the list all
        pictures of the protocol's classes are scored, and a note says so.

    Returns
    -------
    selection : Selection

    Raises
    ------
    config.MissingInput : vtab without the background pictures.
    ValueError : an unknown protocol, or a list that can't be read or names none of these pictures.
    """
    if protocol not in LEFT_OUT:
        raise ValueError(f"Unknown protocol {protocol!r} of Caltech101. Known: {', '.join(LEFT_OUT)}.")
    if protocol not in possible(class_names):
        raise MissingInput(f"Caltech101's protocol vtab scores the background too, but {BACKGROUND} isn't "
                           "among the pictures. Unpack the archive again (python -m "
                           "impart_utils.sources.datasets caltech101), or take --set caltech=torchvision.")
    labels = np.asarray(labels)
    classes = np.array([row for row, name in enumerate(class_names) if name not in LEFT_OUT[protocol]], int)
    rows = np.flatnonzero(np.isin(labels, classes))
    if not len(rows):
        raise ValueError(f"Expected pictures of Caltech101's classes for protocol {protocol}, got none. "
                         "Unpack the archive again: python -m impart_utils.sources.datasets caltech101")
    different = shortfall(protocol, class_names, labels)
    notes = [_totals(protocol, len(rows), len(classes)) + f"; {_listed(different[:1])}"] if different else []
    if protocol in SPLIT_FILES:
        rows, note = _listed_rows(protocol, beside, ids, rows)
        notes.append(note)
    return Selection(rows, np.searchsorted(classes, labels[rows]).astype(np.int64), classes, notes)


def possible(class_names):
    """The protocols that these classes allow: vtab needs the background."""
    return [protocol for protocol in LEFT_OUT if protocol != "vtab" or BACKGROUND in class_names]


def shortfall(protocol, class_names, labels):
    """The protocol's classes with more or fewer pictures than the archive has: [(class, found, expected)]."""
    found = dict(zip(class_names, np.bincount(labels, minlength=len(class_names)).tolist(), strict=True))
    every = [name for name in {**COUNTS, **found} if name not in LEFT_OUT[protocol]]
    return [(name, found.get(name, 0), COUNTS.get(name, 0)) for name in every
            if found.get(name, 0) != COUNTS.get(name, 0)]


def warning_text(protocol, folder, class_names, labels):
    """What to tell a user whose folder isn't the whole archive; "" where it is."""
    different = shortfall(protocol, class_names, labels)
    if not different:
        return ""
    scored = np.flatnonzero([name not in LEFT_OUT[protocol] for name in class_names])
    text = (f"{folder}: {_totals(protocol, int(np.isin(labels, scored).sum()), len(scored))}. "
            f"Results are marked 'not comparable'. Found of expected: {_listed(different)}.")
    missing = sum(found == 0 for _, found, _ in different)
    few = sum(0 < found < expected / 2 for _, found, expected in different)
    if missing or few:
        text += (f" It looks half extracted (classes missing: {missing}, with less than half of their "
                 f"pictures: {few}). Unpack it again: python -m impart_utils.sources.datasets caltech101")
    return text


def drawn_by_tfds_rule(class_names, labels, *, train=30, seed=1234):
    """Rows of vtab's test part, drawn anew by TFDS's rule: `train` random pictures a class are left out.

    TFDS (image_classification/caltech.py, 3.0) draws in the order in which the file system lists folders and
    files, so its own list can differ; how many pictures of each class are scored is the same.

    Parameters
    ----------
    class_names : list of str, rising;  labels : int array (m,), pictures in the order of their names

    Returns
    -------
    rows : int array (n,), rising

    Raises
    ------
    ValueError : a class with `train` pictures or fewer.
    """
    labels, kept = np.asarray(labels), []
    sizes = np.bincount(labels, minlength=len(class_names))
    if sizes.min() <= train:
        raise ValueError(f"Expected more than {train} pictures in each class, got {sizes.min()} of "
                         f"{class_names[int(sizes.argmin())]}. Use the whole archive.")
    random = np.random.RandomState(seed)  # numpy's old generator, as TFDS seeds it
    for label in range(len(class_names)):
        rows = np.flatnonzero(labels == label)
        kept.append(np.setdiff1d(rows, random.choice(rows, train, replace=False)))
    return np.sort(np.concatenate(kept))


def _totals(protocol, pictures, classes):
    whole = [count for name, count in COUNTS.items() if name not in LEFT_OUT[protocol]]
    return f"{pictures} pictures in {classes} classes, the whole set has {sum(whole)} in {len(whole)}"


def _listed(different):
    return ", ".join(f"{name} {found} of {expected}" for name, found, expected in different)


def _listed_rows(protocol, beside, ids, rows):
    """The rows that the protocol's list names, and a note; without the list all rows."""
    path = None if beside is None else Path(beside) / SPLIT_FILES[protocol]
    if path is None or not path.is_file():
        return rows, (f"protocol {protocol}: all {len(rows)} pictures of its classes, since its list of test "
                      f"pictures ({SPLIT_FILES[protocol]}) isn't here")
    wanted = read_list(path)
    places = {ids[row].lower(): row for row in rows}  # TFDS writes class names in small letters
    found = np.unique([places[name] for name in wanted if name in places]).astype(int)
    if not len(found):
        raise ValueError(f"{path} names none of the pictures here, the first: {wanted[0]}. Expected lines or "
                         "entries such as Faces/image_0001.jpg.")
    missing = f", {len(wanted) - len(found)} of its pictures aren't here" if len(found) < len(wanted) else ""
    return found, f"protocol {protocol}: the {len(found)} test pictures of {path.name}{missing}"


def read_list(path):
    """The test pictures that a list names, in small letters: "faces/image_0001.jpg".

    Parameters
    ----------
    path : CoOp's split_zhou_Caltech101.json ({"test": [[path, label, class name], …], …}), or a text file
        with one path a line; what follows the path on its line, such as a label, is passed over
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    try:
        names = ([entry[0] for entry in json.loads(text)["test"]] if path.suffix == ".json"
                 else [line.split()[0] for line in text.splitlines() if line.split()])
        names = list(dict.fromkeys(name.lower() for name in names))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} isn't CoOp's split file ({type(error).__name__}: {error}). Expected "
                         '{"test": [["Faces/image_0001.jpg", 0, "face"], …], …}.') from error
    if not names:
        raise ValueError(f"{path} names no test picture. Copy it again.")
    return names
