"""Tuning never sees the test set, finds the best of its grid, and says where its choice comes from."""

from functools import partial

import numpy as np
import pytest

from impart_utils.evidence import rivals, tuning
from impart_utils.evidence.controls import CONTROLS, changed, control_scores
from impart_utils.evidence.eq1 import eq1
from impart_utils.evidence.tuning import Labelled, tune, tune_label_free, tune_method, tune_methods
from impart_utils.retrieval import Retriever
from impart_utils.zeroshot import unit

GRID = {"top_ks": (1, 3, 8), "image_weights": (0.0, 0.5, 1.0), "text_weights": (0.0, 0.3)}


def pairs(m=40, d=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, d)).astype(np.float32) * 10, rng.normal(size=(m, d)).astype(np.float32) * 10


def labelled(role="tuning", n=50, c=5, d=12, seed=1, name="other pictures"):
    rng = np.random.default_rng(seed)
    return Labelled(name, role, rng.normal(size=(n, d)).astype(np.float32) * 10, rng.integers(0, c, n),
                    unit(np.random.default_rng(99).normal(size=(c, d))).astype(np.float32))


def accuracy_of(split, R_img, R_txt, settings, scores=eq1):
    _, indices = Retriever(R_img).search(split.image_features, 20)
    found = scores(split.image_features, R_img, R_txt, split.class_features, indices, **settings)
    return float(np.mean(found.argmax(axis=1) == split.labels))


# ---- By a named split


def test_tune_finds_the_best_of_the_grid_and_says_so():
    split, (R_img, R_txt) = labelled(), pairs()
    choice = tune(split, R_img, R_txt, **GRID)
    reached = {(k, a, b): accuracy_of(split, R_img, R_txt, {"top_k": k, "image_weight": a, "text_weight": b})
               for k in GRID["top_ks"] for a in GRID["image_weights"] for b in GRID["text_weights"]}
    best = max(reached.values())
    first = next(setting for setting, value in reached.items() if value == best)  # of equals the first
    assert tuple(choice.settings.values()) == first and list(choice.settings) == ["top_k", "image_weight",
                                                                                  "text_weight"]
    assert (choice.score, choice.n, choice.tried) == (pytest.approx(best), 50, 18)
    assert choice.chosen_on == "other pictures" and choice.how == "accuracy by labels"
    assert choice.optimistic is False


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_tuned_on_the_same_footing(name):
    split, (R_img, R_txt) = labelled(), pairs()
    choice = tune(split, R_img, R_txt, control=name, seed=2, **GRID)
    v, V, T = unit(split.image_features), unit(R_img), unit(R_txt)
    R = changed(name, v, V, T, Retriever(V).search(v, 8)[1], seed=2)  # the same draw of 8 for every k
    reached = []
    for k in GRID["top_ks"]:
        for a in GRID["image_weights"]:
            for b in GRID["text_weights"]:
                nearest = R[2][:, :k]
                total = v + a * R[0][nearest].mean(axis=1) + b * R[1][nearest].mean(axis=1)
                right = (total @ split.class_features.T).argmax(axis=1) == split.labels
                reached.append(right.mean())
    assert choice.score == pytest.approx(max(reached))
    again = control_scores(name, split.image_features, R_img, R_txt, split.class_features,
                           Retriever(R_img).search(split.image_features, 8)[1], seed=2, **choice.settings)
    assert again.shape == (50, 5)  # the settings fit the control's scores


def test_a_test_set_is_refused_unless_the_optimism_is_said():
    test, (R_img, R_txt) = labelled("test", name="cifar10"), pairs()
    with pytest.raises(ValueError, match="'cifar10' is a test set: settings chosen on it flatter the method"):
        tune(test, R_img, R_txt, **GRID)
    with pytest.raises(ValueError, match="'cifar10' is a test set"):
        tune_method(test, rivals.caption_vote, {"top_k": (1, 2)}, R_img, R_txt,
                    neighbor_indices=np.zeros((50, 2), int))
    choice = tune(test, R_img, R_txt, optimistic=True, **GRID)
    assert choice.optimistic is True and choice.chosen_on == "cifar10"


