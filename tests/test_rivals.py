"""The neighbors' methods: worked by hand on three references, and in general against slow loops."""

from math import exp, log

import numpy as np
import pytest

from impart_utils.evidence import controls, rivals
from impart_utils.evidence.eq1 import eq1
from impart_utils.retrieval import Retriever
from impart_utils.vanilla import augment
from impart_utils.zeroshot import logits, unit


@pytest.fixture
def world():
    """Raw features: v (7, 6), R_img, R_txt (30, 6), W (4, 6) and 20 nearest neighbors."""
    rng = np.random.default_rng(1)
    v, R_img, R_txt = (rng.normal(size=(n, 6)) * 10 for n in (7, 30, 30))
    return v, R_img, R_txt, rng.normal(size=(4, 6)) + 1, Retriever(R_img).search(v, 20)[1]


def lengths_one(*blocks):
    return [[row / np.sqrt(sum(x * x for x in row)) for row in block] for block in blocks]


def slow_softmax(values):
    powers = [exp(value - max(values)) for value in values]
    return np.array([power / sum(powers) for power in powers])


def entropy(p):
    return -sum(x * log(x) for x in p if x > 0)


# ---- CLIP and prompts


def test_clip_ignores_references(world):
    v, _, _, W, _ = world
    np.testing.assert_array_equal(rivals.clip(v, None, None, W), logits(v, W))


def test_prompt_ensemble_by_hand():
    # class 0 from the prompts (1, 0) and (0, 2): the unit vectors' mean is (.5, .5), at length 1 (.707, .707)
    prompts = np.array([[[1.0, 0.0], [0.0, 2.0]], [[0.0, -1.0], [0.0, -3.0]]])
    q, one_prompt = np.array([[3.0, 0.0]]), np.eye(2)
    scores = rivals.prompt_ensemble(q, None, None, one_prompt, prompt_features=prompts)
    np.testing.assert_allclose(scores, [[100 * np.sqrt(0.5), 0]], atol=1e-12)
    averaged = np.array([[1.0, 1.0], [0.0, -1.0]])  # as zeroshot.class_features gives them
    np.testing.assert_allclose(rivals.prompt_ensemble(q, None, None, one_prompt, prompt_features=averaged),
                               scores, atol=1e-12)
    with pytest.raises(ValueError, match="prompt_features of 2 classes, got 1"):
        rivals.prompt_ensemble(q, None, None, one_prompt, prompt_features=prompts[:1])


# ---- Captions that vote


def test_caption_vote_by_hand():
    # the captions of references 2 and 0 are (0, 1) and (.6, .8); their mean is (.3, .9)
    texts = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    scores = rivals.caption_vote(np.ones((1, 2)), texts, texts, np.eye(2), np.array([[2, 0, 1]]), top_k=2)
    np.testing.assert_allclose(scores, [[30, 90]])


def test_caption_vote_is_the_text_half_of_eq_1(world):
    v, R_img, R_txt, W, indices = world
    half = eq1(*world, query_weight=1e-9, image_weight=0, text_weight=1)  # only the captions are left
    np.testing.assert_array_equal(rivals.caption_vote(*world).argmax(axis=1), half.argmax(axis=1))


def test_x_more_by_hand():
    """Two classes, two captions; cosines so small that softmax(100 cos) is neither 0 nor 1."""
    a, b = np.array([0.01, 0.0, 1.0]), np.array([0.0, 0.02, 1.0])
    W, q = np.array([[1.0, 0, 0], [0, 1.0, 0]]), a[None]
    texts = np.stack([a, b])
    p_query = slow_softmax([100 * 0.01 / np.sqrt(1.0001), 0])
    p_second = slow_softmax([0, 100 * 0.02 / np.sqrt(1.0004)])
    p_text = (p_query + p_second) / 2  # the first caption is the query's own vector
    expected = ((1 - entropy(p_query) / log(2)) * p_query + (1 - entropy(p_text) / log(2)) * p_text)
    found = rivals.x_more(q, texts, texts, W, np.array([[0, 1]]), captions=2)
    np.testing.assert_allclose(found, [expected], rtol=1e-9)


def test_x_more_ranks_the_pool_by_caption_and_equals_a_slow_loop(world):
    v, R_img, R_txt, W, indices = world
    q, T, names = lengths_one(v, R_txt, W)
    for row, query in enumerate(q):
        pool = sorted(indices[row][:12], key=lambda j: -(query @ T[j]))[:5]
        p_query = slow_softmax([100 * query @ name for name in names])
        p_text = np.mean([slow_softmax([100 * T[j] @ name for name in names]) for j in pool], axis=0)
        expected = sum((1 - entropy(p) / log(4)) * p for p in (p_query, p_text))
        np.testing.assert_allclose(rivals.x_more(*world, pool=12, captions=5)[row], expected, rtol=1e-9)


