"""Hubs, the modality gap, the captions' offset and cost: by hand, by slow loops, on built cases."""

import time

import numpy as np
import pytest

from impart_utils.evidence import diagnostics
from impart_utils.evidence.controls import random_neighbors
from impart_utils.evidence.eq1 import eq1
from impart_utils.retrieval import Retriever
from impart_utils.zeroshot import unit

# ---- Hubs


def test_k_occurrence_and_hubness_by_hand():
    indices = np.array([[0, 1], [0, 2], [0, 1], [0, 3]])  # reference 0 serves all four, 4 nobody
    np.testing.assert_array_equal(diagnostics.k_occurrence(indices, 5), [4, 2, 1, 1, 0])
    found = diagnostics.hubness(indices, 5, share=0.2)
    deviations = np.array([4, 2, 1, 1, 0]) - 1.6
    assert found["skew"] == pytest.approx((deviations**3).mean() / (deviations**2).mean() ** 1.5)
    assert (found["hub_share"], found["unused"], found["largest"]) == (0.5, 0.2, pytest.approx(2.5))


def test_at_least_one_reference_is_a_hub_and_even_service_has_no_skew():
    found = diagnostics.hubness(np.arange(20).reshape(10, 2), 20, share=0.01)
    assert found == {"skew": 0.0, "hub_share": 0.05, "unused": 0.0, "largest": 1.0}


def test_nearest_neighbors_in_many_dimensions_have_hubs_and_random_ones_have_not():
    rng = np.random.default_rng(0)
    references, queries = rng.normal(size=(300, 100)) + 0.7, rng.normal(size=(2000, 100)) + 0.7
    _, nearest = Retriever(references).search(queries, 8)
    chance = diagnostics.hubness(random_neighbors(2000, 300, 8, seed=0), 300)
    found = diagnostics.hubness(nearest, 300)
    assert found["skew"] > 1 > 0.5 > abs(chance["skew"])
    assert found["hub_share"] > 3 * chance["hub_share"]


def test_hubness_refuses():
    with pytest.raises(ValueError, match="neighbors from 0 to 3, at least one; got 2 up to 7"):
        diagnostics.hubness(np.array([[0, 7]]), 4)
    with pytest.raises(ValueError, match="at least one; got 0"):
        diagnostics.hubness(np.empty((0, 8), int), 4)
    with pytest.raises(ValueError, match="between 0 and 1 of the references as hubs, got 5"):
        diagnostics.hubness(np.array([[0, 1]]), 4, share=5)


@pytest.fixture
def world():
    rng = np.random.default_rng(2)
    v, R_img, R_txt = (rng.normal(size=(n, 8)) + 1 for n in (40, 100, 100))
    return v, rng.integers(0, 4, 40), rng.normal(size=(4, 8)), R_img, R_txt


def test_hub_table_equals_the_steps_by_hand(world):
    v, labels, W, R_img, R_txt = world
    table = diagnostics.hub_table(*world, top_k=5, share=0.05)

    def row(kept, references, queries):
        _, indices = Retriever(references).search(queries, 5)
        right = eq1(v, R_img[kept], R_txt[kept], W, indices, top_k=5).argmax(axis=1) == labels
        return {**diagnostics.hubness(indices, len(kept), share=0.05), "accuracy": right.mean()}

    V, everyone = unit(R_img), np.arange(100)
    counts = np.zeros(100, int)  # how often each is among the 5 nearest of another reference
    for query in range(100):
        others = [j for j in everyone if j != query]
        for j in sorted(others, key=lambda j: -(V[query] @ V[j]))[:5]:
            counts[j] += 1
    hubs = sorted(everyone, key=lambda j: (counts[j], j))[-5:]
    kept = np.array([j for j in everyone if j not in hubs])
    expected = {"as it is": row(everyone, V, v), "without hubs": row(kept, V[kept], v),
                "centered search": row(everyone, V - V.mean(axis=0), unit(v) - V.mean(axis=0))}
    for name, values in expected.items():
        assert table.loc[name, list(values)].to_dict() == pytest.approx(values), name
    assert table["references"].tolist() == [100, 95, 100]


def test_the_middle_of_a_cone_is_the_hub():
    rng = np.random.default_rng(0)
    references = rng.normal(size=(60, 64)) + 0.5
    references[7] = references.mean(axis=0)  # nearer to each than they are to each other
    assert diagnostics.hubs(references, top_k=3, share=1 / 60).tolist() == [7]
    assert 7 in diagnostics.hubs(references, top_k=3, share=0.1) and len(diagnostics.hubs(references)) == 1


