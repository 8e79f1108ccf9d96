"""The surface of Eq. 1 over k and weights: each point equals Eq. 1 and predict."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from impart_utils.evidence.surface import TOP_KS, WEIGHTS, paper_marks, surface, surface_counts
from impart_utils.retrieval import Retriever
from impart_utils.vanilla import augment
from impart_utils.zeroshot import predict, unit


def world(n=60, m=40, c=7, d=12, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    v, R_img, R_txt, W = (unit(rng.normal(size=(rows, d))).astype(dtype) for rows in (n, m, m, c))
    return v, rng.integers(0, c, n), W, R_img, R_txt, Retriever(R_img).search(v, 10)[1]


def direct(v, labels, W, R_img, R_txt, indices, k, a, b):
    nearest = indices[:, :k]
    return int((predict(augment(v, R_img[nearest], R_txt[nearest], image_weight=a, text_weight=b), W)
                == labels).sum())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("block", [1, 7, 512])
def test_every_point_equals_eq_1_and_predict(dtype, block):
    given = world(dtype=dtype)
    top_ks, a, b = (1, 2, 3, 8, 10), (0.0, 0.05, 0.5, 2.0), (-0.3, 0.0, 0.05, 1.0, 8.0)
    counts = surface_counts(*given, top_ks=top_ks, image_weights=a, text_weights=b, block=block)
    expected = [[[direct(*given, k, w, u) for u in b] for w in a] for k in top_ks]
    np.testing.assert_array_equal(counts, expected)


def test_raw_vectors_and_classes_of_any_length():
    v, labels, W, R_img, R_txt, indices = world(seed=1)
    rng = np.random.default_rng(5)
    given = (10 * v, labels, W * rng.uniform(1, 9, (7, 1)), 11 * R_img, 10 * R_txt, indices)  # "raw"
    counts = surface_counts(*given, top_ks=(3,), image_weights=(0.5,), text_weights=(0.05,))
    assert counts[0, 0, 0] == direct(*given, 3, 0.5, 0.05)


def test_equal_scores_go_to_the_first_class_as_in_predict():
    v, labels, W, R_img, R_txt, indices = world(n=300, c=3, seed=2)
    doubled = np.concatenate([W, W])  # each class twice: of the two the first is predicted
    for label in (labels, labels + 3):
        given = (v, label, doubled, R_img, R_txt, indices)
        counts = surface_counts(*given, top_ks=(2,), image_weights=(0.0, 0.7), text_weights=(0.0, 0.3))
        expected = [[direct(*given, 2, a, b) for b in (0.0, 0.3)] for a in (0.0, 0.7)]
        np.testing.assert_array_equal(counts[0], expected)
    assert counts.max() == 0  # the second copy of a class is never predicted


def test_by_hand():
    # q = (1, 0) is class 0; the picture (0, 1) with more than 1 turns it to class 1, the text (1, 0) back
    one = np.array([[1.0, 0.0]])
    table = surface(one, np.array([0]), np.eye(2), np.array([[0.0, 1.0]]), one, np.array([[0]]), top_ks=(1,),
                    image_weights=(0.9, 1.5), text_weights=(0.0, 1.0))
    assert table["correct"].tolist() == [1, 1, 0, 1]
    assert table.columns.tolist() == ["k", "image_weight", "text_weight", "correct", "n", "accuracy"]
    assert table[["image_weight", "text_weight"]].values.tolist() == [[0.9, 0], [0.9, 1], [1.5, 0], [1.5, 1]]


def test_a_query_that_is_right_only_inside_the_grid():
    """At each corner another class is ahead, in the middle none is: deciding by corners must not lose it."""
    W = np.eye(5)
    v = np.array([[1.0, 1.1, 0.3, 0.6, 0.0]])          # alone: class 1
    picture = np.array([[0.3, 0.0, 1.3, 0.0, 0.0]])    # with much of it: class 2
    caption = np.array([[0.2, 0.0, 0.0, 0.9, 0.0]])    # with much of that: class 3
    given = (v, np.array([0]), W, picture, caption, np.array([[0]]))
    weights = (0.0, 0.3, 0.5, 1.0)
    counts = surface_counts(*given, top_ks=(1,), image_weights=weights, text_weights=weights)[0]
    np.testing.assert_array_equal(counts, [[direct(*given, 1, a, b) for b in weights] for a in weights])
    assert counts[0, 0] == counts[0, -1] == counts[-1, 0] == counts[-1, -1] == 0 < counts[1:3, 1:3].sum()


def test_near_ties_are_decided_as_in_double_precision():
    """Two classes 1e-6 apart in angle: single precision logits can't tell them apart, the margins can."""
    rng = np.random.default_rng(0)
    W = unit(rng.normal(size=(2, 32)))
    W[1] = unit(W[0] + 1e-6 * W[1])
    v = unit(rng.normal(size=(400, 32)))
    labels = predict(v, W)  # in double precision
    counts = surface_counts(v, labels, W, v, v, np.zeros((400, 1), int), top_ks=(1,), image_weights=(0.0,),
                            text_weights=(0.0,))
    assert counts.item() == 400
    assert (predict(v.astype(np.float32), W.astype(np.float32)) == labels).sum() < 400


