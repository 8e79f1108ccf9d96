"""Packs that the kit makes: as good as the pictures they come from, and no more than may travel."""

import csv
import json
import subprocess
import sys
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from impart_utils import cached, export, gallery
from impart_utils.config import ROOT, load_config
from impart_utils.evidence import claims, results
from impart_utils.sources import caltech, checkpoints, datasets
from impart_utils.sources.packs import load_pack

pytestmark = pytest.mark.filterwarnings("ignore:.*101_ObjectCategories")  # the stand-in isn't the archive
needs_weights = pytest.mark.skipif(not checkpoints.TINY_PATH.is_file(),
                                   reason="data/toy_clip.safetensors isn't here")


class FakeClip:
    """Colors and letters to four numbers, so that tests need no weights."""

    dim, key, provenance, precision, device = 4, "0123-fp32-cpu", "OpenAI ViT-B/32", "fp32", "cpu"
    name = "a stub"
    prepare = None
    model = SimpleNamespace(visual=SimpleNamespace(input_resolution=224))

    def encode_images(self, pictures):
        means = [np.asarray(picture).reshape(-1, 3).mean(axis=0) for picture in pictures]
        return np.array([[*mean, 50] for mean in means], np.float32) / 9

    def encode_texts(self, texts):
        return np.array([[len(text) + 1, text.count("e") + 2, sum(map(ord, text)) % 17 + 3, 5]
                         for text in texts], np.float32)


@pytest.fixture(autouse=True)
def fake(monkeypatch, tmp_path):
    clip = FakeClip()
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setattr(cached, "clip", lambda config: clip)
    monkeypatch.setattr(gallery, "clip", cached.clip)
    monkeypatch.setattr(checkpoints, "find_checkpoint", lambda *arguments, **options: "weights")
    forget()
    yield
    forget()


def forget():
    for function in (cached._clip, cached.test_set, cached.pair_pool, gallery.film_gallery):
        function.cache_clear()


def save_picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (1, 1, 3), dtype=np.uint8)).resize((6, 6)).save(path)


@pytest.fixture
def whole_cifar10(monkeypatch):
    """A stand-in for CIFAR-10's test part: 10 000 pictures of one pixel under torchvision's names."""
    rng = np.random.default_rng(0)
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    pictures = datasets.Arrays(rng.integers(0, 256, (10_000, 1, 1, 3), dtype=np.uint8))
    dataset = datasets.Dataset(
        "cifar10", "CIFAR-10", pictures, np.arange(10_000) % 10, names,
        [f"cifar10-test-{row:05d}" for row in range(10_000)], 10_000)
    monkeypatch.setattr(datasets, "_cifar", lambda name, root: dataset)
    return dataset


@pytest.fixture
def caltech_folder(tmp_path):
    """101_ObjectCategories with 3 pictures of each of 102 folders, one of them broken."""
    folder = tmp_path / "caltech" / "101_ObjectCategories"
    for number, name in enumerate(caltech.COUNTS):
        for row in range(1, 4):
            save_picture(folder / name / f"image_{row:04d}.png", 10 * number + row)
    (folder / "ant" / "image_0002.png").write_bytes(b"broken")
    return folder.parent


@pytest.fixture
def pair_folder(tmp_path):
    folder = tmp_path / "yfcc"
    rows = [{"file": f"{row}.png", "caption": f"caption {row}", "license": f"by {row}", "page": f"page {row}"}
            for row in range(12)]
    for row in range(12):
        save_picture(folder / f"{row}.png", row)
    (folder / "5.png").write_bytes(b"broken")
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "source.json").write_text(json.dumps({"source": "YFCC15M"}))
    return folder


def made(path, config, only):
    done, left = export.export(config, path, only)
    assert left == {} and set(done) == set(only)
    return done


