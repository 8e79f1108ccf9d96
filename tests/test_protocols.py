"""Every protocol from one set of features, and the published values beside them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_scored_sets import FOLDERS, PARTIAL, caltech_pack, fake, folders, pack_file  # noqa: F401  fixtures

from impart_utils import cached
from impart_utils.config import load_config
from impart_utils.evidence import metrics, protocols
from impart_utils.evidence.protocol_plots import protocol_dots
from impart_utils.evidence.results import read_paper_values
from impart_utils.sources import caltech
from impart_utils.sources.features import Pack, save_pack
from impart_utils.zeroshot import accuracy, mean_per_class_accuracy, predict

DATA = Path(__file__).parents[1] / "data"
PAPER = read_paper_values(DATA / "paper_values.csv")
PUBLISHED = protocols.published(DATA / "published_values.csv")
NOTES = Path(__file__).parents[2] / "shared" / "notes" / "literature.md"


def config(**changes):
    return load_config("paper", **changes)


def rows_of(table, **protocol):
    for name, value in protocol.items():
        table = table[table[name] == value]
    return table


# ---- our protocols ----

@PARTIAL
def test_every_protocol_of_caltech_from_one_encoding(fake, folders):  # noqa: F811
    table = protocols.protocol_table(config(), folders)
    assert tuple(table.columns) == protocols.TABLE_COLUMNS and fake.images == sum(FOLDERS.values())
    assert len(table) == 3 * 2 * 2 * 2
    assert not table.duplicated(["split", "prompts", "names", "average"]).any()
    assert set(table["split"]) == {"torchvision", "vtab", "coop"}
    assert rows_of(table, split="vtab")["n"].eq(12).all() and rows_of(table, split="coop")["n"].eq(6).all()
    assert set(table["prompts"]) == {"a photo of a {}", "openai (34 templates)"}
    for row in table.to_dict("records"):  # each row is what that configuration's own test set gives
        asked = "paper" if row["prompts"] == "a photo of a {}" else "openai"
        test = cached.test_set(config(prompts=asked, names=row["names"], caltech=row["split"]), folders)
        guesses = predict(test.image_features, test.class_features)
        measure = accuracy if row["average"] == "micro" else mean_per_class_accuracy
        assert row["accuracy"] == pytest.approx(measure(guesses, test.labels)), row
    assert fake.images == sum(FOLDERS.values())
    assert ((table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])).all()


def test_averages_and_intervals_by_hand(tmp_path):
    """Two classes of 9 and 3 pictures: 8 of 9 and 0 of 3 right."""
    block = np.eye(3, dtype=np.float32)
    guesses = [0] * 8 + [1] * 1 + [0] * 3
    save_pack(tmp_path / "pets.safetensors", Pack(
        block[guesses], [str(row) for row in range(12)], "w", labels=np.array([0] * 9 + [1] * 3),
        class_names=["a", "b"], class_texts={"paper/raw": block[:2]}))
    table = protocols.protocol_table(config(), f"pack:{tmp_path / 'pets.safetensors'}")
    micro, mean = (rows_of(table, average=name).iloc[0] for name in ("micro", "mean per class"))
    assert (micro["accuracy"], mean["accuracy"]) == (pytest.approx(8 / 12), pytest.approx(4 / 9))
    assert (micro["low"], micro["high"]) == metrics.wilson(8, 12)
    assert mean["low"] < 4 / 9 < mean["high"] and len(table) == 2 and micro["split"] == "test"


def test_a_pack_gives_the_protocols_it_has(tmp_path):
    table = protocols.protocol_table(config(), pack_file(tmp_path))
    assert set(zip(table["prompts"], table["names"], strict=True)) == {
        ("a photo of a {}", "raw"), ("openai (7 templates)", "clean")}
    unit = np.eye(3, dtype=np.float32)
    both = pack_file(tmp_path, "mine", class_features=unit, prompts=["x", "y", "z"])
    table = protocols.protocol_table(config(), both)
    assert set(table["prompts"]) == {"a photo of a {}", "openai (7 templates)", "as stored: 'x', 'y', …"}
    place, _ = caltech_pack(tmp_path)
    assert set(protocols.protocol_table(config(), place)["split"]) == {"torchvision", "vtab", "coop"}


@PARTIAL
def test_caltech_without_background_lacks_vtab_alone(fake, folders, tmp_path):  # noqa: F811
    folder = tmp_path / "caltech" / "101_ObjectCategories" / "BACKGROUND_Google"
    folder.rename(tmp_path / "elsewhere")
    assert set(protocols.protocol_table(config(), folders)["split"]) == {"torchvision", "coop"}


def whole_caltech(folder):
    """A pack of all 9144 pictures in which every background picture is missed and the rest is right."""
    names = sorted(caltech.COUNTS)
    labels = np.repeat(np.arange(102), [caltech.COUNTS[name] for name in names])
    ids = [f"{names[label]}/image_{row:05d}.jpg" for row, label in enumerate(labels)]
    guesses = np.where(labels == names.index("BACKGROUND_Google"), names.index("ant"), labels)
    block = np.eye(102, dtype=np.float32)
    texts = {f"{asked}/{form}": block for asked in ("paper", "openai") for form in ("raw", "clean")}
    save_pack(folder / "caltech101.safetensors", Pack(block[guesses], ids, "OpenAI ViT-B/32", labels=labels,
                                                      class_names=names, class_texts=texts))
    return f"pack:{folder / 'caltech101.safetensors'}"


def test_81_9_and_87_9_can_both_be_right(tmp_path):
    """What missing the background does, on the real class sizes, to the averages of identical predictions."""
    table = rows_of(protocols.protocol_table(config(), whole_caltech(tmp_path)), prompts="a photo of a {}",
                    names="raw").set_index(["split", "average"])
    n, found = table["n"], table["accuracy"]
    assert n["vtab", "micro"] == 9144 and n["vtab (drawn)", "micro"] == 6084
    assert n["torchvision", "micro"] == 8677 and n["coop", "micro"] == 8242
    assert found["torchvision", "micro"] == found["coop", "mean per class"] == 1
    assert found["vtab", "micro"] == pytest.approx(8677 / 9144)
    assert found["vtab (drawn)", "micro"] == pytest.approx((6084 - 437) / 6084)  # 7.2 points below
    assert found["vtab (drawn)", "mean per class"] == pytest.approx(101 / 102)   # 1.0 point below
    # CLIP_benchmark's 81.92 of 6084 pictures are 88.26 of those that aren't background
    published = rows_of(PUBLISHED, dataset="caltech101", average="micro", split="vtab")["value"].iloc[0]
    assert round(published / 100 * 6084) == 4984
    assert 100 * 4984 / (6084 - 437) == pytest.approx(88.26, abs=0.01)


def test_a_list_of_test_pictures_stands_in_for_the_drawn_ones(tmp_path):
    place = whole_caltech(tmp_path)
    (tmp_path / "vtab_test.txt").write_text("background_google/image_00000.jpg\nfaces/image_00467.jpg\n")
    table = protocols.protocol_table(config(), place)
    assert "vtab (drawn)" not in set(table["split"]) and rows_of(table, split="vtab")["n"].eq(2).all()


# ---- published values ----

def test_published_values_are_those_of_the_note():
    """literature.md, section 3, rows marked R or S but the authors' own run, which paper_values.csv has."""
    values = PUBLISHED.groupby("dataset")["value"].apply(lambda column: sorted(column)).to_dict()
    assert values == {
        "cifar10": [89.82, 89.83, 89.95, 91.3],
        "cifar100": [62, 63.91, 64.21, 64.23, 64.51, 64.53, 64.58, 65.1],
        "caltech101": [81.92, 87.58, 87.87, 87.9]}
    secondary = PUBLISHED[PUBLISHED["mark"] == "S"]
    assert set(secondary["source"]) == {"CLIP paper, Table 11"} and len(secondary) == 3