# ---- The modality gap


def test_gap_by_hand():
    # pictures (1, 0, 0) and (0, 1, 0), texts both (0, 0, 1): means (.5, .5, 0) and (0, 0, 1)
    pictures, texts = np.array([[2.0, 0, 0], [0, 3.0, 0]]), np.array([[0, 0, 1.0], [0, 0, 5.0]])
    assert diagnostics.gap(pictures, texts) == pytest.approx(
        {"distance": np.sqrt(1.5), "matched": 0, "mismatched": 0, "pictures": 0, "texts": 1})


def test_gap_equals_slow_loops():
    rng = np.random.default_rng(0)
    V, T = unit(rng.normal(size=(15, 6)) + 1), unit(rng.normal(size=(15, 6)) - 1)
    different = [(i, j) for i in range(15) for j in range(15) if i != j]
    found = diagnostics.gap(7 * V, 3 * T)
    assert found["matched"] == pytest.approx(np.mean([V[i] @ T[i] for i in range(15)]))
    assert found["mismatched"] == pytest.approx(np.mean([V[i] @ T[j] for i, j in different]))
    assert found["pictures"] == pytest.approx(np.mean([V[i] @ V[j] for i, j in different]))
    assert found["texts"] == pytest.approx(np.mean([T[i] @ T[j] for i, j in different]))


def test_centering_closes_the_gap_and_keeps_pairs_together():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(200, 16))
    V, T = shared + 4 * np.eye(16)[0], shared - 4 * np.eye(16)[0] + 0.3 * rng.normal(size=(200, 16))
    table = diagnostics.gap_table(V, T)
    assert table.loc["as it is", "distance"] > 1 > 0.1 > table.loc["centered", "distance"]
    assert table.loc["as it is", "matched"] < 0.1 < 0.8 < table.loc["centered", "matched"]
    with pytest.raises(ValueError, match=r"at least two, got \(200, 16\) and \(3, 16\)"):
        diagnostics.gap(V, T[:3])


# ---- The caption term


def test_caption_offset_by_hand():
    # terms of two queries on two classes: captions (1, 0) -> (1, 0), (.6, .8) -> (.6, .8)
    texts = np.array([[1.0, 0.0], [0.6, 0.8]])
    table, share = diagnostics.caption_offset(texts, np.eye(2), np.array([[0], [1]]), top_k=1)
    # less each query's mean: (.5, -.5) and (-.1, .1); their mean (.2, -.2), their deviation .3
    np.testing.assert_allclose(table["offset"], [0.2, -0.2])
    np.testing.assert_allclose(table["spread"], [0.3, 0.3])
    assert share == pytest.approx(0.04 / (0.04 + 0.09))


def test_captions_that_all_say_the_same_are_a_constant():
    texts = np.tile([3.0, 1.0, 0.0], (5, 1))
    _, share = diagnostics.caption_offset(texts, np.eye(3), np.arange(5)[:, None], top_k=1)
    assert share == 1
    _, none = diagnostics.caption_offset(np.eye(3), np.eye(3), np.arange(3)[:, None], top_k=1)
    assert none == pytest.approx(0)  # each class is spoken of once: no class is favored
    with pytest.raises(ValueError, match="at least top_k=8"):
        diagnostics.caption_offset(texts, np.eye(3), np.arange(5)[:, None])


# ---- Cost


def test_cost_measures_time_per_query():
    found = diagnostics.cost(lambda: time.sleep(0.02), 10, repeats=3)
    assert 2.0 <= found["ms_low"] <= found["ms_per_query"] <= found["ms_high"] < 20


def test_cost_measures_the_most_memory_held_at_once():
    def two_arrays():
        a = np.ones(1_000_000)          # 8 MB
        b = np.ones(500_000)            # 4 MB beside it
        return a.sum() + b.sum()

    found = diagnostics.cost(two_arrays, 4, repeats=1)
    assert found["mb_per_query"] == pytest.approx(12 / 4, rel=0.05)
    with pytest.raises(ValueError, match="at least 1, got 0 and 5"):
        diagnostics.cost(two_arrays, 0)


def test_cost_table_has_accuracy_beside_cost():
    scores = np.eye(3)[[0, 1, 2, 2]]
    table = diagnostics.cost_table({"right": lambda: scores, "half": lambda: scores[:, [0, 2, 1]]},
                                   np.array([0, 1, 2, 2]), repeats=2)
    assert table["accuracy"].to_dict() == {"right": 1.0, "half": 0.25}
    assert (table[["ms_low", "ms_per_query", "ms_high", "mb_per_query"]] >= 0).all(axis=None)
