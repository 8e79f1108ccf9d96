"""The table of film search: by hand, against loops, and against ir-measures where it is installed."""

import numpy as np
import pytest

from impart_utils.evidence import film_evaluation as evaluation
from impart_utils.evidence import metrics
from impart_utils.evidence.film_evaluation import (
    COLUMNS,
    chance_rows,
    compare,
    film_ranks,
    film_table,
    place,
    placed_rows,
    tau_poolings,
)
from impart_utils.evidence.film_variants import FilmQueries, make_variants
from impart_utils.film_scores import score_films

MOVIES = [f"movie {number // 4}" for number in range(24)]


def world(seed=0, noise=1.5):
    """24 films of 6 movies and a text for each: (films, queries)."""
    rng = np.random.default_rng(seed)
    movie, own = np.repeat(rng.normal(size=(6, 16)), 4, axis=0), rng.normal(size=(24, 16))
    films = [movie[n] + own[n] + noise * rng.normal(size=(9, 16)) for n in range(24)]
    texts = movie + own + noise * rng.normal(size=(24, 16))
    return films, FilmQueries("description", "text", texts, np.arange(24))


def plain(films):
    return make_variants(films, None, names=("CLIP",))


def test_places_worked_by_hand():
    similarities = np.array([[0.9, 0.2, 0.8, 0.1], [0.3, 0.3, 0.3, 0.1], [0.1, 0.9, 0.2, 0.3]])
    placed = place(similarities, [0, 1, 3], ["A", "A", "B", "B"])
    assert placed.ranks.tolist() == [1, 3, 2]  # ties are against us
    # second: best of A 0.3, best of B 0.3: a tie isn't first
    assert placed.right_movie.tolist() == [True, False, False]
    values = {row["metric"]: row["value"] for row in placed_rows(placed, ["A", "A", "B", "B"])}
    assert values == pytest.approx({"R@1": 1 / 3, "R@5": 1, "R@10": 1, "median rank": 2, "mean rank": 2,
                                    "MRR": (1 + 1 / 3 + 1 / 2) / 3, "right movie at 1": 1 / 3})


def test_equal_scores_everywhere_are_the_worst_case():
    placed = place(np.full((24, 24), 0.2), np.arange(24), MOVIES)
    assert (placed.ranks == 24).all() and not placed.right_movie.any()


def test_the_table_holds_every_combination_with_intervals():
    films, queries = world()
    table = film_table([queries], plain(films), MOVIES, poolings=("mean_raw", "max"))
    assert tuple(table.columns) == COLUMNS
    assert table.groupby(["query", "pooling", "variant"], sort=False).size().to_dict() == {
        ("description", "mean_raw", "CLIP"): 7, ("description", "max", "CLIP"): 7,
        ("description", "", "chance"): 7}
    measured = table[table["variant"] != "chance"]
    assert (measured["low"] <= measured["value"]).all() and (measured["value"] <= measured["high"]).all()
    assert set(table["n"]) == {24}
    expected = metrics.ranks(score_films(queries.features, films, "max"), np.arange(24))
    row = measured[(measured["pooling"] == "max") & (measured["metric"] == "MRR")]
    assert row["value"].item() == pytest.approx(metrics.mean_reciprocal_rank(expected))
    again = film_table([queries], plain(films), MOVIES, poolings=("mean_raw", "max"))
    assert again.equals(table)
    other = film_table([queries], plain(films), MOVIES, poolings=("mean_raw", "max"), seed=1)
    assert (other["value"] == table["value"]).all() and not other["low"].equals(table["low"])


def test_intervals_draw_movies_not_clips():
    films, queries = world(noise=0.6)
    placed = place(score_films(queries.features, films), np.arange(24), MOVIES)
    rows = {row["metric"]: row for row in placed_rows(placed, MOVIES, resamples=6000)}
    for name, statistic in (("MRR", metrics.mean_reciprocal_rank), ("median rank", metrics.median_rank)):
        low, high = metrics.bootstrap_interval(placed.ranks, statistic, clusters=MOVIES, seed=7)
        assert (rows[name]["low"], rows[name]["high"]) == pytest.approx((low, high), abs=0.05)


def test_chance_is_what_random_scores_give():
    rng = np.random.default_rng(0)
    sizes = ["A"] * 9 + ["B"] * 3 + ["C"] * 12
    exact = {row["metric"]: row["value"] for row in chance_rows(np.arange(24), sizes)}
    drawn = {name: [] for name in exact}
    for _ in range(1500):
        for row in placed_rows(place(rng.normal(size=(24, 24)), np.arange(24), sizes), sizes, resamples=2):
            drawn[row["metric"]].append(row["value"])
    for name, values in drawn.items():
        assert exact[name] == pytest.approx(np.mean(values), rel=0.08), name