def same_test_set(one, other):
    for name in ("name", "title", "labels", "class_names", "class_features", "ids", "prompts", "weights",
                 "n_available", "names", "split", "average", "image_features", "key"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


# ---- data sets ----

def test_a_pack_of_cifar10_is_cifar10_under_each_protocol(whole_cifar10, tmp_path):
    config = load_config("paper", datasets="cifar10")
    path = made(tmp_path, config, ["cifar10"])["cifar10"]
    assert path == tmp_path / "cifar10.safetensors"
    for settings in ({}, {"prompts": "openai", "names": "clean"}, {"names": "clean"}, {"limit": 37},
                     {"average": "mean per class"}):
        of_pictures = cached.test_set(load_config("paper", datasets="cifar10", **settings), "cifar10")
        packed = load_config("paper", datasets=f"pack:{path}", **settings)
        test = cached.test_set(packed, packed.datasets[0])
        same_test_set(of_pictures, test)
        assert test.notes == of_pictures.notes and bool(test.notes) == ("limit" in settings)
        assert test.origin.startswith("features from cifar10.safetensors, made by impart-kit")


def test_what_a_pack_says_of_itself(whole_cifar10, tmp_path):
    pack = load_pack(made(tmp_path, load_config("paper", datasets="cifar10"), ["cifar10"])["cifar10"])
    assert set(pack.class_texts) == {"paper/raw", "paper/clean", "openai/raw", "openai/clean"}
    assert pack.protocol["templates"]["paper"] == ["a photo of a {}"]
    assert len(pack.protocol["templates"]["openai"]) == 18
    assert pack.protocol["names"]["raw"][1] == "automobile"
    assert pack.protocol["precision"] == "fp32" and "224 pixels, bicubic" in pack.protocol["preprocessing"]
    assert pack.license.startswith("none stated") and "CIFAR-10" in pack.source and not pack.protocol["toy"]
    place = f"pack:{tmp_path / 'cifar10.safetensors'}"
    with pytest.raises(ValueError, match="no texts for prompts='stored'.*It has paper/raw, paper/clean, op"):
        cached.test_set(load_config("paper", datasets=place, prompts="stored"), place)


def judged(config, name):
    """The verdict on the paper's number for CLIP on CIFAR-10, from a test set's row."""
    test = cached.test_set(config, name)
    correct = np.arange(len(test.labels)) % 10_000 < 0.8878 * len(test.labels)
    row = results.classification_row(config, test, correct, method="CLIP")
    values = claims.read_paper_values(config.data_dir / "paper_values.csv")
    board = claims.judge(values, {"table1.csv": pd.DataFrame([row])}, profile="paper", commit=row["commit"],
                         recorded={row["inputs"]: claims.differences(test)})
    return board.set_index("claim_id").loc["table1-cifar10-clip", ["verdict", "reason"]]


def test_the_scoreboard_judges_a_whole_pack_as_it_judges_pictures(whole_cifar10, tmp_path):
    config = load_config("paper", datasets="cifar10")
    path = made(tmp_path, config, ["cifar10"])["cifar10"]
    of_pictures, of_pack = judged(config, "cifar10"), judged(config, f"pack:{path}")
    assert of_pack["verdict"] == "reproduced" and of_pack.equals(of_pictures)
    renamed = path.rename(tmp_path / "anything.safetensors")  # the protocol decides, not the file's name
    assert judged(config, f"pack:{renamed}")["verdict"] == "reproduced"


def test_parts_and_packs_of_others_are_not_comparable(whole_cifar10, tmp_path):
    small = load_config("paper", datasets="cifar10", limit=500)
    part = made(tmp_path / "part", small, ["cifar10"])["cifar10"]
    config = load_config("paper", datasets=f"pack:{part}")
    assert judged(config, config.datasets[0])["verdict"] == "not comparable"
    assert "a subset of 500 of 10000 pictures" in judged(config, config.datasets[0])["reason"]
    whole = load_pack(made(tmp_path, load_config("paper", datasets="cifar10"), ["cifar10"])["cifar10"])
    np.savez(tmp_path / "cifar10_theirs.npz", image_features=whole.image_features, labels=whole.labels,
             label_names=whole.class_names, text_features=whole.class_texts["paper/raw"],
             text_prompts=[f"a photo of a {name}" for name in whole.class_names], model=["OpenAI ViT-B/32"])
    config = load_config("paper", datasets=f"pack:{tmp_path / 'cifar10_theirs.npz'}", prompts="stored")
    verdict = judged(config, config.datasets[0])
    assert verdict["verdict"] == "not comparable"
    assert "features from cifar10_theirs.npz" in verdict["reason"] and "as stored: " in verdict["reason"]


@pytest.mark.parametrize("settings", [
    {}, {"caltech": "vtab"}, {"caltech": "coop"}, {"names": "clean", "limit": 20}])
def test_all_protocols_of_caltech_come_from_one_pack(caltech_folder, tmp_path, settings):
    place = f"caltech101:{caltech_folder}"
    split = [["Faces/image_0001.png", 0, "face"], ["ant/image_0003.png", 1, "ant"]]
    (caltech_folder / "split_zhou_Caltech101.json").write_text(json.dumps({"test": split}))
    path = made(tmp_path, load_config("paper", datasets=place), ["caltech101"])["caltech101"]
    pack = load_pack(path)
    assert len(pack.class_names) == 102 and len(pack.ids) == 3 * 102 - 1
    assert "ant/image_0002.png" not in pack.ids
    assert (tmp_path / "split_zhou_Caltech101.json").is_file() and not (tmp_path / "vtab_test.txt").exists()
    of_pictures = cached.test_set(load_config("paper", datasets=place, **settings), place)
    config = load_config("paper", datasets=f"pack:{path}", **settings)
    test = cached.test_set(config, config.datasets[0])
    if "limit" in settings:  # the picture that can't be opened is none of the pack's: another draw
        assert len(test.labels) == 20 and test.n_available == 3 * 101 - 1
        return
    for name in ("name", "title", "labels", "class_names", "class_features", "ids", "prompts", "names",
                 "split", "image_features"):
        np.testing.assert_array_equal(getattr(test, name), getattr(of_pictures, name), err_msg=name)
    assert len(test.class_names) == {"vtab": 102, "coop": 100}.get(config.caltech, 101)
    assert test.notes and of_pictures.notes and "can't be opened" in " ".join(test.notes)


def test_a_folder_of_your_own(tmp_path):
    for row in range(4):
        save_picture(tmp_path / "pets" / ("cat" if row < 2 else "dog") / f"{row}.png", row)
    place = f"folder:{tmp_path / 'pets'}"
    config = load_config("paper", datasets=place)
    path = made(tmp_path / "packs", config, ["folder:pets"])["folder:pets"]
    assert path.name == "folder-pets.safetensors"
    packed = load_config("paper", datasets=f"pack:{path}")
    same_test_set(cached.test_set(config, config.datasets[0]), cached.test_set(packed, packed.datasets[0]))
    assert cached.test_set(packed, packed.datasets[0]).notes == [
        "a folder of 4 pictures, not a data set of the paper"]


# ---- pairs and films ----

def test_pairs_carry_license_and_page_of_each_row(pair_folder, tmp_path):
    config = load_config("paper", reference=f"folder:{pair_folder}", references=5, pairs=10, top_k=2)
    path = made(tmp_path, config, ["pairs"])["pairs"]
    pack = load_pack(path)
    assert pack.license == [f"by {row}" for row in range(12) if row != 5] and pack.source == "YFCC15M"
    first, again = cached.pair_pool(config), cached.pair_pool(load_config("paper", reference=f"pack:{path}"))
    assert again.key == first.key and again.weights == first.weights
    assert again.metadata["columns"] == first.metadata["columns"]  # with the license and the page
    assert again.metadata["columns"]["page"][5] == "page 6"
    assert again.metadata["source"] == "YFCC15M" and list(again.metadata["skipped"]) == ["5.png"]


def test_films_carry_their_texts_and_no_frame(tmp_path, monkeypatch):
    films = gallery.Gallery(
        "folder:clips", ["a.mp4", "b.mp4"], ["M", "N"], ["one", "two"], ["A storm.", ""], ["", ""],
        ["x", "y"], [np.arange(3) / 4, np.arange(2) / 4],
        [np.ones((3, 4), np.float32), np.ones((2, 4), np.float32)],
        {"c.mp4": f"{tmp_path}/clips/c.mp4 is not a film"}, "OpenAI ViT-B/32")
    monkeypatch.setattr(gallery, "film_gallery", lru_cache(lambda config: films))
    (tmp_path / "clips").mkdir()
    config = load_config("paper", films=f"folder:{tmp_path / 'clips'}")
    path = made(tmp_path / "out", config, ["films"])["films"]
    again = gallery.load_gallery(path)
    assert set(again.texts) == {"A storm.", "one", "two"} and again.key == films.key
    np.testing.assert_array_equal(again.texts["one"], FakeClip().encode_texts(["one"])[0])
    assert again.broken == {"c.mp4": "c.mp4 is not a film"}
    assert export.read_header(path)["license"] == "not stated"
    (tmp_path / "clips" / "manifest.csv").touch()  # fetched from YouTube
    header = export.read_header(made(tmp_path, config, ["films"])["films"])
    assert "may not be passed on" in header["license"]


def test_no_pack_names_a_path_of_this_machine(caltech_folder, pair_folder, tmp_path):
    config = load_config("paper", datasets=f"caltech101:{caltech_folder}", reference=f"folder:{pair_folder}")
    for path in made(tmp_path / "out", config, ["caltech101", "pairs"]).values():
        assert str(tmp_path).encode() not in path.read_bytes()


# ---- the command ----

def test_what_can_not_be_made_is_left_with_its_reason(pair_folder, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "out"), "--set", f"reference=folder:{pair_folder}",
                 "--set", f"films=folder:{tmp_path / 'none'}", "--set", f"datasets=cifar10:{tmp_path}"]
    assert export.main(arguments) == 1
    told = capsys.readouterr()
    assert "pairs: " in told.out and "hash " in told.out
    assert "cifar10: not made. CIFAR-10 isn't in " in told.err and "films: not made. There is no" in told.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pairs.safetensors"]
    assert export.main([*arguments, "--only", "pairs"]) == 0


