"""How well films are found: one tidy table for every kind of query, pooling and way to search.

Columns: query, pooling, variant, metric, value, low, high, n. Shares are fractions; ranks count from 1, ties
against us; low and high are the 95 % bootstrap interval that draws whole movies, since clips of one movie
resemble each other (empty for chance, which is exact).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from impart_utils.evidence import metrics, significance
from impart_utils.evidence.cluster_bootstrap import RESAMPLES, draw_counts, mean_row, resampled_medians

COLUMNS = ("query", "pooling", "variant", "metric", "value", "low", "high", "n")
POOLINGS = {"mean_raw": {}, "mean_unit": {}, "max": {}, "top_mean": {}, "query_scored": {}}
TAUS = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Placed:
    """Where the right films came.

    Attributes
    ----------
    ranks : int array (q,);  right_movie : bool array (q,), the first film is of the right movie
    films : int array (q,), the right films
    """

    ranks: np.ndarray
    right_movie: np.ndarray
    films: np.ndarray


def film_table(queries, variants, movies, *, poolings=POOLINGS, seed=0, chance=True):
    """Every kind of query by every pooling and variant.

    Parameters
    ----------
    queries : list of film_variants.FilmQueries;  variants : dict of film_variants.make_variants
    movies : list of str, each film's movie
    poolings : names of film_scores.POOLINGS, or dict label -> arguments of `film_scores.score_films` such as
        ``{"query_scored, tau 0.03": {"how": "query_scored", "tau": 0.03}}``
    seed : int, of the bootstrap;  chance : bool, add the rows of guessing, variant "chance"

    Returns
    -------
    table : DataFrame with COLUMNS; a variant that doesn't know a pooling has no row for it
    """
    rows = []
    for (kind, pooling, variant), placed in film_ranks(queries, variants, movies, poolings=poolings).items():
        rows += [{"query": kind, "pooling": pooling, "variant": variant, **row}
                 for row in placed_rows(placed, movies, seed=seed)]
    if chance:
        rows += [{"query": some.kind, "pooling": "", "variant": "chance", **row}
                 for some in queries for row in chance_rows(some.films, movies)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def film_ranks(queries, variants, movies, *, poolings=POOLINGS):
    """What `film_table` sums up: dict (kind of query, pooling, variant) -> `Placed`; arguments as there."""
    found = {}
    for some in queries:
        for label, options in _settings(poolings).items():
            for name, variant in variants.items():
                if options["how"] in variant.poolings:
                    table = variant.similarities(some, **options)
                    found[some.kind, label, name] = place(table, some.films, movies)
    return found


def _settings(poolings):
    if not isinstance(poolings, dict):
        poolings = dict.fromkeys(poolings, {})
    return {label: {"how": label, **options} for label, options in poolings.items()}


def tau_poolings(taus=TAUS):
    """Query-scored pooling at several temperatures, and the two ends it tends to, for `film_table`."""
    sweep = {f"query_scored, tau {tau:g}": {"how": "query_scored", "tau": tau} for tau in taus}
    return {"max": {}, **sweep, "mean_unit": {}}


def place(similarities, films, movies):
    """`Placed` from similarities (q, n) and the right films (q,).

    The right movie is first where its best film beats the best of all other movies: ties are against us.
    """
    films = np.asarray(films)
    _, movie = np.unique(movies, return_inverse=True)
    own = movie[films][:, None] == movie[None, :]  # (q, n)
    best = np.where(own, similarities, -np.inf).max(axis=1)
    other = np.where(own, -np.inf, similarities).max(axis=1)
    return Placed(metrics.ranks(similarities, films), best > other, films)


# ---- Numbers and their intervals -----------------------------------------------------------------------


def placed_rows(placed, movies, *, seed=0, resamples=RESAMPLES):
    """R@1, R@5, R@10, median, mean rank, MRR, right movie at 1: a dict each (metric, value, low, high, n)."""
    ranks = placed.ranks.astype(np.float64)
    counts = draw_counts([movies[film] for film in placed.films], seed=seed, resamples=resamples)
    means = {**{f"R@{k}": ranks <= k for k in (1, 5, 10)}, "mean rank": ranks, "MRR": 1 / ranks,
             "right movie at 1": placed.right_movie}
    rows = [mean_row(name, values, counts) for name, values in means.items()]
    low, high = np.percentile(resampled_medians(ranks, counts), [2.5, 97.5])
    rows.insert(3, {"metric": "median rank", "value": metrics.median_rank(ranks), "low": float(low),
                    "high": float(high), "n": len(ranks)})
    return rows


def chance_rows(films, movies):
    """What guessing gives, exactly, for the metrics of `placed_rows`; low and high are NaN."""
    n, movie = len(movies), np.asarray(movies)
    sizes = np.array([(movie == movies[film]).sum() for film in films])
    values = {**{f"R@{k}": min(1.0, k / n) for k in (1, 5, 10)}, "median rank": (n + 1) / 2,
              "mean rank": (n + 1) / 2, "MRR": float(np.mean(1 / np.arange(1, n + 1))),
              "right movie at 1": float(np.mean(sizes / n))}
    return [{"metric": name, "value": value, "low": np.nan, "high": np.nan, "n": len(films)}
            for name, value in values.items()]


def compare(placed, against, movies, *, seed=0):
    """Several ways against one, query by query on the same queries: is the difference more than luck?

    Parameters
    ----------
    placed : dict of `film_ranks`, all of the same queries;  against : key of one of them

    Returns
    -------
    table : DataFrame, a row for each other key: query, pooling, variant, and for "R@1" and "MRR" the
        difference (that minus `against`) with low, high (bootstrap over movies) and p (sign flips by movie)
    """
    def values(some):
        return {"R@1": some.ranks == 1, "MRR": 1 / some.ranks}

    base, rows = placed[against], []
    clusters = [movies[film] for film in base.films]
    for key, some in placed.items():
        if key == against:
            continue
        if not np.array_equal(some.films, base.films):
            raise ValueError(f"Expected the queries of {against} in {key}, got others. Compare within a "
                             "kind of query.")
        for name, of in values(some).items():
            low, high = significance.paired_bootstrap(of, values(base)[name], clusters=clusters, seed=seed)
            p = significance.sign_flip(of, values(base)[name], clusters=clusters, seed=seed)
            rows.append({**dict(zip(("query", "pooling", "variant"), key, strict=True)), "metric": name,
                         "difference": float(np.mean(of) - np.mean(values(base)[name])), "low": low,
                         "high": high, "p": p, "n": len(base.films)})
    return pd.DataFrame(rows)
