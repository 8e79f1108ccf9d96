"""The k nearest references: a slow loop as oracle, leave-one-out, ties, and messages."""

import importlib.util

import numpy as np
import pytest

from impart_utils.retrieval import Retriever

FAISS = pytest.param("faiss", marks=pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="faiss-cpu (the `scale` extra) isn't installed"))
BACKENDS = ["sklearn", "torch", FAISS]


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / (sum(float(x) ** 2 for x in a) ** 0.5 * sum(float(y) ** 2 for y in b) ** 0.5)


def slow_search(references, queries, top_k, exclude=None):
    """Every pair of rows, one after the other; ties to the first row."""
    similarities, indices = [], []
    for row, query in enumerate(queries):
        hidden = set() if exclude is None else set(np.atleast_1d(exclude[row]).tolist())
        found = sorted(
            (-cosine(query, reference), j) for j, reference in enumerate(references) if j not in hidden
        )
        similarities.append([-score for score, _ in found[:top_k]])
        indices.append([j for _, j in found[:top_k]])
    return np.array(similarities), np.array(indices)


def features(m=23, n=7, d=6, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.1, 20, (m, 1))
    return rng.normal(size=(m, d)) * lengths, rng.normal(size=(n, d)) * 5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("top_k", [1, 3, 23])
