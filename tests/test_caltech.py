"""Caltech101's protocols: which pictures and classes each scores, from whole, partial and odd folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from impart_utils.config import MissingInput
from impart_utils.sources import caltech
from impart_utils.sources.caltech import COUNTS

SHARED = Path(__file__).parents[2] / "shared" / "data" / "caltech101" / "101_ObjectCategories"
NAMES = ["BACKGROUND_Google", "Faces", "Faces_easy", "accordion"]
LABELS = np.array([0, 0, 1, 1, 1, 2, 2, 3])
IDS = [f"{NAMES[label]}/image_{row:04d}.jpg" for row, label in enumerate(LABELS)]


def whole(without=()):
    """(class names, labels, ids) of the whole archive."""
    names = sorted(set(COUNTS) - set(without))
    labels = np.repeat(np.arange(len(names)), [COUNTS[name] for name in names])
    ids = [f"{name}/image_{number:04d}.jpg" for name in names for number in range(1, COUNTS[name] + 1)]
    return names, labels, ids


def test_the_counts_are_the_archives():
    pictures = {name: count for name, count in COUNTS.items() if name != caltech.BACKGROUND}
    assert len(pictures) == 101 and sum(pictures.values()) == 8677 and COUNTS[caltech.BACKGROUND] == 467
    known = {"Faces": 435, "Faces_easy": 435, "Leopards": 200, "Motorbikes": 798, "airplanes": 800,
             "inline_skate": 31, "flamingo_head": 45, "wheelchair": 59}
    assert {name: COUNTS[name] for name in known} == known
    assert min(pictures.values()) == 31 and max(pictures.values()) == 800
    assert sum(count - 30 for count in COUNTS.values()) == 6084  # VTAB's test part
    assert sum(pictures.values()) - COUNTS["Faces_easy"] == 8242  # CoOp's classes


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample of Caltech101 isn't here")
def test_the_counts_name_the_archives_folders():
    assert {place.name for place in SHARED.iterdir()} == set(COUNTS)
    for place in SHARED.iterdir():  # the sample keeps the archive's numbering
        assert max(int(path.stem[6:]) for path in place.iterdir()) <= COUNTS[place.name]


# ---- what each protocol scores ----

@pytest.mark.parametrize("protocol, rows, labels, classes", [
    ("torchvision", [2, 3, 4, 5, 6, 7], [0, 0, 0, 1, 1, 2], [1, 2, 3]),
    ("vtab", [0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 1, 1, 1, 2, 2, 3], [0, 1, 2, 3]),
    ("coop", [2, 3, 4, 7], [0, 0, 0, 1], [1, 3])])
def test_rows_labels_and_classes_by_hand(protocol, rows, labels, classes):
    found = caltech.select(protocol, NAMES, LABELS, IDS)
    assert found.rows.tolist() == rows and found.labels.tolist() == labels
    assert found.classes.tolist() == classes and found.labels.dtype == np.int64


def test_the_whole_archive_under_each_protocol():
    names, labels, ids = whole()
    for protocol, pictures, classes in (("torchvision", 8677, 101), ("vtab", 9144, 102), ("coop", 8242, 100)):
        found = caltech.select(protocol, names, labels, ids)
        assert (len(found.rows), len(found.classes)) == (pictures, classes)
        assert caltech.warning_text(protocol, "x", names, labels) == ""
        for label in range(classes):  # the labels mean the same classes as before
            assert set(labels[found.rows[found.labels == label]]) == {found.classes[label]}
    assert caltech.select("torchvision", names, labels, ids).notes == []
    assert caltech.select("vtab", names, labels, ids).notes == [
        "protocol vtab: all 9144 pictures of its classes, since its list of test pictures (vtab_test.txt) "
        "isn't here"]


def test_the_background_matters_for_vtab_alone():
    names, labels, ids = whole(without=[caltech.BACKGROUND])
    assert len(caltech.select("torchvision", names, labels, ids).rows) == 8677
    assert caltech.select("torchvision", names, labels, ids).notes == []
    assert len(caltech.select("coop", names, labels, ids).rows) == 8242
    assert caltech.possible(names) == ["torchvision", "coop"]
    with pytest.raises(MissingInput, match="vtab scores the background too, but BACKGROUND_Google isn't .*"
                                           "Unpack the archive again.*--set caltech=torchvision"):
        caltech.select("vtab", names, labels, ids)


def test_unknown_protocol_and_nothing_to_score():
    with pytest.raises(ValueError, match="Unknown protocol 'tfds' .*Known: torchvision, vtab, coop"):
        caltech.select("tfds", NAMES, LABELS, IDS)
    with pytest.raises(ValueError, match="Expected pictures of Caltech101's .*protocol coop, got none"):
        caltech.select("coop", ["BACKGROUND_Google", "Faces_easy"], [0, 1], ["a", "b"])


# ---- folders that aren't whole ----

def test_every_class_that_differs_is_listed():
    names, labels, ids = whole(without=["yin_yang"])
    short = np.ones(len(labels), bool)
    short[np.flatnonzero(labels == names.index("ant"))[:30]] = False  # 12 of 42
    short[np.flatnonzero(labels == names.index("emu"))[:3]] = False   # 50 of 53
    names, labels = [*names, "zebra"], np.append(labels[short], [len(names)] * 2)
    assert caltech.shortfall("torchvision", names, labels) == [
        ("ant", 12, 42), ("emu", 50, 53), ("yin_yang", 0, 60), ("zebra", 2, 0)]
    told = caltech.warning_text("torchvision", "pictures", names, labels)
    assert told.startswith("pictures: 8586 pictures in 101 classes, the whole set has 8677 in 101. ")
    assert "Found of expected: ant 12 of 42, emu 50 of 53, yin_yang 0 of 60, zebra 2 of 0." in told
    assert "half extracted (classes missing: 1, with less than half of their pictures: 1). Unpack" in told
    ids = [""] * len(labels)
    assert caltech.select("torchvision", names, labels, ids).notes == [
        "8586 pictures in 101 classes, the whole set has 8677 in 101; ant 12 of 42"]


def test_a_few_pictures_more_or_less_are_no_half_tree():
    names, labels, _ = whole()
    told = caltech.warning_text("torchvision", "x", names, np.append(labels, names.index("ant")))
    assert "ant 43 of 42" in told and "half extracted" not in told and "not comparable" in told


def test_equal_totals_do_not_hide_a_difference():
    names, labels, ids = whole()
    labels[np.flatnonzero(labels == names.index("ant"))[0]] = names.index("emu")
    assert caltech.shortfall("torchvision", names, labels) == [("ant", 41, 42), ("emu", 54, 53)]
    assert caltech.select("torchvision", names, labels, ids).notes == [
        "8677 pictures in 101 classes, the whole set has 8677 in 101; ant 41 of 42"]


# ---- lists of test pictures ----

def test_vtabs_list(tmp_path):
    (tmp_path / "vtab_test.txt").write_text(
        "background_google/image_0001.jpg\nfaces/image_0004.jpg 1\n\naccordion/image_0007.jpg\n"
        "faces/image_0004.jpg\n")  # small letters as TFDS has them, a label, an empty line, one twice
    found = caltech.select("vtab", NAMES, LABELS, IDS, beside=tmp_path)
    assert found.rows.tolist() == [1, 4, 7] and found.labels.tolist() == [0, 1, 3]
    assert found.classes.tolist() == [0, 1, 2, 3]
    assert found.notes[-1] == "protocol vtab: the 3 test pictures of vtab_test.txt"
    assert len(caltech.select("torchvision", NAMES, LABELS, IDS, beside=tmp_path).rows) == 6  # not its list


def coop_file(folder, names):
    split = {"train": [["Faces/image_0002.jpg", 0, "face"]], "val": [],
             "test": [[name, 0, "face"] for name in names]}
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split))


def test_coops_list(tmp_path):
    coop_file(tmp_path, ["accordion/image_0007.jpg", "Faces/image_0003.jpg"])
    found = caltech.select("coop", NAMES, LABELS, IDS, beside=tmp_path)
    assert found.rows.tolist() == [3, 7] and found.labels.tolist() == [0, 1]
    assert found.notes[-1] == "protocol coop: the 2 test pictures of split_zhou_Caltech101.json"


def test_a_list_with_pictures_that_are_not_here_says_how_many(tmp_path):
    coop_file(tmp_path, ["accordion/image_0007.jpg", "Faces/image_0099.jpg", "Faces_easy/image_0005.jpg"])
    found = caltech.select("coop", NAMES, LABELS, IDS, beside=tmp_path)
    assert found.rows.tolist() == [7]  # Faces_easy isn't among CoOp's classes, whatever a list says
    assert found.notes[-1].endswith("2 of its pictures aren't here")


def test_a_list_of_none_of_these_pictures(tmp_path):
    coop_file(tmp_path, ["101_ObjectCategories/Faces/image_0003.jpg"])
    with pytest.raises(ValueError, match="names none of the pictures here, the first: 101_obj.*Expected"):
        caltech.select("coop", NAMES, LABELS, IDS, beside=tmp_path)


@pytest.mark.parametrize("text", ["<html>", "[]", '{"train": []}', '{"test": [1, 2]}',
                                  '{"test": [[3, 0, "x"]]}', '{"test": [[]]}'])
def test_a_broken_split_file_is_named(tmp_path, text):
    (tmp_path / "split_zhou_Caltech101.json").write_text(text)
    with pytest.raises(ValueError, match="split_zhou_Caltech101.json isn't CoOp's split file .*Expected"):
        caltech.select("coop", NAMES, LABELS, IDS, beside=tmp_path)


def test_an_empty_list_is_named(tmp_path):
    (tmp_path / "vtab_test.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="vtab_test.txt names no test picture. Copy it again"):
        caltech.select("vtab", NAMES, LABELS, IDS, beside=tmp_path)


# ---- VTAB's rule ----

def test_drawn_as_tfds_draws_from_sorted_names():
    """TFDS's loop, as its source has it: seed 1234, then 30 names of each folder in turn."""
    names, labels, ids = whole()
    rows = caltech.drawn_by_tfds_rule(names, labels)
    random, expected = np.random.RandomState(1234), []
    for name in names:
        files = [path for path in ids if path.startswith(name + "/")]
        train = random.choice(files, 30, replace=False)
        expected += sorted(set(files).difference(train))
    assert [ids[row] for row in rows] == expected and len(rows) == 6084
    left = np.bincount(labels[rows])
    assert left[names.index(caltech.BACKGROUND)] == 437 and (left == np.bincount(labels) - 30).all()
    np.testing.assert_array_equal(rows, caltech.drawn_by_tfds_rule(names, labels))


def test_drawing_leaves_numpys_global_generator_alone():
    names, labels, _ = whole()
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    caltech.drawn_by_tfds_rule(names, labels)
    assert np.random.random() == expected


def test_a_sample_is_too_small_to_draw_from():
    with pytest.raises(ValueError, match="more than 30 pictures in each class, got 1 of accordion"):
        caltech.drawn_by_tfds_rule(NAMES, np.array([0] * 40 + [1] * 40 + [2] * 40 + [3]))