def test_x_more_trusts_the_surer_side():
    W = np.eye(3)
    unsure, sure = np.array([[1.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 1.0]])
    captions = np.array([[0.0, 1.0, 0.0]])
    one = np.array([[0]])
    assert rivals.x_more(unsure, captions, captions, W, one, captions=1).argmax() == 1  # the caption decides
    p = rivals.x_more(sure, np.ones((1, 3)), np.ones((1, 3)), W, one, captions=1)
    np.testing.assert_allclose(p, [[0, 0, 1]], atol=1e-9)  # a caption that says nothing has no weight
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        rivals.x_more(sure, captions, captions, W[:1], one, captions=1)


# ---- All references vote


def test_tip_adapter_by_hand():
    # affinities 1 and 0 to the two references, whose captions are certain of class 0 and class 1
    v, texts = np.array([[1.0, 0.0]]), 5 * np.eye(2)
    scores = rivals.tip_adapter(v, np.eye(2), texts, np.eye(2), alpha=2.0, beta=3.0)
    np.testing.assert_allclose(scores, [[100 + 2, 2 * exp(-3)]], rtol=1e-9)


@pytest.mark.parametrize("shots", [None, 16])
def test_tip_adapter_and_tip_x_equal_slow_loops(world, shots):
    v, R_img, R_txt, W, _ = world
    q, V, T, names = lengths_one(v, R_img, R_txt, W)
    L = np.array([slow_softmax([100 * text @ name for name in names]) for text in T])
    if shots:
        L = np.array([[row[c] * shots / sum(L[:, c]) for c in range(4)] for row in L])

    def likeness(x):
        return slow_softmax([x @ name / 0.5 for name in names])

    def kl(p, r):
        return sum(p[c] * log(p[c] / r[c]) for c in range(4))

    own = np.array([[-kl(likeness(a), likeness(b)) for b in V] for a in V])
    cosines = np.array([[a @ b for b in V] for a in V])

    def rescaled(value):
        share = (value - own.min()) / (own.max() - own.min())
        return cosines.min() + share * (cosines.max() - cosines.min())

    for row, query in enumerate(q):
        tip = np.array([100 * query @ name for name in names])
        for j in range(30):
            tip += 1.5 * exp(-2 * (1 - query @ V[j])) * L[j]
        np.testing.assert_allclose(rivals.tip_adapter(*world, alpha=1.5, beta=2.0, shots=shots)[row], tip)
        for j in range(30):
            tip += 0.7 * rescaled(-kl(likeness(query), likeness(V[j]))) * L[j]
        found = rivals.tip_x(*world, alpha=1.5, beta=2.0, gamma=0.7, shots=shots)[row]
        np.testing.assert_allclose(found, tip, rtol=1e-6)


def test_soft_labels_sum_to_one_or_to_the_shots(world):
    _, _, R_txt, W, _ = world
    np.testing.assert_allclose(rivals.soft_labels(R_txt, W).sum(axis=1), 1)
    np.testing.assert_allclose(rivals.soft_labels(R_txt, W, shots=16).sum(axis=0), 16)


def test_many_captions_of_one_class_drown_the_query_unless_balanced():
    v, W = np.array([[0.0, 1.0]]), np.eye(2)
    texts = np.repeat([[1.0, 0.0], [0.0, 1.0]], [299, 1], axis=0)  # 299 captions say class 0
    assert rivals.tip_adapter(v, texts, texts, W).argmax() == 0
    assert rivals.tip_adapter(v, texts, texts, W, shots=16).argmax() == 1


# ---- Means and biases


def test_distribution_normalization_by_hand():
    # mean picture (.5, .5), mean class (.5, .5); half of it: q (1, 0) becomes (.75, -.25), as does class 0
    scores = rivals.distribution_normalization(np.array([[2.0, 0.0]]), 7 * np.eye(2), np.eye(2), np.eye(2),
                                               strength=0.5)
    np.testing.assert_allclose(scores, [[100, 100 * -2 * 0.75 * 0.25 / (0.75**2 + 0.25**2)]])


def test_distribution_normalization_without_strength_is_clip(world):
    np.testing.assert_allclose(rivals.distribution_normalization(*world, strength=0.0), rivals.clip(*world))


def test_nnn_by_hand():
    # class 0: the two nearest of the cosines 1, .8, 0 have the mean .9; class 1: .8 from 1, .6, 0
    pictures = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    scores = rivals.nearest_neighbor_normalization(np.array([[0.6, 0.8]]), pictures, pictures, np.eye(2),
                                                   top_k=2, alpha=0.5)
    np.testing.assert_allclose(scores, [[60 - 0.5 * 90, 80 - 0.5 * 80]])


def test_nnn_mends_a_class_that_is_near_to_everything():
    hub = np.array([1.0, 1.0, 1.0]) / np.sqrt(3)
    W = np.stack([hub, [1.0, 0, 0], [0, 1.0, 0]])
    pictures = unit(np.random.default_rng(0).random((200, 3)))
    v = np.array([[0.8, 0.5, 0.3]])
    assert rivals.clip(v, None, None, W).argmax() == 0
    assert rivals.nearest_neighbor_normalization(v, pictures, None, W, top_k=200, alpha=1.0).argmax() == 1
    with pytest.raises(ValueError, match="top_k=201 with 200 references"):
        rivals.nearest_neighbor_normalization(v, pictures, None, W, top_k=201)


