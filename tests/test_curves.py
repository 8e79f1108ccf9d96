"""Curves over the reference set: each point against Eq. 1 done by hand; what stays fixed along a curve."""

import numpy as np
import pandas as pd
import pytest

from impart_utils.evidence import curves
from impart_utils.evidence.controls import random_neighbors, shuffled_captions
from impart_utils.evidence.eq1 import eq1
from impart_utils.retrieval import Retriever
from impart_utils.zeroshot import unit

QUICK = {"draws": 3, "seed": 4, "top_k": 4, "image_weight": 0.6, "text_weight": 0.8}


@pytest.fixture(scope="module")
def world():
    """v (80, 8), labels, W (5, 8) and a pool of 120 pairs."""
    rng = np.random.default_rng(0)
    v, P_img, P_txt = (rng.normal(size=(n, 8)).astype(np.float32) * 10 for n in (80, 120, 120))
    return v, rng.integers(0, 5, 80), rng.normal(size=(5, 8)).astype(np.float32), P_img, P_txt


def by_hand(world, used, R_txt=None, indices=None):
    v, labels, W, P_img, P_txt = world
    R_img, R_txt = P_img[used], P_txt[used] if R_txt is None else R_txt
    k = min(4, len(used))
    if indices is None:
        _, indices = Retriever(R_img).search(v, k)
    scores = eq1(v, R_img, R_txt, W, indices, top_k=k, image_weight=0.6, text_weight=0.8)
    return np.mean(scores.argmax(axis=1) == labels)


def draw(pool, references, number):
    return np.random.default_rng([4, number]).permutation(pool)[:references]


def at(table, method, x, number):
    rows = table[(table["method"] == method) & (table["x"] == x) & (table["draw"] == number)]
    assert len(rows) == 1
    return rows["accuracy"].item()


def test_size_curve_equals_eq_1_by_hand(world):
    table = curves.size_curve(*world, sizes=(2, 10, 50, 500), **QUICK)
    assert table["x"].unique().tolist() == [2, 10, 50, 120]  # 500 is the whole pool of 120
    assert len(table) == 3 * 4 * 2 and (table["n"] == 80).all() and (table["references"] == table["x"]).all()
    for number in range(3):
        for size in (2, 10, 50):
            used = draw(120, size, number)
            assert at(table, curves.NEAREST, size, number) == pytest.approx(by_hand(world, used))
            chance = random_neighbors(80, size, min(4, size), seed=number)
            assert at(table, curves.RANDOM, size, number) == pytest.approx(by_hand(world, used, None, chance))


def test_the_whole_pool_has_one_nearest_set_and_several_random_ones(world):
    table = curves.size_curve(*world, sizes=(120,), **QUICK)
    nearest, chance = (table[table["method"] == name]["accuracy"] for name in (curves.NEAREST, curves.RANDOM))
    assert nearest.nunique() == 1 and nearest.iloc[0] == pytest.approx(by_hand(world, np.arange(120)))
    assert chance.nunique() > 1


def test_shuffle_curve_changes_captions_only(world):
    table = curves.shuffle_curve(*world, references=50, shares=(0.0, 0.5, 1.0), **QUICK)
    for number in range(3):
        used = draw(120, 50, number)
        assert at(table, curves.NEAREST, 0.0, number) == pytest.approx(by_hand(world, used))
        half = shuffled_captions(world[4][used], seed=[4, number], share=0.5)
        assert at(table, curves.NEAREST, 0.5, number) == pytest.approx(by_hand(world, used, half))
    blind = curves.shuffle_curve(*world, references=50, shares=(0.0, 1.0), **{**QUICK, "text_weight": 0.0})
    assert (blind.groupby(["method", "draw"])["accuracy"].nunique() == 1).all()  # without captions: no change


def test_filter_curve_keeps_the_size_and_takes_the_best_pairs(world):
    table = curves.filter_curve(*world, references=20, quantiles=(0.0, 0.75), **QUICK)
    assert (table["references"] == 20).all()
    fit = (unit(world[3]) * unit(world[4])).sum(axis=1)
    best = np.flatnonzero(fit >= np.sort(fit)[-30])  # 30 of 120 are the best quarter
    for number in range(3):
        assert at(table, curves.NEAREST, 0.75, number) == pytest.approx(
            by_hand(world, best[draw(30, 20, number)]))
        assert at(table, curves.NEAREST, 0.0, number) == pytest.approx(by_hand(world, draw(120, 20, number)))
    with pytest.raises(ValueError, match="references=20 or more pairs above the quantile 0.9, got 12 of 120"):
        curves.filter_curve(*world, references=20, quantiles=(0.9,), **QUICK)


def test_named_references_draw_the_same_pairs_for_captions_of_the_same_pictures(world):
    v, labels, W, P_img, P_txt = world
    pools = {"title": (P_img, P_txt), "again": (P_img, P_txt.copy()), "small": (P_img[:15], P_txt[:15])}
    table = curves.named_references(v, labels, W, pools, references=30, **QUICK)
    for number in range(3):
        assert at(table, curves.NEAREST, "title", number) == at(table, curves.NEAREST, "again", number)
        expected = by_hand(world, draw(120, 30, number))
        assert at(table, curves.NEAREST, "title", number) == pytest.approx(expected)
    assert table.set_index("x").loc["small", "references"].unique().tolist() == [15]


def test_all_curves_in_one_table_are_seeded_and_tidy(world):
    options = {**QUICK, "references": 30, "sizes": (10, 120), "shares": (0.0, 1.0), "quantiles": (0.0, 0.5)}
    table = curves.reference_curves(*world, **options)
    assert table.columns.tolist() == ["curve", "x", "method", "draw", "references", "accuracy", "n"]
    assert table["curve"].unique().tolist() == ["size", "shuffled captions", "similarity filter"]
    pd.testing.assert_frame_equal(table, curves.reference_curves(*world, **options))
    other = curves.reference_curves(*world, **{**options, "seed": 5})
    assert (other["accuracy"] != table["accuracy"]).any()
    # where nothing is shuffled or filtered, both curves have the same references
    start = table[(table["x"] == 0.0)].groupby("curve")["accuracy"].apply(list)
    assert start["shuffled captions"] == start["similarity filter"]


def test_band_by_hand():
    rows = [{"curve": "size", "x": 10, "method": "a", "draw": d, "accuracy": value}
            for d, value in enumerate([0.5, 0.6, 0.7])]
    rows += [{"curve": "size", "x": 20, "method": "a", "draw": 0, "accuracy": 0.9}]
    found = curves.band(pd.DataFrame(rows))
    assert found.columns.tolist() == ["curve", "x", "method", "mean", "sd", "low", "high", "draws"]
    assert found.loc[0].tolist() == ["size", 10, "a", pytest.approx(0.6), pytest.approx(0.1), 0.5, 0.7, 3]
    assert found.loc[1, "mean"] == 0.9 and np.isnan(found.loc[1, "sd"])


def test_too_many_references(world):
    with pytest.raises(ValueError, match="references=121 with 120 pairs"):
        curves.shuffle_curve(*world, references=121, **QUICK)