@pytest.mark.skipif(not NOTES.is_file(), reason="the notes (shared/notes) aren't here")
def test_published_values_stand_in_the_note():
    section = NOTES.read_text().split("## 3.")[1].split("## 4.")[0]
    for value in PUBLISHED["value"]:
        assert f"{value:g}" in section, value


@pytest.mark.parametrize("change, message", [
    (dict(value="8982"), "column value: expected a number of percent in row 0, got '8982'"),
    (dict(value="about 62"), "column value: expected a number of percent in row 0, got 'about 62'"),
    (dict(mark="K"), r"column mark: expected R \(read\) or S \(secondary\) in row 0, got 'K'"),
    (dict(source=""), "column source: expected a source in row 0"),
    (dict(average="macro"), "column average: expected one of micro, mean per class in row 0, got 'macro'")])
def test_published_values_are_checked(tmp_path, change, message):
    PUBLISHED.astype(str).assign(**change).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ValueError, match=f"p.csv, {message}"):
        protocols.published(tmp_path / "p.csv")
    PUBLISHED.drop(columns="mark").to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ValueError, match="p.csv: column 'mark' is missing. Expected source, dataset"):
        protocols.published(tmp_path / "p.csv")


def ours(**changes):
    return {"dataset": "cifar10", "split": "test", "prompts": "a photo of a {}", "names": "raw",
            "average": "micro", "accuracy": 0.888, "low": 0.88, "high": 0.89, "n": 10_000,
            "weights": "OpenAI ViT-B/32", **changes}