def test_a_split_needs_a_name_and_a_known_role():
    with pytest.raises(ValueError, match="Unknown role 'val' of 'x'. Known: tuning, test"):
        labelled("val", name="x")
    with pytest.raises(ValueError, match="a name for the split"):
        labelled(name="")


def test_k_above_the_number_of_references_is_left_out():
    split, (R_img, R_txt) = labelled(), pairs(m=5)
    choice = tune(split, R_img, R_txt, **GRID)
    assert choice.tried == 2 * 3 * 2 and choice.settings["top_k"] in (1, 3)


# ---- Other methods


def test_tune_method_tries_the_whole_grid():
    split, (R_img, R_txt) = labelled(), pairs()
    grid = {"strength": (0.0, 0.5, 1.0)}
    choice = tune_method(split, rivals.distribution_normalization, grid, R_img, R_txt)
    reached = [accuracy_of(split, R_img, R_txt, {"strength": strength}, rivals.distribution_normalization)
               for strength in (0.0, 0.5, 1.0)]
    assert choice.score == max(reached) and choice.tried == 3
    assert choice.settings == {"strength": (0.0, 0.5, 1.0)[int(np.argmax(reached))]}
    with pytest.raises(ValueError, match="at least one value for each setting"):
        tune_method(split, rivals.clip, {"strength": ()}, R_img, R_txt)


def test_tune_methods_tunes_each_and_scores_it_on_the_test():
    split, test, (R_img, R_txt) = labelled(), labelled("test", seed=2, name="cifar10"), pairs()
    # 64 neighbors are more than there are references: left out
    grids = {"caption vote": {"top_k": (1, 4, 16, 64)}, "DN": {"strength": (0.0, 0.5, 1.0)}}
    found = tune_methods(split, test, rivals.METHODS, R_img, R_txt, grids=grids)
    before, after = (Retriever(R_img).search(part.image_features, 40)[1] for part in (split, test))
    for name, grid in grids.items():
        choice = tune_method(split, rivals.METHODS[name], grid, R_img, R_txt, neighbor_indices=before)
        scores = rivals.METHODS[name](test.image_features, R_img, R_txt, test.class_features, after,
                                      **choice.settings)
        assert found[name] == np.mean(scores.argmax(axis=1) == test.labels)
    assert list(found) == list(grids)
    with pytest.raises(ValueError, match="Expected a tuning split"):
        tune_methods(test, test, rivals.METHODS, R_img, R_txt, grids=grids)


@pytest.mark.parametrize("name", tuning.GRIDS)
def test_every_grid_fits_its_method_and_holds_its_default(name):
    split, (R_img, R_txt) = labelled(n=6, c=3), pairs(m=300)
    _, indices = Retriever(R_img).search(split.image_features, 128)
    method, grid = rivals.METHODS[name], tuning.GRIDS[name]
    choice = tune_method(split, method, grid, R_img, R_txt, neighbor_indices=indices)
    assert set(choice.settings) == set(grid)
    function = method.func if isinstance(method, partial) else method
    for setting, values in grid.items():
        assert function.__kwdefaults__[setting] in values, setting


# ---- Without labels


def slow_recall(R_img, R_txt, k, a, b):
    """R@1 of the own caption, pair by pair, with the own pair taken out of the references."""
    V, T = unit(R_img.astype(np.float64)), unit(R_txt.astype(np.float64))
    right = 0
    for row in range(len(V)):
        others = [j for j in range(len(V)) if j != row]
        nearest = sorted(others, key=lambda j: -(V[row] @ V[j]))[:k]
        augmented = V[row] + a * V[nearest].mean(axis=0) + b * T[nearest].mean(axis=0)
        right += int(np.argmax(T @ augmented)) == row
    return right / len(V)


def test_label_free_equals_a_slow_loop():
    rng = np.random.default_rng(3)
    V = rng.normal(size=(30, 8))
    T = V + 1.5 * rng.normal(size=(30, 8))
    reached = {(k, a, b): slow_recall(V, T, k, a, b)
               for k in GRID["top_ks"] for a in GRID["image_weights"] for b in GRID["text_weights"]}
    choice = tune_label_free(V, T, name="30 pairs", **GRID)
    assert choice.score == pytest.approx(max(reached.values()))
    assert reached[tuple(choice.settings.values())] == max(reached.values())
    assert choice.chosen_on == "30 pairs" and "among 30, each pair hidden from itself" in choice.how
    assert choice.n == 30 and not choice.optimistic


