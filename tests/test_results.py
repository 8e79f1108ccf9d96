"""Rows of video_retrieval.csv: from the film table to the file and back."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from impart_utils.config import load_config
from impart_utils.evidence import results
from impart_utils.gallery import Gallery

CONFIG = load_config("demo")
FILMS = Gallery("toy", ["a", "b"], ["M", "M"], ["", ""], ["x", "y"], ["", ""], [None, None],
                [np.arange(2.0)] * 2, [np.ones((2, 3), np.float32)] * 2, {}, "the kit's tiny CLIP")


@dataclasses.dataclass
class References:
    key: str = "r1"


def film_table():
    rows = [("mean_raw", "CLIP"), ("mean_raw", "NNN"), ("mean_unit", "Eq. 1 on frames"), ("", "chance")]
    interval = {"chance": {"low": np.nan, "high": np.nan}}
    return pd.DataFrame([
        {"query": "description", "pooling": pooling, "variant": variant, "metric": metric, "value": 0.25,
         "n": 2, **interval.get(variant, {"low": 0.1, "high": 0.4})}
        for pooling, variant in rows for metric in ("R@1", "MRR")])


def test_a_reader_that_knows_no_variant_finds_plain_clip_by_its_pooling():
    rows = results.video_rows(CONFIG, FILMS, film_table(), References())
    first = rows[(rows["metric"] == "R@1")]
    assert first["pooling"].tolist() == ["mean_raw", "NNN, mean_raw", "Eq. 1 on frames, mean_unit", "chance"]
    assert first["variant"].tolist() == ["CLIP", "NNN", "Eq. 1 on frames", "chance"]
    assert not rows.duplicated(["query", "pooling", "metric"]).any()


def test_only_ways_that_use_references_depend_on_them():
    one, other = (results.video_rows(CONFIG, FILMS, film_table(), References(key)) for key in ("r1", "r2"))
    same = one["inputs"] == other["inputs"]
    assert same.tolist() == one["variant"].isin(["CLIP", "chance"]).tolist()


def test_the_file_is_read_back_with_empty_intervals_of_chance(tmp_path):
    rows = results.video_rows(CONFIG, FILMS, film_table(), References())
    path = tmp_path / "video_retrieval.csv"
    results.write_results(rows, path, results.VIDEO_COLUMNS)
    table = results.read_results(path)
    assert list(table.columns) == list(results.VIDEO_COLUMNS) and table.columns[-1] == "variant"
    assert table.loc[table["variant"] == "chance", ["low", "high"]].isna().all(axis=None)
    assert table["value"].tolist() == [0.25] * 8


def test_a_file_from_before_variants_is_refused_by_name(tmp_path):
    path = tmp_path / "video_retrieval.csv"
    results.video_rows(CONFIG, FILMS, film_table()).drop(columns="variant").to_csv(path, index=False)
    with pytest.raises(ValueError, match="column 'variant' is missing"):
        results.read_results(path)