def test_equals_the_slow_loop(backend, top_k):
    references, queries = features()
    similarities, indices = Retriever(references, backend=backend).search(queries, top_k)
    expected_similarities, expected_indices = slow_search(references, queries, top_k)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(similarities, expected_similarities, atol=2e-6)
    assert similarities.dtype == np.float32 and indices.dtype == np.int64
    assert (np.diff(similarities, axis=1) <= 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_hand(backend):
    # cosines of (1, 0) with the four: 0, 1, -1, 0.6
    references = [[0, 5], [3, 0], [-1, 0], [3, 4]]
    similarities, indices = Retriever(references, backend=backend).search([[1, 0]], 4)
    np.testing.assert_array_equal(indices, [[1, 3, 0, 2]])
    np.testing.assert_allclose(similarities, [[1, 0.6, 0, -1]], atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", FAISS])
def test_backends_agree_on_many_rows(backend):
    references, queries = features(m=1500, n=2100, d=32, seed=1)  # more queries than torch's block
    plain_similarities, plain = Retriever(references).search(queries, 8)
    similarities, indices = Retriever(references, backend=backend).search(queries, 8)
    np.testing.assert_array_equal(indices, plain)
    np.testing.assert_allclose(similarities, plain_similarities, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_norms_play_no_part(backend):
    references, queries = features()
    rng = np.random.default_rng(3)
    similarities, indices = Retriever(references, backend=backend).search(queries, 5)
    longer = Retriever(references * rng.uniform(0.01, 100, (23, 1)), backend=backend)
    other_similarities, other_indices = longer.search(queries * rng.uniform(0.01, 100, (7, 1)), 5)
    np.testing.assert_array_equal(indices, other_indices)
    np.testing.assert_allclose(similarities, other_similarities, atol=1e-6)


def test_nothing_is_normalized_in_place():
    references, queries = (block.astype(np.float32) for block in features())
    before = references.copy(), queries.copy()
    retriever = Retriever(references)
    retriever.search(queries, 3, exclude=np.zeros(7, int))
    np.testing.assert_array_equal(references, before[0])
    np.testing.assert_array_equal(queries, before[1])
    np.testing.assert_allclose(np.linalg.norm(retriever.references, axis=1), 1, atol=1e-6)
    references[:] = 1  # the retriever holds a copy of its own
    np.testing.assert_array_equal(retriever.search(before[1], 3)[1], slow_search(before[0], before[1], 3)[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_any_number_type(dtype):
    references, queries = (np.rint(10 * block).astype(dtype) for block in features())
    _, indices = Retriever(references).search(queries, 4)
    np.testing.assert_array_equal(indices, slow_search(references, queries, 4)[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reference_is_its_own_nearest(backend):
    references, _ = features(m=40, d=16)
    similarities, indices = Retriever(references, backend=backend).search(references, 2)
    np.testing.assert_array_equal(indices[:, 0], np.arange(40))
    np.testing.assert_allclose(similarities[:, 0], 1, atol=1e-6)
    assert similarities[:, 1].max() < 0.999


@pytest.mark.parametrize("backend", BACKENDS)
def test_leave_one_out(backend):
    references, _ = features()
    own = np.arange(23)
    similarities, indices = Retriever(references, backend=backend).search(references, 4, exclude=own)
    expected_similarities, expected = slow_search(references, references, 4, exclude=own)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(similarities, expected_similarities, atol=2e-6)
    assert not (indices == own[:, None]).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_minus_one_excludes_nothing(backend):
    references, _ = features()
    exclude = np.where(np.arange(23) % 2, np.arange(23), -1)
    _, indices = Retriever(references, backend=backend).search(references, 4, exclude=exclude)
    expected = slow_search(references, references, 4, exclude=[[] if row < 0 else [row] for row in exclude])[
        1
    ]
    np.testing.assert_array_equal(indices, expected)
    assert (indices[::2, 0] == np.arange(0, 23, 2)).all()  # where nothing is hidden, a row finds itself
    _, all_kept = Retriever(references, backend=backend).search(references, 4, exclude=np.full(23, -1))
    np.testing.assert_array_equal(all_kept, Retriever(references, backend=backend).search(references, 4)[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_excluding_copies_by_a_list_of_arrays(backend):
    references, _ = features(m=12)
    references[9] = 2 * references[1]  # a copy of another length
    queries = references[[1, 5]]
    _, indices = Retriever(references, backend=backend).search(
        queries, 3, exclude=[np.array([1, 9]), np.array([5])]
    )
    expected = slow_search(references, queries, 3, exclude=[[1, 9], [5]])[1]
    np.testing.assert_array_equal(indices, expected)
    mixed = [np.array([9, 1, 1, -1]), np.array([], dtype=int)]  # repeated, -1 inside, empty
    _, indices = Retriever(references, backend=backend).search(queries, 3, exclude=mixed)
    np.testing.assert_array_equal(indices, slow_search(references, queries, 3, exclude=[[1, 9], []])[1])


def test_excluding_a_far_row_changes_nothing():
    references, queries = features()
    far = slow_search(references, queries, 23)[1][:, -1]
    plain = Retriever(references).search(queries, 5)
    without = Retriever(references).search(queries, 5, exclude=far)
    np.testing.assert_array_equal(plain[1], without[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_references_but_the_excluded_can_be_asked_for(backend):
    references, _ = features(m=6)
    _, indices = Retriever(references, backend=backend).search(references, 5, exclude=np.arange(6))
    for row in range(6):
        assert sorted(indices[row]) == [j for j in range(6) if j != row]


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_inside_the_result_come_in_order_of_rows(backend):
    references = [[0, 1], [2, 0], [1, 0], [3, 0], [1, 1]]
    _, indices = Retriever(references, backend=backend).search([[5, 0]], 4)
    np.testing.assert_array_equal(indices, [[1, 2, 3, 4]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_at_the_last_place_go_to_the_first_rows(backend):
    """Of equal references the first rows are taken, even where only some of them fit in."""
    base, queries = features(m=37, n=50, d=64, seed=2)
    references = np.tile(base, (4, 1))  # row r has copies at r + 37, r + 74, r + 111
    _, indices = Retriever(references, backend=backend).search(queries, 6)
    best = slow_search(base, queries, 2)[1]
    expected = np.concatenate([best[:, :1] + [0, 37, 74, 111], best[:, 1:] + [0, 37]], axis=1)
    np.testing.assert_array_equal(indices, expected)
    _, one = Retriever([[1, 0]] * 9, backend=backend).search([[1, 0]], 2)
    np.testing.assert_array_equal(one, [[0, 1]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_at_the_last_place_with_a_row_excluded(backend):
    _, indices = Retriever([[1, 0]] * 9, backend=backend).search([[1, 0]], 2, exclude=[1])
    np.testing.assert_array_equal(indices, [[0, 2]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_query(backend):
    for exclude in (None, np.empty(0, int)):
        similarities, indices = Retriever(np.eye(4), backend=backend).search(
            np.zeros((0, 4)), 3, exclude=exclude
        )
        assert similarities.shape == indices.shape == (0, 3)
        assert similarities.dtype == np.float32 and indices.dtype == np.int64


def with_copies(seed, m=400, n=90, d=48):
    """References in which every third row is a copy of an earlier one, of another length; queries too."""
    rng = np.random.default_rng(seed)
    references = rng.normal(size=(m, d)).astype(np.float32)
    copies = np.arange(2, m, 3)
    references[copies] = references[rng.integers(0, 30, len(copies)) * 3] * 4  # a power of two: exactly equal
    queries = references[rng.integers(0, m, n)] + rng.normal(0, 0.4, (n, d)).astype(np.float32)
    queries[:20] = references[:20]
    return references, queries


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_with_many_copies_all_backends_give_the_slow_loop_s_rows(backend, seed):
    references, queries = with_copies(seed)
    similarities, indices = Retriever(references, backend=backend).search(queries, 8)
    R, v = (block / np.linalg.norm(block, axis=1, keepdims=True)
            for block in (references.astype(float), queries.astype(float)))
    exact = np.round(v @ R.T, 9)  # (n, m): copies are equal
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(similarities, np.take_along_axis(exact, expected, axis=1), atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_backend_gives_the_same_answer_twice(backend):
    references, queries = with_copies(5)
    retriever = Retriever(references, backend=backend)
    first, again = retriever.search(queries, 7), retriever.search(queries, 7)
    anew = Retriever(references, backend=backend).search(queries, 7)
    for other in (again, anew):
        assert first[0].tobytes() == other[0].tobytes() and first[1].tobytes() == other[1].tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_leave_one_out_with_copies(backend):
    """Each reference asks, without itself and its copies; without a list of them its copies come first."""
    references, _ = with_copies(6)
    unit = references / np.linalg.norm(references, axis=1, keepdims=True)
    groups = [np.flatnonzero(np.abs(unit - row).max(axis=1) < 1e-6) for row in unit]
    assert max(map(len, groups)) > 5
    retriever = Retriever(references, backend=backend)
    similarities, indices = retriever.search(references, 4, exclude=groups)
    assert similarities.max() < 0.9 and not any(np.isin(found, own).any()
                                                for found, own in zip(indices, groups, strict=True))
    expected = slow_search(references, references[:12], 4, exclude=groups[:12])[0]
    np.testing.assert_allclose(similarities[:12], expected, atol=2e-6)
    similarities, indices = retriever.search(references, 1, exclude=np.arange(len(references)))
    for row, group in enumerate(groups):
        if len(group) > 1:
            assert similarities[row, 0] > 1 - 1e-6 and indices[row, 0] == group[group != row][0]


def test_auto_is_scikit_learn_up_to_100_000_references_then_faiss_or_torch(monkeypatch):
    from impart_utils import search_backends

    assert search_backends.MANY == 100_000 and Retriever(np.eye(3)).backend == "sklearn"
    monkeypatch.setattr(search_backends, "MANY", 3)
    for installed, expected in ((None, "torch"), ("a spec", "faiss")):
        monkeypatch.setattr(search_backends.importlib.util, "find_spec", lambda name, spec=installed: spec)
        assert Retriever(np.eye(3)).backend == "sklearn" and Retriever(np.eye(4)).backend == expected
        assert Retriever(np.eye(4), backend="sklearn").backend == "sklearn"


@pytest.mark.parametrize("length", [1e-30, 1e-10, 1e18, 1e30])
def test_very_short_and_very_long_vectors(length):
    references, queries = (block.astype(np.float32) for block in features())
    expected = slow_search(references, queries, 3)
    similarities, indices = Retriever(references * np.float32(length)).search(queries * np.float32(length), 3)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(similarities, expected[0], atol=2e-6)


def test_queries_do_not_depend_on_their_neighbors_in_the_batch():
    references, queries = features(m=300, n=60, d=32)
    together = Retriever(references).search(queries, 5)[1]
    alone = np.concatenate([Retriever(references).search(query[None], 5)[1] for query in queries])
    np.testing.assert_array_equal(together, alone)


def test_unknown_backend_lists_the_known():
    with pytest.raises(ValueError, match="Unknown backend 'annoy'. Known backends: auto, sklearn, torch"):
        Retriever(np.eye(3), backend="annoy")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_that_is_not_finite_is_named(backend, value):
    bad = np.ones((5, 3))
    bad[3, 1] = value
    with pytest.raises(ValueError, match="Row 3 of reference_features is zero or not finite"):
        Retriever(bad, backend=backend)
    with pytest.raises(ValueError, match="Row 3 of image_features is zero or not finite"):
        Retriever(np.ones((5, 3)), backend=backend).search(bad, 1)


def test_a_zero_row_is_named():
    bad = np.ones((5, 3))
    bad[4] = 0
    with pytest.raises(ValueError, match="Row 4 of reference_features is zero"):
        Retriever(bad)
    with pytest.raises(ValueError, match="Row 4 of image_features is zero"):
        Retriever(np.ones((5, 3))).search(bad, 1)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (3, 0)])
def test_features_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"Expected reference_features of shape \(rows, d\), got"):
        Retriever(np.ones(shape))
    with pytest.raises(ValueError, match=r"Expected image_features of shape \(rows, d\), got"):
        Retriever(np.eye(3)).search(np.ones(shape), 1)


def test_another_dimension():
    with pytest.raises(
        ValueError, match="image_features with 512 columns like the references, got 64. Encode both"
    ):
        Retriever(np.ones((2, 512))).search(np.ones((1, 64)), 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_top_k_larger_than_the_references(backend):
    message = (
        "Expected top_k <= number of references, got top_k=9 with 8 references. Lower top_k or use a larger"
    )
    with pytest.raises(ValueError, match=message):
        Retriever(np.eye(8), backend=backend).search(np.eye(8), 9)


def test_top_k_larger_than_what_exclusion_leaves():
    with pytest.raises(ValueError, match="top_k=8 with 8 references of which 1 are excluded for a query"):
        Retriever(np.eye(8)).search(np.eye(8), 8, exclude=np.arange(8))
    with pytest.raises(ValueError, match="top_k=6 with 8 references of which 3 are excluded"):
        Retriever(np.eye(8)).search(np.eye(8)[:2], 6, exclude=[[0, 1, 2], [3]])
    # no exclusion in fact, so 8 are left
    assert Retriever(np.eye(8)).search(np.eye(8), 8, exclude=np.full(8, -1))[1].shape == (8, 8)


@pytest.mark.parametrize("top_k", [0, -3, 2.0, True, "8", None])
def test_top_k_that_is_no_count(top_k):
    with pytest.raises(ValueError, match="Expected top_k to be a whole number of at least 1, got"):
        Retriever(np.eye(8)).search(np.eye(8), top_k)
    assert Retriever(np.eye(8)).search(np.eye(8), np.int64(2))[1].shape == (8, 2)


@pytest.mark.parametrize("exclude, message", [
    ([0], "exclude to have one entry for each of 2 queries, got 1"),
    ([0, 8], "exclude to hold rows from 0 to 7, or -1; got 8 to 8 for query 1"),
    ([-2, 0], "exclude to hold rows from 0 to 7, or -1; got -2 to -2 for query 0"),
    ([[0, 1], [3, 99]], "exclude to hold rows from 0 to 7, or -1; got 3 to 99 for query 1"),
])
def test_rows_to_exclude_that_do_not_fit(exclude, message):
    with pytest.raises(ValueError, match=message):
        Retriever(np.eye(8)).search(np.eye(8)[:2], 1, exclude=exclude)


@pytest.mark.parametrize("exclude", [np.array([0.9]), [0.5], [np.nan]])
def test_rows_to_exclude_are_whole_numbers(exclude):
    with pytest.raises((TypeError, ValueError), match="(?i)whole|integer"):
        Retriever(np.eye(8)).search(np.eye(8)[:1], 1, exclude=exclude)


def test_faiss_missing_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "faiss", None)  # as if it weren't installed
    with pytest.raises(ImportError, match=r"pip install -e '\.\[scale\]'.*backend='torch'"):
        Retriever(np.eye(4), backend="faiss").search(np.eye(4), 1)