def test_gap_shift_by_hand():
    # pictures at (1, 0), texts at (0, 1): the gap is (1, -1), the shifted query (1, 0) - (1, -1) = (0, 1)
    pictures, texts = np.tile([2.0, 0.0], (3, 1)), np.tile([0.0, 5.0], (3, 1))
    np.testing.assert_allclose(rivals.modality_gap(pictures, texts), [1, -1])
    scores = rivals.gap_shift(np.array([[4.0, 0.0]]), pictures, texts, np.eye(2))
    np.testing.assert_allclose(scores, [[0, 100]])
    half = rivals.gap_shift(np.array([[4.0, 0.0]]), pictures, texts, np.eye(2), strength=0.5)
    np.testing.assert_allclose(half, [[100 * np.sqrt(0.5), 100 * np.sqrt(0.5)]])


def test_centered_captions_in_eq_1_equal_a_slow_loop(world):
    v, R_img, R_txt, W, indices = world
    q, V, T = (np.array(block) for block in lengths_one(v, R_img, R_txt))
    centered = lengths_one([text - T.mean(axis=0) for text in T])[0]
    gap = V.mean(axis=0) - T.mean(axis=0)
    moved = lengths_one([text + 0.5 * gap for text in T])[0]
    for method, texts, own in ((rivals.eq1_centered, centered, {}),
                               (rivals.eq1_shifted, moved, {"strength": 0.5})):
        nearest = indices[:, :3]
        expected = augment(q, V[nearest], np.array(texts)[nearest], image_weight=0.4, text_weight=0.6)
        found = method(*world, top_k=3, image_weight=0.4, text_weight=0.6, **own)
        np.testing.assert_allclose(found, logits(expected, W))


def test_what_all_captions_share_moves_no_centered_score(world):
    """The hypothesis of literature.md §1 in one picture: a direction common to all texts favors a class."""
    v, R_img, R_txt, W, indices = world
    biased = unit(R_txt) + 20 * unit(W)[2]  # every caption speaks of class 2
    plain = rivals.eq1(v, R_img, biased, W, indices, text_weight=5.0)
    assert (plain.argmax(axis=1) == 2).all()
    assert (rivals.eq1_centered(v, R_img, biased, W, indices, text_weight=5.0).argmax(axis=1) != 2).any()


def test_captions_that_are_all_the_same_can_not_be_centered():
    with pytest.raises(ValueError, match="Row 0 of the centered features is zero"):
        rivals.centered(np.ones((3, 2)))


# ---- What holds for all of them


def default_world(seed=0):
    rng = np.random.default_rng(seed)
    v, R_img, R_txt = (rng.normal(size=(n, 16)) * 10 for n in (12, 200, 200))
    return v, R_img, R_txt, rng.normal(size=(5, 16)), Retriever(R_img).search(v, 128)[1]


@pytest.mark.parametrize("name", rivals.METHODS)
def test_every_method_runs_with_its_defaults_and_looks_at_each_query_alone(name):
    """Also X-MoRe, whose released code weights a query by those before it, and TIP-X with its ranges."""
    v, R_img, R_txt, W, indices = default_world()
    before = [part.copy() for part in (v, R_img, R_txt, W, indices)]
    scores = rivals.METHODS[name](v, R_img, R_txt, W, indices)
    assert scores.shape == (12, 5) and np.isfinite(scores).all()
    some = [7, 2, 11]
    alone = rivals.METHODS[name](v[some], R_img, R_txt, W, indices[some])
    np.testing.assert_allclose(alone, scores[some], rtol=1e-6, atol=1e-6)
    for part, copy in zip((v, R_img, R_txt, W, indices), before, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize("name", rivals.METHODS)
def test_the_order_of_pairs_and_of_classes_does_not_matter(name):
    v, R_img, R_txt, W, indices = default_world(1)
    scores = rivals.METHODS[name](v, R_img, R_txt, W, indices)
    order = np.random.default_rng(2).permutation(200)
    place = np.argsort(order)  # where each pair has gone
    shuffled = rivals.METHODS[name](v, R_img[order], R_txt[order], W[::-1], place[indices])
    np.testing.assert_allclose(shuffled[:, ::-1], scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in rivals.METHODS if "raw" not in name])
def test_lengths_do_not_matter_where_unit_vectors_are_meant(name):
    v, R_img, R_txt, W, indices = default_world(2)
    scores = rivals.METHODS[name](v, R_img, R_txt, W, indices)
    one = rivals.METHODS[name](unit(v), unit(R_img), unit(R_txt), unit(W), indices)
    np.testing.assert_allclose(one, scores, rtol=1e-6, atol=1e-6)


def test_controls_can_be_had_from_here_too():
    assert rivals.random_neighbors is controls.random_neighbors
    assert rivals.shuffled_captions is controls.shuffled_captions
    assert rivals.mean_of_all is controls.mean_of_all
