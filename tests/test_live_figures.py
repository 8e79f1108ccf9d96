"""Live cells' figures: each callback is called, and what stands in the figure follows the controls."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from impart_utils.evidence import live_figures as lf  # noqa: E402
from impart_utils.live import explore  # noqa: E402
from impart_utils.reference import ReferenceSet, vanilla_features  # noqa: E402
from impart_utils.scored_sets import TestSet as ScoredSet  # noqa: E402
from impart_utils.toy_world import scenes  # noqa: E402
from impart_utils.zeroshot import predict, unit  # noqa: E402

NAMES = ["cat", "boat", "star", "tree", "cup", "fish", "bird", "kite"]


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def world():
    """Twelve queries and thirty toy pairs with features drawn at random, and how to open their pictures."""
    rng = np.random.default_rng(0)
    pairs = scenes.pairs(30, seed=0)
    pictures = {pair.id: scenes.draw(pair.scene, size=16) for pair in pairs}
    references = ReferenceSet(rng.normal(size=(30, 6)).astype(np.float32),
                              rng.normal(size=(30, 6)).astype(np.float32), [pair.caption for pair in pairs],
                              [pair.id for pair in pairs])
    test = ScoredSet("toy", "Toy", rng.normal(size=(12, 6)).astype(np.float32), rng.integers(8, size=12),
                     NAMES, unit(rng.normal(size=(8, 6)).astype(np.float32)),
                     [str(row) for row in range(12)], "", "", 12)
    return test, references, lambda rows: [pictures[pairs[row].id] for row in rows], \
        lambda ids: [pictures[name] for name in ids]


@pytest.fixture(scope="module")
def draw(world):
    return lf.eq1_on_one_query(*world, toy=True)


def bars(fig):
    """name of the term -> its widths, from the stacked bars."""
    ax = fig.axes[-1]
    return {container.get_label(): np.array([bar.get_width() for bar in container])
            for container in ax.containers}


def shown_classes(fig):
    return [label.get_text().removesuffix(" (right)") for label in fig.axes[-1].get_yticklabels()]


# ---- 02 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top_k", "image_weight", "text_weight"),
                         [(1, 0.5, 0.05), (8, 1.0, 1.0), (20, 0.0, 0.3)])
def test_title_and_sum_are_those_of_the_package(world, draw, top_k, image_weight, text_weight):
    """Whatever the sliders say: the two decisions, and the diamonds at v' · W of vanilla_features."""
    test, references, *_ = world
    vectors = vanilla_features(test.image_features, references, top_k=top_k, image_weight=image_weight,
                               text_weight=text_weight)
    for row in range(3):
        fig = draw(row, top_k, image_weight, text_weight)
        before, after = (NAMES[predict(v[[row]], test.class_features)[0]]
                         for v in (test.image_features, vectors))
        assert f"v says {before}, v′ says {after} (it is: {NAMES[test.labels[row]]})" in fig.get_suptitle()
        shown = shown_classes(fig)
        assert {before, after, NAMES[test.labels[row]]} <= set(shown)
        (diamonds,) = [line for line in fig.axes[-1].lines if line.get_marker() == "D"]
        expected = test.class_features[[NAMES.index(name) for name in shown]] @ vectors[row]
        np.testing.assert_allclose(diamonds.get_xdata(), expected, atol=1e-5)


def test_neighbors_are_the_nearest_with_their_captions(world, draw):
    test, references, *_ = world
    cosines = unit(references.image_features) @ unit(test.image_features[[5]])[0]
    nearest = np.argsort(-cosines)[:3]
    fig = draw(5, 3, 0.5, 0.05)
    pictures = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in pictures] == ["query", *(f"cosine {cosines[i]:.2f}" for i in nearest)]
    for ax, i in zip(pictures[1:], nearest, strict=True):
        assert ax.get_xlabel().replace("\n", " ").startswith((references.captions[i] or "(no caption)")[:14])


def test_a_weight_moves_its_own_term_alone(draw):
    low, high = bars(draw(2, 4, 0.2, 0.1)), bars(draw(2, 4, 0.2, 0.4))
    shown = [set(shown_classes(draw(2, 4, 0.2, weight))) for weight in (0.1, 0.4)]
    assert shown[0] == shown[1]  # else the bars can't be compared
    np.testing.assert_allclose(high["mean caption"], 4 * low["mean caption"], rtol=1e-5)
    for name in ("query (CLIP)", "mean neighbor image"):
        np.testing.assert_allclose(high[name], low[name])


def test_more_neighbors_than_places_are_said(draw):
    fig = draw(0, 20, 0.5, 0.05)
    assert "k = 20, 8 of them shown" in fig.get_suptitle() and "(toy world)" in fig.get_suptitle()
    assert len([ax for ax in fig.axes if ax.images]) == 1 + lf.SHOWN
    assert "shown" not in draw(0, 8, 0.5, 0.05).get_suptitle()


def test_a_reference_without_caption(world):
    test, references, *pictures = world
    silent = ReferenceSet(references.image_features, references.text_features, [""] * 30, references.ids)
    fig = lf.eq1_on_one_query(test, silent, *pictures, toy=False)(0, 2, 0.5, 0.05)
    assert [ax.get_xlabel() for ax in fig.axes if ax.images][1:] == ["(no caption)"] * 2
    assert "toy" not in fig.get_suptitle()


