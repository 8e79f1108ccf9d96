"""Labelled pictures from folders and archives: what is read, what is said about it, what is refused."""

import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impart_utils import config
from impart_utils.config import MissingInput, load_config
from impart_utils.sources import caltech, datasets
from impart_utils.sources.archives import unpack
from impart_utils.sources.datasets import all_pictures, load_dataset

SHARED = Path(__file__).parents[2] / "shared" / "data"


def picture(shade, size=(6, 4), mode="RGB"):
    return Image.new("RGB", size, (shade, 10, 200 - shade)).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """zebra: 3 pictures, Ant: 2, cat: 4; capitals sort first."""
    for name, count in (("zebra", 3), ("Ant", 2), ("cat", 4)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for row in range(count):
            picture(10 * row).save(tmp_path / "pets" / name / f"{row}.png")
    return tmp_path / "pets"


# ---- a folder of one's own ----

def test_folder(folder):
    dataset = load_dataset(f"folder:{folder}", load_config())
    assert dataset.class_names == ["Ant", "cat", "zebra"]
    np.testing.assert_array_equal(dataset.labels, [0, 0, 1, 1, 1, 1, 2, 2, 2])
    assert dataset.labels.dtype == np.int64
    assert dataset.ids == [
        "Ant/0.png",
        "Ant/1.png",
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "cat/3.png",
        "zebra/0.png",
        "zebra/1.png",
        "zebra/2.png",
    ]
    assert len(dataset.pictures) == dataset.n_available == 9 and dataset.title == "pets"
    assert dataset.pictures[5].getpixel((0, 0)) == (30, 10, 170)  # cat/3
    assert dataset.notes == ["a folder of 9 pictures, not a data set of the paper"]


def test_items_open_their_own_picture_when_asked(folder):
    items = load_dataset(f"folder:{folder}", load_config()).items()
    assert [name for name, _ in items][3] == "cat/1.png"
    assert [item().getpixel((0, 0))[0] for _, item in items] == [0, 10, 0, 10, 20, 30, 0, 10, 20]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_pictures_of_any_mode_come_as_rgb(tmp_path, mode):
    (tmp_path / "set" / "a").mkdir(parents=True)
    suffix = "tif" if mode == "CMYK" else "png"
    picture(50, mode=mode).save(tmp_path / "set" / "a" / f"x.{suffix}")
    if suffix == "tif":
        (tmp_path / "set" / "a" / "x.tif").rename(
            tmp_path / "set" / "a" / "x.jpg"
        )  # a wrong suffix is no fault
    assert load_dataset(f"folder:{tmp_path / 'set'}", load_config()).pictures[0].mode == "RGB"


def test_other_files_and_hidden_ones_are_passed_over(folder):
    (folder / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "cat" / "._0.png").write_bytes(b"x")
    (folder / "readme.md").write_text("x")
    (folder / ".ipynb_checkpoints").mkdir()
    picture(70).save(folder / "cat" / "BIG.JPG", format="JPEG")
    dataset = load_dataset(f"folder:{folder}", load_config())
    assert (
        dataset.class_names == ["Ant", "cat", "zebra"]
        and "cat/BIG.JPG" in dataset.ids
        and len(dataset.ids) == 10
    )


def test_a_relative_path_counts_from_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert len(load_dataset(load_config(datasets="folder:pets").datasets[0], load_config()).ids) == 9


def test_a_broken_picture_fails_when_it_is_opened_not_before(folder):
    (folder / "cat" / "1.png").write_bytes(b"not a picture")
    dataset = load_dataset(f"folder:{folder}", load_config())
    assert dataset.pictures[2].size == (6, 4)
    with pytest.raises(OSError, match="cannot identify"):
        dataset.pictures[3]


def test_folders_that_hold_nothing(folder, tmp_path):
    with pytest.raises(MissingInput, match="There is no folder .*nowhere"):
        load_dataset(f"folder:{tmp_path / 'nowhere'}", load_config())
    (folder / "dog").mkdir()
    with pytest.raises(
        ValueError, match=r"no picture in .*dog \(looked for .jpg.*Remove the folder or fill it"
    ):
        load_dataset(f"folder:{folder}", load_config())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no folder of pictures in .*empty. Expected one folder per class"):
        load_dataset(f"folder:{tmp_path / 'empty'}", load_config())


# ---- limit, key, names ----

def test_limit_is_always_the_same_subset(folder):
    whole, part = (load_dataset(f"folder:{folder}", load_config(limit=limit)) for limit in (None, 5))
    again = load_dataset(f"folder:{folder}", load_config(limit=5, seed=7))
    assert part.ids == again.ids and len(part.ids) == len(part.pictures) == len(part.labels) == 5
    assert (
        part.ids == [name for name in whole.ids if name in part.ids] != whole.ids[:5]
    )  # in order, but not the first
    assert part.n_available == 9 and part.notes[-1] == "a subset of 5 of 9 pictures"
    for row, name in enumerate(part.ids):
        place = whole.ids.index(name)
        assert part.labels[row] == whole.labels[place]
        assert part.pictures[row].tobytes() == whole.pictures[place].tobytes()
        assert part.items()[row][1]().tobytes() == whole.pictures[place].tobytes()


@pytest.mark.parametrize("limit", [9, 100])
def test_a_limit_that_cuts_nothing(folder, limit):
    dataset = load_dataset(f"folder:{folder}", load_config(limit=limit))
    assert len(dataset.ids) == 9 and not any("subset" in note for note in dataset.notes)


def test_key_depends_on_names_and_labels(folder):
    first = load_dataset(f"folder:{folder}", load_config())
    assert first.key == load_dataset(f"folder:{folder}", load_config()).key
    keys = {first.key, load_dataset(f"folder:{folder}", load_config(limit=5)).key}
    (folder / "zebra" / "2.png").rename(folder / "cat" / "4.png")
    keys.add(load_dataset(f"folder:{folder}", load_config()).key)
    assert len(keys) == 3


def test_key_changes_with_the_pictures_behind_the_names(folder):
    """The cache is keyed by it: another picture under an old name must not get the old features."""
    before = load_dataset(f"folder:{folder}", load_config()).key
    picture(99, size=(60, 40)).save(folder / "cat" / "1.png")
    os.utime(folder / "cat" / "1.png", (1, 1))
    assert load_dataset(f"folder:{folder}", load_config()).key != before


def test_key_tells_folders_of_one_name_apart(folder, tmp_path):
    other = tmp_path / "elsewhere" / "pets"
    for path in sorted(folder.rglob("*.png")):
        place = other / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        picture(123, size=(50, 50)).save(place)
    first, second = (load_dataset(f"folder:{place}", load_config()) for place in (folder, other))
    assert first.ids == second.ids and first.key != second.key


@pytest.mark.parametrize("name", ["imagenet", "CIFAR10", "folder", "folder:", "toy10:somewhere", "toy11", ""])
def test_unknown_names_list_the_known(name):
    with pytest.raises(
        ValueError,
        match=f"Unknown data set '{name}'. Known: toy10, toy100, toy101, cifar10, cifar100, "
        "caltech101, folder:PATH, pack:FILE",
    ):
        load_dataset(name, load_config())


# ---- Caltech101 ----

def caltech_tree(root, classes=("Faces", "accordion", "BACKGROUND_Google")):
    for name in classes:
        (root / "101_ObjectCategories" / name).mkdir(parents=True)
        for row in (1, 2, 5):  # a gap in the numbering
            picture(row).save(root / "101_ObjectCategories" / name / f"image_{row:04d}.jpg")
    return root


PARTIAL = pytest.mark.filterwarnings("ignore:.*the whole set has:UserWarning")  # said of every small tree


@PARTIAL
def test_caltech_without_background_and_with_gaps(tmp_path):
    for place in (caltech_tree(tmp_path), tmp_path / "101_ObjectCategories"):
        dataset = load_dataset(f"caltech101:{place}", load_config())
        assert dataset.class_names == ["Faces", "accordion"]
        assert len(dataset.ids) == 6 and dataset.ids[2] == "Faces/image_0005.jpg"
        np.testing.assert_array_equal(dataset.labels, [0, 0, 0, 1, 1, 1])
        assert dataset.notes == ["6 pictures in 2 classes, the whole set has 8677 in 101; Faces 3 of 435"]
        assert (dataset.name, dataset.title, dataset.n_available) == ("caltech101", "Caltech101", 6)


def test_caltech_that_is_not_whole_is_a_warning_with_the_classes(tmp_path):
    with pytest.warns(UserWarning, match="6 pictures in 2 classes, the whole set has 8677 in 101.*Faces 3 of "
                                         "435, Faces_easy 0 of 435, .*yin_yang 0 of 60.*half extracted"):
        load_dataset(f"caltech101:{caltech_tree(tmp_path)}", load_config())


def test_a_whole_caltech_says_nothing(tmp_path, recwarn, monkeypatch):
    monkeypatch.setattr(caltech, "COUNTS", {"Faces": 3, "accordion": 3, "BACKGROUND_Google": 467})
    dataset = load_dataset(f"caltech101:{caltech_tree(tmp_path)}", load_config())
    assert dataset.notes == [] and not recwarn.list  # the background's 3 of 467 don't matter here
    with pytest.warns(UserWarning, match="BACKGROUND_Google 3 of 467"):
        load_dataset(f"caltech101:{tmp_path}", load_config(caltech="vtab"))


@PARTIAL
def test_an_empty_caltech_folder_is_a_missing_class(tmp_path):
    """What an interrupted extraction leaves: a folder without pictures."""
    folder = caltech_tree(tmp_path) / "101_ObjectCategories"
    (folder / "Leopards").mkdir()
    (folder / ".ipynb_checkpoints").mkdir()
    with pytest.warns(UserWarning, match="Leopards 0 of 200"):
        dataset = load_dataset(f"caltech101:{tmp_path}", load_config())
    assert dataset.class_names == ["Faces", "accordion"]


@PARTIAL
@pytest.mark.parametrize("protocol, classes, count", [
    ("torchvision", ["Faces", "Faces_easy", "accordion"], 9),
    ("vtab", ["BACKGROUND_Google", "Faces", "Faces_easy", "accordion"], 12),
    ("coop", ["Faces", "accordion"], 6)])
def test_caltechs_protocols_choose_among_the_same_pictures(tmp_path, protocol, classes, count):
    caltech_tree(tmp_path, ("Faces", "accordion", "BACKGROUND_Google", "Faces_easy"))
    settings = load_config(caltech=protocol)
    dataset, everything = (read(f"caltech101:{tmp_path}", settings) for read in (load_dataset, all_pictures))
    assert dataset.class_names == classes and len(dataset.ids) == dataset.n_available == count
    for row, name in enumerate(dataset.ids):
        assert dataset.class_names[dataset.labels[row]] == name.split("/")[0]
        place = everything.ids.index(name)
        assert dataset.pictures[row].tobytes() == everything.pictures[place].tobytes()
    assert len(everything.ids) == 12 and len(everything.class_names) == 4
    assert everything.key == all_pictures(f"caltech101:{tmp_path}", load_config()).key


@PARTIAL
def test_caltechs_lists_lie_beside_its_folder(tmp_path):
    caltech_tree(tmp_path)
    (tmp_path / "vtab_test.txt").write_text("accordion/image_0002.jpg\nbackground_google/image_0005.jpg\n")
    for place in (tmp_path, tmp_path / "101_ObjectCategories"):
        dataset = load_dataset(f"caltech101:{place}", load_config(caltech="vtab"))
        assert dataset.ids == ["BACKGROUND_Google/image_0005.jpg", "accordion/image_0002.jpg"]
        assert dataset.n_available == 2 and dataset.labels.tolist() == [0, 2]
        assert dataset.class_names == ["BACKGROUND_Google", "Faces", "accordion"]


@PARTIAL
def test_vtab_without_background_says_what_to_do(tmp_path):
    caltech_tree(tmp_path, ("Faces", "accordion"))
    with pytest.raises(MissingInput, match="BACKGROUND_Google isn't among .*--set caltech=torchvision"):
        load_dataset(f"caltech101:{tmp_path}", load_config(caltech="vtab"))
    assert len(all_pictures(f"caltech101:{tmp_path}", load_config(caltech="vtab")).ids) == 6


@PARTIAL
def test_a_limit_keeps_so_many_of_each_protocol_from_one_set_of_pictures(tmp_path):
    caltech_tree(tmp_path, ("Faces", "accordion", "BACKGROUND_Google", "Faces_easy"))
    name, rest = f"caltech101:{tmp_path}", set()
    keys = {all_pictures(name, load_config(limit=4, caltech=each)).key for each in config.CALTECH}
    everything = all_pictures(name, load_config(limit=4))
    for protocol in config.CALTECH:
        part = load_dataset(name, load_config(limit=4, caltech=protocol))
        whole = load_dataset(name, load_config(caltech=protocol))
        assert len(part.ids) == 4 and set(part.ids) <= set(everything.ids) and part.ids == sorted(part.ids)
        assert part.n_available == len(whole.ids)
        assert part.notes[-1] == f"a subset of 4 of {len(whole.ids)} pictures"
        assert [part.class_names[label] for label in part.labels] == [name.split("/")[0] for name in part.ids]
        rest |= set(part.ids)
    assert rest == set(everything.ids) and len(keys) == 1


def test_caltech_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    for name in ("caltech101", f"caltech101:{tmp_path}"):
        with pytest.raises(MissingInput) as error:
            load_dataset(name, load_config())
        assert "101_ObjectCategories is missing" in str(error.value)
        assert "python -m impart_utils.sources.datasets caltech101" in str(error.value)
        assert "--set datasets=caltech101:PATH" in str(error.value)


@PARTIAL
@pytest.mark.skipif(not (SHARED / "caltech101").is_dir(), reason="the shared sample of Caltech101 isn't here")
def test_the_shared_sample_of_caltech():
    dataset = load_dataset(f"caltech101:{SHARED / 'caltech101'}", load_config())
    assert len(dataset.ids) == len(dataset.labels) == 808 and len(dataset.class_names) == 101
    assert set(np.bincount(dataset.labels)) == {8}
    assert "BACKGROUND_Google" not in dataset.class_names
    assert dataset.class_names[:4] == [
        "Faces",
        "Faces_easy",
        "Leopards",
        "Motorbikes",
    ]  # capitals first, as torchvision
    assert dataset.notes == ["808 pictures in 101 classes, the whole set has 8677 in 101; Faces 8 of 435"]
    grey = next(row for row in range(808) if Image.open(dataset.folder / dataset.ids[row]).mode == "L")
    assert dataset.pictures[grey].mode == "RGB"


# ---- CIFAR ----

@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """Files as torchvision has them, with few pictures; torchvision is told their hashes."""
    import torchvision

    rng = np.random.default_rng(0)
    planes = rng.integers(0, 256, (12, 3072), dtype=np.uint8)  # red plane, green, blue
    labels = rng.integers(0, 10, 12).tolist()
    layouts = {
        torchvision.datasets.CIFAR10: (
            ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
            "test_batch",
            "batches.meta",
            "label_names",
            "labels",
            list("abcdefghij"),
        ),
        torchvision.datasets.CIFAR100: (
            ["train"],
            "test",
            "meta",
            "fine_label_names",
            "fine_labels",
            [f"fine_{row}" for row in range(100)],
        ),
    }
    for kind, (train, test, meta, names_key, labels_key, names) in layouts.items():
        folder, hashes = tmp_path / kind.base_folder, {}
        folder.mkdir()
        for name in (*train, test, meta):
            content = {names_key: names} if name == meta else {"data": planes, labels_key: labels}
            (folder / name).write_bytes(pickle.dumps(content))
            hashes[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
        monkeypatch.setattr(kind, "train_list", [[name, hashes[name]] for name in train])
        monkeypatch.setattr(kind, "test_list", [[test, hashes[test]]])
        monkeypatch.setattr(kind, "meta", {"filename": meta, "key": names_key, "md5": hashes[meta]})
    return tmp_path, planes, labels


@pytest.mark.parametrize(
    "name, title, classes", [("cifar10", "CIFAR-10", 10), ("cifar100", "CIFAR-100", 100)]
)
def test_cifar_files_are_read(small_cifar, name, title, classes):
    root, planes, labels = small_cifar
    dataset = load_dataset(f"{name}:{root}", load_config())
    assert dataset.title == title and len(dataset.class_names) == classes
    np.testing.assert_array_equal(dataset.labels, labels)
    for row in range(12):
        np.testing.assert_array_equal(
            np.asarray(dataset.pictures[row]), planes[row].reshape(3, 32, 32).transpose(1, 2, 0)
        )
    assert dataset.ids[3] == f"{name}-test-00003"


@pytest.mark.parametrize("name, base", [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_cifar_that_is_not_there_or_changed_says_how_to_get_it(small_cifar, tmp_path, name, base):
    root = small_cifar[0]
    for place in (tmp_path / "nowhere", root):
        changed = sorted((root / base).iterdir())[-1]
        changed.write_bytes(changed.read_bytes() + b"x")  # its hash is wrong: it is never unpickled
        with pytest.raises(MissingInput) as error:
            load_dataset(f"{name}:{place}", load_config())
        assert f"isn't in {place}, or not whole ({base} with all its files)" in str(error.value)
        assert f"python -m impart_utils.sources.datasets {name}" in str(error.value)
        assert f"--set datasets={name}:PATH" in str(error.value)


# ---- archives ----

def tar_gz(tree, names):
    """A .tar.gz in memory: name -> content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(tree[name])
            file.addfile(entry, io.BytesIO(tree[name]))
    return buffer.getvalue()


TREE = {
    "101_ObjectCategories/a/image_0001.jpg": b"1",
    "101_ObjectCategories/b/image_0001.jpg": os.urandom(50_000),
}


def caltech_zip(path, inner=None):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            "caltech-101/101_ObjectCategories.tar.gz", tar_gz(TREE, TREE) if inner is None else inner
        )
        file.writestr("caltech-101/Annotations.tar", b"not needed")
    return path


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_unpack_a_zip_with_a_tar_inside(tmp_path):
    unpack(caltech_zip(tmp_path / "caltech-101.zip"), tmp_path / "out")
    assert files_in(tmp_path / "out") == TREE
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["101_ObjectCategories"]


def test_unpack_a_tar(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(tar_gz(TREE, TREE))
    unpack(tmp_path / "x.tar.gz", tmp_path / "out")
    assert files_in(tmp_path / "out") == TREE


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_cut_short_leaves_nothing(tmp_path, kind):
    cut = tar_gz(TREE, TREE)[:-20_000]
    archive = tmp_path / f"x.{kind}"
    caltech_zip(archive, cut) if kind == "zip" else archive.write_bytes(cut)
    with pytest.raises((EOFError, tarfile.ReadError)):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failure_keeps_what_stood_there(tmp_path):
    unpack(caltech_zip(tmp_path / "good.zip"), tmp_path / "out")
    with pytest.raises((EOFError, tarfile.ReadError)):
        unpack(caltech_zip(tmp_path / "bad.zip", tar_gz(TREE, TREE)[:-20_000]), tmp_path / "out")
    assert files_in(tmp_path / "out") == TREE


def test_unpacking_again_replaces_a_half_tree(tmp_path):
    (tmp_path / "out" / "101_ObjectCategories" / "stale").mkdir(parents=True)
    (tmp_path / "out" / "other").mkdir()
    unpack(caltech_zip(tmp_path / "good.zip"), tmp_path / "out")
    assert files_in(tmp_path / "out") == TREE
    assert not (tmp_path / "out" / "101_ObjectCategories" / "stale").exists()
    assert (tmp_path / "out" / "other").is_dir()


def test_paths_that_lead_out_of_the_folder_are_refused(tmp_path):
    (tmp_path / "evil.tar.gz").write_bytes(tar_gz({"../../evil.txt": b"x"}, ["../../evil.txt"]))
    with pytest.raises(tarfile.FilterError):
        unpack(tmp_path / "evil.tar.gz", tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_zip_without_the_tar_has_its_message(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("readme.txt", "x")
    with pytest.raises(ValueError, match="other.zip.*101_ObjectCategories.tar.gz"):
        unpack(tmp_path / "other.zip", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@PARTIAL
def test_fetched_archives_are_found_by_their_names(tmp_path, monkeypatch):
    """The command of the message, without a network: what it leaves is what load_dataset looks for."""
    from impart_utils.sources import download

    monkeypatch.setattr(config, "ROOT", tmp_path)
    asked = []

    def fetch_file(url, path, **options):
        asked.append((url, path.name, options))
        path.parent.mkdir(parents=True, exist_ok=True)
        caltech_zip(path, _real_caltech(tmp_path))

    monkeypatch.setattr(download, "fetch_file", fetch_file)
    monkeypatch.setattr("sys.argv", ["datasets", "caltech101"])
    datasets.main()
    assert asked[0][1] == "caltech-101.zip" and asked[0][2]["md5"] == datasets.ARCHIVES["caltech101"][1]
    assert load_dataset("caltech101", load_config()).class_names == ["Faces", "accordion"]


def _real_caltech(tmp_path):
    tree = files_in(caltech_tree(tmp_path / "source"))
    return tar_gz(tree, tree)