def beside(*rows):
    table = pd.DataFrame(list(rows), columns=list(protocols.TABLE_COLUMNS))
    return protocols.side_by_side(table, PAPER, PUBLISHED).set_index(["dataset", "source", "average"])


def test_each_published_value_stands_beside_ours_under_its_protocol():
    clean = dict(prompts="openai (18 templates)", names="clean")
    found = beside(ours(), ours(**clean, accuracy=0.8985),
                   ours(**clean, average="mean per class", accuracy=0.91),
                   ours(dataset="pack:cifar100_test.npz", accuracy=0.617))
    assert list(dict.fromkeys(found.index.get_level_values(0))) == ["cifar10", "cifar100", "caltech101"]
    assert found["ours"].dropna().to_dict() == pytest.approx({
        ("cifar10", "IMPART, Table 1", "micro"): 88.8, ("cifar10", "its code, stored run", "micro"): 88.8,
        ("cifar10", "CLIP paper, Table 11", "micro"): 89.85,
        ("cifar10", "CLIP_benchmark, benchmark.csv", "micro"): 89.85,
        ("cifar10", "CLIP_benchmark, benchmark.csv", "mean per class"): 91.0,
        ("cifar10", "open_clip, openclip_results.csv", "micro"): 89.85,
        ("cifar100", "IMPART, Table 1", "micro"): 61.7, ("cifar100", "its code, stored run", "micro"): 61.7,
        ("cifar100", "CLIP issue 153", "micro"): 61.7})
    row = found.loc["cifar10", "IMPART, Table 1", "micro"]
    assert (row["published"], row["low"], row["high"], row["n"]) == (88.78, 88.0, 89.0, 10_000)
    assert found.loc[("caltech101", "its code, stored run", "micro"), "published"] == 85.01


def test_other_weights_and_toy_sets_are_not_set_beside():
    found = beside(ours(weights="unverified weights"), ours(dataset="toy10"))
    assert found["ours"].isna().all() and len(found) == len(PUBLISHED) + 6


def test_vtabs_values_meet_the_pictures_drawn_by_its_rule():
    clean = dict(dataset="caltech101", prompts="openai (34 templates)", names="clean")
    found = beside(ours(**clean, split="vtab", accuracy=0.84, n=9144),
                   ours(**clean, split="vtab (drawn)", accuracy=0.82, n=6084),
                   ours(**clean, split="coop", accuracy=0.5))
    row = found.loc["caltech101", "CLIP_benchmark, benchmark.csv", "micro"]
    assert (row["published"], row["ours"], row["n"]) == (81.92, pytest.approx(82.0), 6084)
    found = beside(ours(**clean, split="vtab", accuracy=0.84, n=9144))
    assert found.loc[("caltech101", "CLIP_benchmark, benchmark.csv", "micro"), "ours"] == pytest.approx(84.0)


# ---- the figure ----

def test_the_figure_shows_every_row_and_the_published_values():
    import matplotlib.pyplot as plt

    clean = dict(prompts="openai (18 templates)", names="clean")
    table = pd.DataFrame([ours(), ours(average="mean per class"), ours(**clean, accuracy=0.8985),
                          ours(dataset="toy10", accuracy=0.5, low=0.4, high=0.6)])
    fig = protocol_dots(table, PUBLISHED, toy=False)
    left, right = fig.axes
    assert left.get_title() == "CIFAR-10\nn = 10000" and right.get_title().startswith("Toy-10")
    assert [label.get_text() for label in left.get_yticklabels()] == ["a photo of a {}, raw names",
                                                                      "openai, clean names"]
    crosses = [list(line.get_xdata()) for line in left.lines if line.get_marker() == "x"]
    assert sorted(value for row in crosses for value in row) == [89.82, 89.83, 91.3]
    dots = [line.get_xdata()[0] for line in left.lines if line.get_marker() in ("o", "D")]
    assert sorted(dots) == pytest.approx([88.8, 88.8, 89.85])
    assert not [line for line in right.lines if line.get_marker() == "x" and len(line.get_xdata())]
    other = protocol_dots(table.assign(weights="unverified"), PUBLISHED, toy=False).axes[0]
    assert not [line for line in other.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert "toy" not in fig.get_suptitle() and "toy" in protocol_dots(table, toy=True).get_suptitle()
    plt.close("all")
