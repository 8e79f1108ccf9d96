"""Lines on what results say: worked by hand on small tables, and missing rows said so."""

import pandas as pd
import pytest

from impart_utils.evidence import bearing

CLIP, VANILLA, RAM = "CLIP", bearing.VANILLA, bearing.RAM


def accuracies(**by_method):
    """A table of dataset "a" and "b" with two accuracies a method."""
    return pd.DataFrame([{"dataset": dataset, "method": method.replace("_", " "), "accuracy": accuracy}
                         for method, pair in by_method.items()
                         for dataset, accuracy in zip("ab", pair, strict=True)])


def recalls(*rows, variant="CLIP"):
    return pd.DataFrame([{"query": query, "pooling": pooling, "variant": variant, "metric": metric,
                          "value": value, "low": 0.1, "high": 0.9} for query, pooling, metric, value in rows])


def test_differences_are_ours_less_the_base_in_points():
    table = accuracies(**{VANILLA: (0.81, 0.70), "random neighbors": (0.75, 0.705)})
    assert bearing.random_neighbors(table) == "Eq. 1 against random neighbors: a +6.00, b -0.50 points"
    assert bearing.random_neighbors(table[table["method"] == VANILLA]) is None


def test_against_clip_tells_both_counts():
    table = pd.DataFrame([{"dataset": "a", "method": VANILLA, "difference": -16.0, "n": 2000.0, "b": 42.0,
                           "c": 26.0, "p": 0.0681}, {"dataset": "a", "method": RAM, "difference": 1.0}])
    assert bearing.against_clip(table) == (
        "Eq. 1 against CLIP: a -16 of 2000 pictures (42 broken, 26 mended, p = 0.068)")


def test_trainings_are_averaged_and_their_spread_told():
    table = pd.concat([accuracies(**{RAM: (0.80, 0.60), CLIP: (0.82, 0.60)}),
                       accuracies(**{RAM: (0.78, 0.60)})])
    assert bearing.ram_against_clip(table) == "RAM against CLIP: a -3.00, b +0.00 points"
    assert bearing.seeds(table) == "2 trainings of RAM lie apart by a 2.00, b 0.00 points"
    assert bearing.seeds(accuracies(**{RAM: (0.8, 0.6)})) is None  # one training has no spread
    assert bearing.seeds(accuracies(CLIP=(0.8, 0.6))) is None


def test_normalization_is_told_for_each_kind_of_input():
    table = pd.DataFrame([{"dataset": "a", "scale": scale, "variant": variant, "accuracy": accuracy}
                          for scale, values in (("raw", (0.5, 0.4)), ("unit", (0.5, 0.6)))
                          for variant, accuracy in zip(("none", "branch"), values, strict=True)])
    assert bearing.normalization(table) == ("'branch' against none, raw inputs: a -10.00 points; "
                                            "'branch' against none, unit inputs: a +10.00 points")
    assert bearing.ram_inputs(table) == "unit against raw inputs: a +0.00 points"


def test_the_best_control_counts_on_each_data_set():
    table = accuracies(**{VANILLA: (0.80, 0.70), "random_neighbors": (0.79, 0.50),
                          "pictures_only": (0.60, 0.71)})
    table["kind"] = table["method"].map({VANILLA: "method"}).fillna("control")
    assert bearing.controls(table) == ("Eq. 1 against the best control, in points: "
                                       "a +1.00 (random neighbors), b -1.00 (pictures only)")
    assert bearing.controls(table[table["kind"] == "method"]) is None


def test_films_compare_the_same_query_or_pooling():
    table = recalls(
        ("frame of the film", "mean_raw", "R@1", 0.5), ("held-out frame", "mean_raw", "R@1", 0.25),
        ("frame of the film", "mean_raw", "R@5", 1.0), ("description", "mean_unit", "R@1", 0.75),
        ("description", "mean_raw", "R@1", 0.625))
    assert bearing.near_duplicates(table) == ("R@1, frame held out against frame in the film: "
                                              "mean_raw 0.25 against 0.50")
    assert bearing.unit_mean(table) == ("R@1, mean of unit frames against raw ones: "
                                        "description 0.75 against 0.62")
    assert bearing.eq1_on_films(table) is None
    assert bearing.film_recall(table).count("(0.10 to 0.90)") == 3
    augmented = recalls(("description", "Eq. 1 on frames, mean_unit", "R@1", 0.5),
                        ("description", "Eq. 1 on frames, mean_raw", "R@1", 0.0), variant="Eq. 1 on frames")
    assert bearing.eq1_on_films(pd.concat([table, augmented])) == (
        "R@1, Eq. 1 on frames against plain CLIP: description 0.50 against 0.75")
    assert bearing.unit_mean(pd.concat([table, augmented])) == bearing.unit_mean(table)  # plain CLIP alone
    assert bearing.poolings(table) == "R@1 of a description by pooling: mean_unit 0.75, mean_raw 0.62"


def test_pretraining_compares_the_shortest_and_the_longest():
    table = pd.concat([accuracies(**{VANILLA: (0.3 + gain, 0.3), CLIP: (0.3, 0.3)}).assign(steps=steps)
                       for steps, gain in ((50, 0.05), (150, 0.5), (600, -0.01))])
    assert bearing.pretraining(table) == ("Eq. 1 against a CLIP of 50 steps: a +5.00, b +0.00 points; "
                                          "Eq. 1 against a CLIP of 600 steps: a -1.00, b +0.00 points")


def test_what_is_missing_is_named():
    tables = {"table1.csv": accuracies(CLIP=(0.8, 0.6))}
    told = bearing.bearing_on("seeds controls", tables, lambda name: f"{name} is missing")
    assert told == ("not measured here (table1.csv has no such rows); not measured here "
                    "(is_it_retrieval.csv is missing)")
    assert bearing.bearing_on("", tables, str) == ""
    assert bearing.files_of("controls eq1_raw seeds") == ["is_it_retrieval.csv", "table1.csv"]


def test_an_unknown_line_lists_the_known():
    with pytest.raises(ValueError, match="Unknown line 'speed'. Known: random_neighbors, "):
        bearing.bearing_on("seeds speed", {}, str)