def test_a_variant_has_rows_only_for_poolings_it_knows():
    films, queries = world()
    ways = plain(films)
    ways["means only"] = type(ways["CLIP"])(films, ways["CLIP"].score, ("mean_raw",))
    found = film_ranks([queries], ways, MOVIES, poolings=("mean_raw", "max"))
    assert [key[1:] for key in found] == [("mean_raw", "CLIP"), ("mean_raw", "means only"), ("max", "CLIP")]


def test_a_sweep_of_temperatures_has_its_two_ends():
    films, queries = world()
    found = film_ranks([queries], plain(films), MOVIES, poolings=tau_poolings((1e-4, 0.1, 1e4)))
    labels = [key[1] for key in found]
    assert labels == ["max", "query_scored, tau 0.0001", "query_scored, tau 0.1", "query_scored, tau 10000",
                      "mean_unit"]
    ranks = [placed.ranks.tolist() for placed in found.values()]
    assert ranks[0] == ranks[1] and ranks[3] == ranks[4] and ranks[2] not in (ranks[0], ranks[4])


def test_held_out_queries_are_harder_in_the_table():
    films, _ = world()
    picture = np.stack([film[0] for film in films])
    inside = FilmQueries("in", "picture", picture, np.arange(24))
    outside = FilmQueries("held out", "picture", picture, np.arange(24), [np.arange(3, 9)] * 24)
    table = film_table([inside, outside], plain(films), MOVIES, poolings=("max",), chance=False)
    recall = table[table["metric"] == "R@1"].set_index("query")["value"]
    assert recall["in"] == 1 and recall["held out"] < 0.9


def test_compare_is_paired_and_by_movie():
    films, queries = world()
    better = make_variants(films, None, names=("CLIP",))["CLIP"]
    noise = 1.5 * np.random.default_rng(5).normal(size=queries.features.shape)
    ways = {"CLIP": better, "worse": type(better)(films, lambda features, *given, **options: better.score(
        features + noise, *given, **options))}
    placed = film_ranks([queries], ways, MOVIES, poolings=("mean_raw",))
    table = compare(placed, ("description", "mean_raw", "CLIP"), MOVIES)
    assert table["variant"].tolist() == ["worse", "worse"] and table["metric"].tolist() == ["R@1", "MRR"]
    ranks = [one.ranks for one in placed.values()]
    assert table["difference"][1] == pytest.approx(np.mean(1 / ranks[1]) - np.mean(1 / ranks[0]))
    assert (table["difference"] < 0).all() and (table["high"] < 0.05).all()
    assert table["p"][0] == metrics.sign_flip(ranks[1] == 1, ranks[0] == 1, clusters=MOVIES)
    same = compare({**placed, ("description", "mean_raw", "twin"): placed["description", "mean_raw", "CLIP"]},
                   ("description", "mean_raw", "CLIP"), MOVIES)
    twin = same[same["variant"] == "twin"]
    assert (twin["difference"] == 0).all() and (twin["p"] == 1).all()
    fewer = evaluation.Placed(ranks[0][:8], np.zeros(8, bool), np.arange(8))
    with pytest.raises(ValueError, match="Expected the queries of .* got others. Compare within a kind"):
        compare({**placed, ("other", "", ""): fewer}, ("description", "mean_raw", "CLIP"), MOVIES)


def test_metrics_agree_with_ir_measures():
    """trec_eval keeps single precision, so scores are drawn apart; no ties."""
    measures = pytest.importorskip("ir_measures", reason="ir-measures isn't installed")
    rng = np.random.default_rng(2)
    similarities = rng.permutation(40 * 24).reshape(40, 24) / 1000
    truth = rng.integers(0, 24, 40)
    ours = {row["metric"]: row["value"] for row in placed_rows(place(similarities, truth, MOVIES), MOVIES)}
    right = [measures.Qrel(str(query), str(film), 1) for query, film in enumerate(truth)]
    run = [measures.ScoredDoc(str(query), str(film), float(score))
           for query, line in enumerate(similarities) for film, score in enumerate(line)]
    names = [measures.R @ 1, measures.R @ 5, measures.R @ 10, measures.RR, measures.AP]
    theirs = measures.calc_aggregate(names, right, run)
    assert [ours[name] for name in ("R@1", "R@5", "R@10", "MRR", "MRR")] == pytest.approx(
        [theirs[name] for name in names])