def test_label_free_hides_each_pair_from_itself():
    """Were a pair its own neighbor, its caption term would find its caption every time."""
    V, T = pairs(m=60, seed=5)
    choice = tune_label_free(V, T, top_ks=(1,), image_weights=(0.0,), text_weights=(100.0,))
    assert choice.score == 0  # the neighbor's caption is found, never the own one


def test_equal_captions_count_as_one():
    rng = np.random.default_rng(0)
    names = np.eye(4)
    T = names[[0, 0, 1, 1, 2, 2, 3, 3]]
    choice = tune_label_free(T + 0.1 * rng.normal(size=(8, 4)), T, **GRID)
    assert choice.score == 1 and "among 4" in choice.how  # with 8 separate captions it would be 1/2


def test_label_free_needs_more_references_than_k():
    R_img, R_txt = pairs(m=2)
    with pytest.raises(ValueError, match="more than 2 references"):
        tune_label_free(R_img, R_txt, top_ks=(2, 8))


# ---- The table


def test_optimism_table():
    split, test, (R_img, R_txt) = labelled(), labelled("test", seed=8, name="the test"), pairs()
    grid = {**GRID, "text_weights": (0.0, 0.05, 0.3)}
    table = tuning.optimism_table(test, split, R_img, R_txt, **grid)
    assert table.index.tolist() == ["default", "tuned", "label-free", "best on test"]
    assert table["optimistic"].tolist() == [False, False, False, True]
    assert table["chosen_on"].tolist() == ["the paper's code, branch main", "other pictures",
                                           "the reference set", "the test"]
    for row in table.itertuples():
        settings = {"top_k": row.k, "image_weight": row.image_weight, "text_weight": row.text_weight}
        assert row.accuracy == pytest.approx(accuracy_of(test, R_img, R_txt, settings))
        plain = accuracy_of(test, R_img, R_txt, {}, rivals.clip)
        assert row.difference == pytest.approx(row.accuracy - plain)
    assert table.loc["default", ["k", "image_weight", "text_weight"]].tolist() == [8, 0.5, 0.05]
    assert table.loc["best on test", "accuracy"] == table["accuracy"].max()
    assert table.loc["best on test", "chosen_score"] == pytest.approx(table.loc["best on test", "accuracy"])


def test_the_best_on_test_is_optimistic_about_pure_noise():
    """Labels that have nothing to do with the features: whatever lies above chance is optimism."""
    weights = (0.0, 0.3, 1.0, 4.0)
    grid = {"top_ks": (1, 3, 8, 20), "image_weights": weights, "text_weights": weights}
    above_chance = []
    for seed in range(20):
        split, test = labelled(seed=100 + seed), labelled("test", seed=200 + seed, name="the test")
        table = tuning.optimism_table(test, split, *pairs(seed=seed), **grid)
        above_chance.append(table["accuracy"] - 1 / 5)
    _, tuned, _, best = np.mean(above_chance, axis=0)
    assert abs(tuned) < 0.04 and best > tuned + 0.05


def test_a_tuning_split_that_shares_pictures_with_the_test_is_refused():
    test, (R_img, R_txt) = labelled("test", name="the test"), pairs()
    same = Labelled("a copy", "tuning", test.image_features[5:8], test.labels[5:8], test.class_features)
    with pytest.raises(ValueError, match="3 of 3 pictures of 'a copy' are in the test set 'the test' too"):
        tuning.optimism_table(test, same, R_img, R_txt, **GRID)
    with pytest.raises(ValueError, match="Expected a tuning split, got 'the test' with the role 'test'"):
        tuning.optimism_table(test, test, R_img, R_txt, **GRID)
    with pytest.raises(ValueError, match="Expected a test split, got 'other pictures'"):
        tuning.require_disjoint(labelled(), labelled())