def test_the_grid_holds_the_papers_settings_and_is_that_of_the_issue():
    assert len(TOP_KS) == 12 and len(WEIGHTS) == 21
    assert {5, 8} <= set(TOP_KS) and {0.0, 0.05, 0.5} <= set(WEIGHTS)


def test_paper_marks_turn_sums_into_means():
    marks = paper_marks().set_index("commit")
    assert marks.loc["main"].tolist() == [8, "raw", 0.5, 0.05]
    assert marks.loc["jalend"].tolist() == [8, "mixed", 0.05, 0.05]
    assert marks.loc["c234231"].tolist() == [5, "mixed", 2.5, 2.5]  # 0.5 times 5 neighbors, summed
    assert paper_marks("raw")["commit"].tolist() == ["main", "b92e175", "archana", "veera"]


def test_marks_land_on_the_surface_of_their_scale():
    """The point at a sum's mark equals that commit's own scores."""
    from impart_utils.evidence.eq1 import as_scaled, eq1_of_commit

    v, labels, W, R_img, R_txt, indices = world(seed=4)
    raw = 10 * v, 11 * R_img, 10 * R_txt
    for _, mark in paper_marks().iterrows():
        scaled = as_scaled(*raw, mark["scale"])
        count = surface_counts(scaled[0], labels, W, *scaled[1:], indices, top_ks=(mark["k"],),
                               image_weights=(mark["image_weight"],), text_weights=(mark["text_weight"],))
        right = eq1_of_commit(*raw, W, indices, commit=mark["commit"]).argmax(axis=1) == labels
        assert count.item() == right.sum(), mark["commit"]


@pytest.mark.parametrize("change, message", [
    ({"top_ks": (3, 1)}, "rise from 1 or more, got .3, 1."), ({"top_ks": (0, 1)}, "rise from 1"),
    ({"top_ks": ()}, "rise from 1"), ({"top_ks": (1, 11)}, r"\(60, 11 or more\), got \(60, 10\)")])
def test_refused_grids(change, message):
    with pytest.raises(ValueError, match=message):
        surface_counts(*world(), **change)


def test_refused_labels():
    v, labels, W, R_img, R_txt, indices = world()
    with pytest.raises(ValueError, match="from 0 to 6 for each of 60 queries, got labels of .* up to 7"):
        surface_counts(v, labels + 1, W, R_img, R_txt, indices, top_ks=(1,))
    with pytest.raises(ValueError, match="for each of 60 queries, got labels of shape .3,."):
        surface_counts(v, labels[:3], W, R_img, R_txt, indices, top_ks=(1,))


def test_the_benchmark_compares_equal_counts(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    benchmark = importlib.import_module("surface")
    table, total, settings, _ = benchmark.run(80, 30, rounds=1, top_ks=(1, 4), weights=(0.0, 0.5), sample=2)
    assert settings == 8 and total > 0 and list(table.index) == [benchmark.DIRECT, benchmark.MATRICES,
                                                                 benchmark.SURFACE]
    monkeypatch.setattr(benchmark, "surface_counts", lambda *given, **options: np.full((2, 2, 2), 50))
    with pytest.raises(AssertionError, match="the ways differ"):
        benchmark.run(80, 30, rounds=1, top_ks=(1, 4), weights=(0.0, 0.5), sample=2)