def test_command_line_errors_are_messages(tmp_path, capsys):
    assert export.main(["--out", str(tmp_path), "--only", "cifar11"]) == 1
    told = capsys.readouterr().err
    assert "Unknown pack 'cifar11'. Known: cifar10, cifar100, caltech101, pairs, films" in told
    assert export.main(["--out", str(tmp_path), "--set", "reference=pack:x.npz"]) == 1
    assert "Expected pictures, pairs and films to make packs of, got pack:" in capsys.readouterr().err
    assert export.main(["--profile", "full"]) == 1 and export.main(["--set", "x"]) == 1
    assert list(tmp_path.iterdir()) == []


# ---- the demo, from toy packs ----

SMALL = ["--set", "pairs=300", "--set", "references=100", "--set", "limit=60"]
BRIEF = ["--set", "ram_epochs=1", "--set", "ram_seeds=1", "--set", "draws=1"]


def command(module, *arguments, output):
    environment = {**export.config.os.environ, "IMPART_OUTPUT": str(output)}
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True,
                          cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_weights
@pytest.mark.slow
def test_the_demo_from_toy_packs_gives_the_same_table(tmp_path):
    made, first, again = tmp_path / "packs", tmp_path / "first", tmp_path / "again"
    command("impart_utils.export", "--profile", "demo", "--out", str(made), "--only", "toy10,toy101,pairs",
            *SMALL, output=first)
    run = ["impart_utils.run", "--no-book", *SMALL, *BRIEF]
    command(*run, "--only", "04", "--set", "datasets=toy10,toy101", output=first)
    told = command(*run, "--only", "01,04,06", "--features", str(made), output=again)
    assert "toy100: no pack, left out" in told and "2 of 3 notebooks ran, 1 skipped" in told
    assert f"Skipped 06_video_retrieval: no pack of films in {made}" in told
    tables = [pd.read_csv(place / "results" / "demo" / "table1.csv").drop(columns=["run_id", "commit"])
              for place in (first, again)]
    pd.testing.assert_frame_equal(*tables)  # the inputs' hashes too
    assert set(tables[0]["dataset"]) == {"toy10", "toy101"} and len(tables[0]) == 10
    encoded = {place.name for place in (again / "data" / "cache").iterdir()} - {"neighbors", "ram"}
    assert encoded == set()
    record = json.loads((again / "results" / "demo" / "run.json").read_text())
    assert {row["holds"] for row in record["packs"]} == {"toy10", "toy101", "pairs"}
    assert record["notebooks"]["06_video_retrieval"]["status"] == "skipped"
