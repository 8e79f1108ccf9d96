"""Benchmarks on small files in the published formats, films as features; the published values' file."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from impart_utils.evidence import metrics
from impart_utils.evidence.benchmark_evaluation import (
    PUBLISHED_COLUMNS,
    evaluate_benchmark,
    films_by_id,
    published_values,
)
from impart_utils.film_scores import score_films
from impart_utils.scene_windows import find_windows
from impart_utils.sources.video_benchmarks import charades_sta, condensed_movies, msrvtt

RNG = np.random.default_rng(0)
NAMES = [f"video{9000 + number}" for number in range(12)]


def films_of(names, frames=20, dim=16):
    return {name: (np.arange(frames) / 4, RNG.normal(size=(frames, dim)) + 2 * RNG.normal(size=dim))
            for name in names}


def texts_for(films, names, noise=1.0):
    return np.stack([films[name][1].mean(axis=0) + noise * RNG.normal(size=16) for name in names])


def value(table, **where):
    for name, wanted in where.items():
        table = table[table[name] == wanted]
    return table["value"].item()


@pytest.fixture
def msrvtt_table(tmp_path):
    lines = [f"ret{number},msr{name[5:]},{name},a sentence about {name}" for number, name in enumerate(NAMES)]
    path = tmp_path / "MSRVTT_JSFUSION_test.csv"
    path.write_text("key,vid_key,video_id,sentence\n" + "\n".join(lines) + "\n")
    return msrvtt(path)


def test_msrvtt_is_scored_in_both_directions(msrvtt_table):
    films = films_of(reversed(NAMES))  # another order than the table's
    texts = texts_for(films, NAMES)
    found = evaluate_benchmark(msrvtt_table, films, texts)
    similarities = score_films(texts, [films[name][1] for name in NAMES], "mean_unit")
    forth, back = metrics.ranks(similarities, np.arange(12)), metrics.ranks(similarities.T, np.arange(12))
    for way, ranks in (("text to video", forth), ("video to text", back)):
        mean = {"protocol": way, "method": "CLIP, mean_unit"}
        assert value(found, **mean, metric="MRR") == pytest.approx(np.mean(1 / ranks))
        assert value(found, **mean, metric="R@5") == np.mean(ranks <= 5)
    assert list(found.columns) == ["benchmark", "protocol", "method", "metric", "value", "low", "high", "n"]
    assert set(found["method"]) == {"CLIP, mean_unit", "CLIP, query_scored"} and set(found["n"]) == {12}
    assert set(found["benchmark"]) == {"MSR-VTT 1k-A"} and found.attrs == {"videos": 12, "missing": []}
    assert set(found["metric"]) == {"R@1", "R@5", "R@10", "median rank", "mean rank", "MRR"}


def test_videos_that_are_missing_are_named_and_make_the_gallery_smaller(msrvtt_table):
    films = films_of(NAMES[2:])
    texts = np.concatenate([np.full((2, 16), np.nan), texts_for(films, NAMES[2:], noise=0)])
    found = evaluate_benchmark(msrvtt_table, films, texts, poolings=("max",))
    assert found.attrs == {"videos": 12, "missing": NAMES[:2]} and set(found["n"]) == {10}
    with pytest.raises(ValueError, match="films of the 12 videos of MSR-VTT 1k-A, got none: 'video9000'"):
        evaluate_benchmark(msrvtt_table, films_of(["a"]), texts)
    with pytest.raises(ValueError, match="a text feature for each of 12 rows, got 10"):
        evaluate_benchmark(msrvtt_table, films, texts[2:])


def test_several_sentences_a_video_have_no_way_back(msrvtt_table):
    twice = pd.concat([msrvtt_table, msrvtt_table], ignore_index=True)
    films = films_of(NAMES)
    found = evaluate_benchmark(twice, films, texts_for(films, NAMES * 2), poolings=("mean_raw",))
    assert set(found["protocol"]) == {"text to video"} and set(found["n"]) == {24}


def test_condensed_movies_across_and_within_movies(tmp_path):
    clips, texts, split = [], [], ["imdbid,split", "tt0,test", "tt1,test", "tt2,train"]
    for movie in range(3):
        for number in range(6):
            clips.append(f"-{movie}{number},2000.0,{number},6,2015,Title {movie},Clip,tt{movie}")
            texts.append(f"tt{movie},-{movie}{number},Text {movie} {number}.")
    for name, header, lines in (
            ("clips.csv", "videoid,year,clip_idx,clip_tot,upload_year,title,clip_name,imdbid", clips),
            ("descriptions.csv", "imdbid,videoid,description", texts), ("split.csv", split[0], split[1:])):
        (tmp_path / name).write_text("\n".join([header, *lines]) + "\n")
    table = condensed_movies(tmp_path)
    assert list(table.columns) == ["benchmark", "video_id", "sentence", "start", "end", "movie"]
    assert len(table) == 12 and set(table["movie"]) == {"Title 0", "Title 1"}
    assert table.attrs["left_out"] == {"without description": 0, "description of two clips": 0}
    films = films_of(table["video_id"])
    queries = texts_for(films, table["video_id"], noise=1.5)
    found = evaluate_benchmark(table, films, queries, poolings=("mean_raw",))
    similarities = score_films(queries, [films[name][1] for name in table["video_id"]])
    assert value(found, protocol="text to video", metric="R@1") == np.mean(
        metrics.ranks(similarities, np.arange(12)) == 1)
    within = [np.mean(metrics.ranks(similarities[rows, rows], np.arange(6)) == 1)
              for rows in (slice(0, 6), slice(6, 12))]
    way = "text to video, within a movie"
    assert value(found, protocol=way, metric="R@1") == pytest.approx(np.mean(within))
    assert value(found, protocol=way, metric="R@1, chance") == pytest.approx(1 / 6)
    assert "right movie at 1" in set(found["metric"])


def test_charades_sta_is_a_search_for_moments(tmp_path):
    films = films_of(["AO8RW", "Y6R7T"], frames=40)
    path = tmp_path / "charades_sta_test.txt"
    path.write_text("AO8RW 0.0 6.9##a person is putting a book on a shelf.\n"
                    "Y6R7T 2.0 5.0##person begins to wash.\nAO8RW 7.0 9.5##the person sits down.\n")
    texts = RNG.normal(size=(3, 16))
    found = evaluate_benchmark(charades_sta(path), films, texts, most=3)
    assert set(found["method"]) == {"CLIP, window by shots", "random", "whole", "center"}
    overlaps, truth = [], (("AO8RW", (0, 6.9)), ("Y6R7T", (2, 5)), ("AO8RW", (7, 9.5)))
    for query, (name, window) in zip(texts, truth, strict=True):
        best, = find_windows(query[None], *films[name], most=3)
        overlaps.append(float(metrics.temporal_iou(best.windows[0], window)))
    assert value(found, method="CLIP, window by shots", metric="mIoU") == pytest.approx(np.mean(overlaps))
    assert value(found, method="whole", metric="mIoU") == pytest.approx(np.mean([0.69, 0.3, 0.25]))
    assert set(found["protocol"]) == {"sentence"} and set(found["n"]) == {3}


@dataclass
class Folder:
    name: str
    ids: list
    timestamps: list
    frame_features: list


def test_films_are_found_by_their_files_names():
    times, frames = [np.arange(2), np.arange(3)], [np.ones((2, 4)), np.ones((3, 4))]
    films = films_by_id(Folder("folder:x", ["test/video7.mp4", "-a.b.webm"], times, frames))
    assert list(films) == ["video7", "-a.b"] and films["-a.b"] == (times[1], frames[1])
    with pytest.raises(ValueError, match="two files called 'a' in folder:x"):
        films_by_id(Folder("folder:x", ["a.mp4", "b/a.mkv"], times, frames))


# ---- Published values --------------------------------------------------------------------------------

def test_the_published_values_are_in_range_once_each_and_marked():
    table = published_values()
    assert tuple(table.columns) == PUBLISHED_COLUMNS
    assert set(table["mark"]) == {"R", "S"} and set(table["unit"]) == {"percent", "rank"}
    percent = table["unit"] == "percent"
    assert table.loc[percent, "value"].between(0, 100).all() and (table.loc[~percent, "value"] >= 1).all()
    assert (table.loc[~percent, "metric"].str.contains("rank")).all()
    assert not table.duplicated(["benchmark", "protocol", "method", "metric"]).any()
    for (_, _, _), part in table.groupby(["benchmark", "protocol", "method"]):
        recalls = part[part["metric"].str.startswith("R@")].set_index("metric")["value"]
        assert recalls.reindex(["R@1", "R@5", "R@10"]).dropna().is_monotonic_increasing


def test_values_that_the_notes_give(tmp_path):
    table = published_values()
    hitchhiker = table[table["source"].str.contains("hitchhiker") & (table["metric"] == "R@1")]
    assert hitchhiker["value"].tolist() == [33.3, 34.4] and set(hitchhiker["mark"]) == {"R"}
    assert table[(table["benchmark"] == "Condensed Movies") & (table["metric"] == "median rank")][
        "value"].tolist() == [3209, 1130, 190, 65, 50, 73.7]
    (tmp_path / "a.csv").write_text("benchmark,protocol\n")
    with pytest.raises(ValueError, match="a.csv: column 'method' is missing"):
        published_values(tmp_path / "a.csv")


def test_ours_stand_beside_the_published_by_the_same_names(msrvtt_table):
    films = films_of(NAMES)
    found = evaluate_benchmark(msrvtt_table, films, texts_for(films, NAMES))
    theirs = published_values()
    theirs = theirs[theirs["benchmark"] == "MSR-VTT 1k-A"]
    assert set(theirs["protocol"]) <= set(found["protocol"]) and set(theirs["metric"]) <= set(found["metric"])
