"""Other questions to a gallery of films: film to film, fewer frames, each movie its own gallery.

Tables as in film_evaluation.py.
"""

import numpy as np
import pandas as pd

from impart_utils.evidence import metrics
from impart_utils.evidence.cluster_bootstrap import draw_counts, mean_row
from impart_utils.evidence.film_evaluation import COLUMNS, film_table
from impart_utils.evidence.film_variants import make_variants
from impart_utils.film_scores import cosines, pool

RATES = (0.25, 0.5, 1.0, 2.0, 4.0)


def film_to_film(films, movies, *, poolings=("mean_raw", "mean_unit"), seed=0):
    """A film as query, by its pooled vector: are the other clips of its movie found?

    Parameters
    ----------
    films : list of arrays (f, d);  movies : list of str; films alone in their movie are no queries

    Returns
    -------
    table : DataFrame with COLUMNS; metrics "right movie at 1", and "mAP" over the movie's other clips;
        variant "CLIP" and "chance", where mAP is the expectation of a random order
    """
    movie = np.asarray(movies)
    queries = [film for film in range(len(films)) if (movie == movie[film]).sum() > 1]
    if len(set(movies)) < 2 or not queries:
        raise ValueError("Expected two movies or more, one of them with two films or more, got "
                         f"{len(set(movies))} movies of {len(films)} films.")
    counts, rows, level = draw_counts(movie[queries], seed=seed), [], []
    for how in poolings:
        vectors = np.stack([pool(frames, how) for frames in films])  # (n, d)
        table, first, precision = cosines(vectors, vectors), [], []
        for film in queries:
            others = np.arange(len(films)) != film
            right, scores = movie[others] == movie[film], table[film, others]
            first.append(scores[right].max() > scores[~right].max())
            precision.append(metrics.average_precision(scores, right))
            level.append((right.mean(), expected_precision(right.sum(), len(right))))
        rows += [{"query": "film", "pooling": how, "variant": "CLIP", **mean_row(name, values, counts)}
                 for name, values in (("right movie at 1", first), ("mAP", precision))]
    rows += [{"query": "film", "pooling": "", "variant": "chance", "metric": name, "value": float(value),
              "n": len(queries)}
             for name, value in zip(("right movie at 1", "mAP"), np.mean(level, axis=0), strict=True)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def expected_precision(relevant, n):
    r"""Average precision of a random order, in the mean over all orders.

    .. math:: \frac{R-1}{n-1} + \Big(1 - \frac{R-1}{n-1}\Big) \frac{1}{n} \sum_{i=1}^n \frac{1}{i}

    It exceeds the prevalence R / n, and much so where few items are relevant.
    """
    if not 1 <= relevant <= n:
        raise ValueError(f"Expected 1 <= relevant <= n, got relevant={relevant} and n={n}.")
    other = (relevant - 1) / (n - 1) if n > 1 else 0.0
    return float(other + (1 - other) * np.mean(1 / np.arange(1, n + 1)))


def rate_table(queries, timestamps, films, movies, *, fps, rates=RATES, poolings=("mean_raw", "max"), seed=0):
    """Recall against cost: the films sampled more and more sparsely, from features at the full rate.

    Parameters
    ----------
    queries : list of FilmQueries without `kept`;  timestamps, films : lists of arrays (f,) and (f, d)
    fps : float, the rate of the features;  rates : floats that divide it; others are left out

    Returns
    -------
    table : DataFrame with fps and frames (encoded per film, mean: the cost) before COLUMNS
    """
    held = next((some.kind for some in queries if some.kept is not None), None)
    if held:
        raise ValueError(f"Expected queries that any frame may answer, got {held!r}: its `kept` are rows of "
                         "the full rate.")
    parts = []
    for rate in rates:
        if rate > fps or abs(fps / rate - round(fps / rate)) > 1e-6:
            continue
        thinned = [thin(times, frames, rate)[1] for times, frames in zip(timestamps, films, strict=True)]
        part = film_table(queries, make_variants(thinned, None, names=("CLIP",)), movies, poolings=poolings,
                          seed=seed, chance=False)
        part.insert(0, "frames", float(np.mean([len(frames) for frames in thinned])))
        part.insert(0, "fps", float(rate))
        parts.append(part)
    if not parts:
        raise ValueError(f"Expected rates that divide fps={fps:g}, got {', '.join(map(str, rates))}.")
    return pd.concat(parts, ignore_index=True)


def thin(timestamps, frame_features, rate):
    """The frames that `video.sample_frames` would give at a lower `rate` that divides the film's own."""
    place = np.asarray(timestamps) * rate
    kept = np.abs(place - np.round(place)) < 1e-6
    return timestamps[kept], frame_features[kept]


def within_movies(similarities, films, movies, *, least=5, seed=0):
    """Each movie its own gallery (Condensed Movies' within-movie protocol): which clip of this movie?

    Parameters
    ----------
    similarities : array (q, n);  films : int array (q,)
    least : int, movies with fewer films are left out (5 in the source)

    Returns
    -------
    rows : list of dict metric, value, low, high, n: R@1, R@5, R@10, median and mean rank per movie, then
        averaged over movies, with the bootstrap over movies; n movies; "R@1, chance" beside
    """
    films, movie = np.asarray(films), np.asarray(movies)
    found = []
    for name in dict.fromkeys(movies):
        columns = np.flatnonzero(movie == name)
        rows = np.flatnonzero(movie[films] == name)
        if len(columns) < least or not len(rows):
            continue
        ranks = metrics.ranks(similarities[np.ix_(rows, columns)], np.searchsorted(columns, films[rows]))
        found.append([*(metrics.recall_at(ranks, k) for k in (1, 5, 10)), metrics.median_rank(ranks),
                      metrics.mean_rank(ranks), 1 / len(columns)])
    if not found:
        raise ValueError(f"Expected a movie with at least {least} films, got none. Lower least.")
    counts = draw_counts(np.arange(len(found)), seed=seed)
    names = ("R@1", "R@5", "R@10", "median rank", "mean rank", "R@1, chance")
    return [mean_row(name, column, counts) for name, column in zip(names, np.array(found).T, strict=True)]