def test_votes_are_those_of_the_exercise():
    """Exercise 2.2 from vectors: the classes are the axes, so that a vector's coordinates are its scores."""
    terms = lf.votes(np.array([0.24, 0.26]), np.array([[0.3, 0.2], [0.26, 0.16]]),
                     np.array([[0.8, 0.6], [0.7, 0.64]]), np.eye(2), image_weight=0.5, text_weight=0.1)
    np.testing.assert_allclose(list(terms.values()), [[0.24, 0.26], [0.14, 0.09], [0.075, 0.062]])
    assert sum(terms.values()).argmax() == 0  # the query alone says 1


def test_menu_begins_with_changed_decisions(world):
    test, *_ = world
    before, after = np.zeros(12, dtype=bool), np.zeros(12, dtype=bool)
    before[[3, 7, 9]] = after[[1, 7]] = True
    menu = lf.query_menu(test, before, after, most=2)
    assert [row for _, row in menu] == [1, 3, 9, 7, 0, 2]
    assert menu[0][0] == f"1: {NAMES[test.labels[1]]}, mended" and menu[1][0].endswith("broken")
    assert all(type(row) is int for _, row in menu)


def test_the_likeliest_classes_are_shown_and_those_that_must():
    scores = np.array([0.9, 0.1, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    assert lf._classes_to_show(scores, {0, 1}) == [0, 2, 3, 4, 5, 1]
    assert lf._classes_to_show(scores[:3], {2}) == [0, 2, 1]


def test_controls_redraw(world, draw, monkeypatch):
    monkeypatch.delenv("IMPART_RUN_ID", raising=False)
    seen = []

    def watched(**values):
        fig = draw(**values)
        seen.append((values, fig.get_suptitle()))
        return fig

    menu = lf.query_menu(world[0], np.zeros(12, dtype=bool), np.arange(12) % 2 == 0)
    box = explore(watched, row=menu, top_k=(1, 16, 8), image_weight=(0.0, 1.0, 0.5),
                  text_weight=(0.0, 1.0, 0.05))
    row, top_k, image_weight, text_weight, _ = box.children
    top_k.value, row.value, text_weight.value, image_weight.value = 3, menu[1][1], 0.5, 0.0
    assert seen[0][0] == {"row": 0, "top_k": 8, "image_weight": 0.5, "text_weight": 0.05}
    assert seen[-1][0] == {"row": 2, "top_k": 3, "image_weight": 0.0, "text_weight": 0.5}
    assert seen[-1][1] == draw(2, 3, 0.0, 0.5).get_suptitle() and len(seen) == 5


# ---- 00 ----------------------------------------------------------------------------------------


CLASSES = {"cat": np.array([0.6, 0.8]), "boat": np.array([0.96, 0.28]), "star": np.array([-0.8, 0.6])}


def shares(fig):
    return np.array([bar.get_width() for bar in fig.axes[1].patches])


def test_a_decision_depends_on_the_angle_not_on_the_length():
    draw = lf.clip_decision(CLASSES)
    fig = draw(np.degrees(np.arctan2(1.2, 1.6)), 2.0, 100.0)
    expected = np.exp([96.0, 93.6, -28.0] - np.float64(96))
    np.testing.assert_allclose(shares(fig), 100 * expected / expected.sum(), rtol=1e-6)
    assert fig.axes[1].get_title() == "softmax of 100 · cosine: cat"
    np.testing.assert_allclose(shares(draw(40.0, 0.5, 100.0)), shares(draw(40.0, 3.0, 100.0)))
    assert draw(16.0, 1.0, 100.0).axes[1].get_title().endswith("boat")
    assert draw(143.0, 1.0, 100.0).axes[1].get_title().endswith("star")


def test_a_small_scale_makes_no_class_sure():
    low, high = (shares(lf.clip_decision(CLASSES)(37.0, 1.0, scale)) for scale in (1.0, 100.0))
    assert low.max() < 60 < 90 < high.max()
    assert low.sum() == pytest.approx(100) and high.sum() == pytest.approx(100)


# ---- 09 ----------------------------------------------------------------------------------------


def test_intervals_shrink_until_the_papers_value_is_outside():
    ax = lf.interval_by_n(88.78, ns=(100, 1000, 10_000))(88.0).axes[0]
    intervals = [line for line in ax.lines if line.get_linewidth() == 3 and len(line.get_xdata())]
    assert [line.get_xdata()[0] for line in intervals] == [100, 1000, 10_000]
    np.testing.assert_allclose(intervals[0].get_ydata(), [80.188, 93.001], atol=0.01)  # Wilson, 88 of 100
    widths = [np.ptp(line.get_ydata()) for line in intervals]
    assert widths == sorted(widths, reverse=True)
    inside, outside = lf.VERDICTS["inside"], lf.VERDICTS["outside"]
    assert [line.get_color() for line in intervals] == [inside, inside, outside]


def test_the_papers_own_value_stays_inside_whatever_n():
    ax = lf.interval_by_n(88.78)(88.78).axes[0]
    colors = {line.get_color() for line in ax.lines if line.get_linewidth() == 3 and len(line.get_xdata())}
    assert colors == {lf.VERDICTS["inside"]}
