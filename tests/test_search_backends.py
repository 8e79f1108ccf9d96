"""What is behind `Retriever`: ties settled one way, blocks that change nothing, Eq. 1 by torch."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from impart_utils import search_backends
from impart_utils.search_backends import augment_torch, settle_ties, sklearn_search, torch_search
from impart_utils.vanilla import augment, augment_fused

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def unit_rows(rows, d, seed):
    block = np.random.default_rng(seed).normal(size=(rows, d)).astype(np.float32)
    return block / np.linalg.norm(block, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_blocks_change_nothing(block):
    references, queries = unit_rows(40, 8, 0), unit_rows(17, 8, 1)
    expected = sklearn_search(references)(queries, 5)
    similarities, indices = torch_search(references, block=block)(queries, 5)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(similarities, expected[0], atol=1e-6)


def test_a_block_never_holds_more_than_so_many_scores(monkeypatch):
    import torch

    sizes, real = [], torch.Tensor.topk

    def counted(scores, *arguments, **options):
        sizes.append(scores.numel())
        return real(scores, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "topk", counted)
    monkeypatch.setattr(search_backends, "SCORES", 100)
    torch_search(unit_rows(40, 8, 0))(unit_rows(17, 8, 1), 5)
    torch_search(unit_rows(400, 8, 0))(unit_rows(3, 8, 1), 5)  # one query at least
    assert sizes == [80] * 8 + [40] + [400] * 3


def test_settling_by_hand():
    """Rows 1, 3 and 4 are one vector; a backend may have named 4 and 3 for k = 2, with rounding."""
    references = np.array([[0, 1], [1, 0], [-1, 0], [1, 0], [1, 0]], np.float32)
    queries = np.array([[1, 0], [0, 1]], np.float32)
    similarities = np.array([[1.0, 1 - 6e-8, 1 - 6e-8], [1.0, 0.3, 0.0]], np.float32)
    indices = np.array([[4, 3, 1], [0, 7, 1]])  # the second row has no tie: whatever stands there stays
    settle_ties(references, queries, similarities, indices, 2)
    np.testing.assert_array_equal(indices[:, :2], [[1, 3], [0, 7]])
    np.testing.assert_array_equal(similarities[0, :2], [1, 1])
    assert similarities[1, 1] == np.float32(0.3)


def test_settling_in_small_blocks(monkeypatch):
    references = np.tile(unit_rows(5, 6, 0), (4, 1))
    queries = unit_rows(30, 6, 1)
    results = []
    for scores in (2**26, 45):
        monkeypatch.setattr(search_backends, "SCORES", scores)
        similarities, indices = sklearn_search(references)(queries, 7)
        settle_ties(references, queries, similarities, indices, 6)
        results.append((similarities[:, :6], indices[:, :6]))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (np.diff(results[0][1][:, :4], axis=1) == 5).all()  # the four copies in order of rows


@pytest.mark.parametrize("block", [1, 4, 500])
@pytest.mark.parametrize("top_k", [1, 5])
def test_eq1_by_torch_equals_the_plain_form(block, top_k):
    rng = np.random.default_rng(3)
    v, R_img, R_txt = (rng.normal(0, 3, (rows, 7)).astype(np.float32) for rows in (11, 20, 20))
    indices = rng.integers(0, 20, (11, top_k))
    weights = {"image_weight": 0.7, "text_weight": -0.2}
    expected = augment(v, R_img[indices], R_txt[indices], **weights)
    found = augment_torch(v, indices, R_img, R_txt, block=block, **weights)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(found, augment_fused(v, indices, R_img, R_txt, **weights), atol=2e-6)
    assert found.dtype == np.float32
    with pytest.raises(Exception, match="(?i)range|index"):  # torch's own message
        augment_torch(v, np.full((11, 1), 20), R_img, R_txt)


def test_the_benchmark_s_ways_are_the_same_method(monkeypatch):
    """What is timed against each other: the paper's code's steps and the kit's, up to the inert division."""
    monkeypatch.syspath_prepend(BENCHMARKS)  # it takes up its neighbor, timing.py
    benchmark = importlib.import_module("retrieval")

    v, R_img, R_txt = benchmark.random_features(230, 60, 16)
    indices, augmented = benchmark.papers_way(v, R_img, R_txt)  # three batches, the last one smaller
    assert indices.shape == (230, 8)
    for backend in ("sklearn", "torch"):
        others, v_prime = benchmark.kit_way(v, R_img, R_txt, backend)
        benchmark.require_same_neighbors(v, R_img, indices, others)
        np.testing.assert_allclose(v_prime / 1.55, augmented, atol=1e-5)
    wrong = indices.copy()
    wrong[7, 2] = np.setdiff1d(np.arange(60), indices[7])[0]
    with pytest.raises(AssertionError):
        benchmark.require_same_neighbors(v, R_img, indices, wrong)
    table = benchmark.small(n=60, m=30, dim=8, rounds=1)
    assert list(table.index) == ["paper's code", "sklearn", "torch"]
    assert table.loc["paper's code", "ratio"] == 1 and (table["ratio"] > 0).all()


def test_the_benchmark_s_large_job_at_a_small_size(monkeypatch):
    pytest.importorskip("faiss", reason="faiss-cpu (the `scale` extra) isn't installed")
    monkeypatch.syspath_prepend(BENCHMARKS)
    table = importlib.import_module("retrieval").large(n=30, m=200, dim=16, rounds=1)
    assert list(table.index) == ["sklearn, cosine", "sklearn, euclidean", "Retriever, faiss",
                                 "Retriever, torch"]
    assert table["ratio"].iloc[:2].max() >= 1 and (table["ratio"].iloc[:2] == 1).any()
