"""From frames to films: pooling frame features, scoring and ranking films by a query."""

import numpy as np

POOLINGS = ("mean_raw", "mean_unit", "max", "top_mean", "query_scored")
MEANS = POOLINGS[:2]  # need no query: one vector a film


def pool(frame_features, how="mean_raw"):
    """One vector for a film: float32 (d,), not normalized, from its frame_features (f, d).

    `how` is "mean_raw", the mean of the vectors as they are (the paper's code; long vectors count
    more), or "mean_unit", the mean of their directions. The other POOLINGS need a query: `score_films`.
    """
    if how not in MEANS:
        raise ValueError(f"Unknown pooling {how!r}. Known: {', '.join(MEANS)}; with a query in score_films "
                         f"also {', '.join(POOLINGS[2:])}.")
    frames = (_unit if how == "mean_unit" else _matrix)(frame_features, "frame_features")  # (f, d)
    return frames.mean(axis=0).astype(np.float32)


def score_films(query_features, films, how="mean_raw", *, tau=0.1, top_m=5):
    r"""Similarity of each query with each film, whose frames are pooled in one of five ways.

    "mean_raw" and "mean_unit" as in `pool`; "max", the cosine with the best frame; "top_mean", the mean
    of the `top_m` best cosines; "query_scored" (Bain et al. 2022): a mean of the unit frames f weighted by
    how well each fits the query t,

    .. math:: a_j = \mathrm{softmax}_j(\cos(t, f_j) / \tau), \quad s = \cos(t, \sum_j a_j f_j),

    which tends to "max" for small :math:`\tau` and to "mean_unit" for large.

    Parameters
    ----------
    query_features : array (q, d), texts or pictures;  films : list of arrays (f, d), one per film
    tau : float, of "query_scored" alone; 0.1 is the source's default
    top_m : int, of "top_mean" alone; a film of fewer frames takes them all

    Returns
    -------
    similarities : float32 array (q, number of films); `best_first` orders them
    """
    if how not in POOLINGS:
        raise ValueError(f"Unknown pooling {how!r}. Known: {', '.join(POOLINGS)}.")
    if not len(films) or not tau > 0 or not top_m >= 1:
        raise ValueError("Expected at least one film, tau > 0 and top_m >= 1, "
                         f"got {len(films)} films, tau={tau} and top_m={top_m}.")
    if how in MEANS:
        return cosines(query_features, np.stack([pool(frames, how) for frames in films]))
    queries = _unit(query_features, "query_features")
    columns = [_score_film(queries, _unit(frames, "frame_features"), how, tau, top_m) for frames in films]
    return np.stack(columns, axis=1).astype(np.float32)


def _score_film(queries, frames, how, tau, top_m):
    """One film's column (q,), from unit queries (q, d) and unit frames (f, d)."""
    similarities = _product(queries, frames, "frame_features")  # (q, f)
    if how == "max":
        return similarities.max(axis=1)
    if how == "top_mean":
        return np.sort(similarities, axis=1)[:, -top_m:].mean(axis=1)
    weights = np.exp((similarities - similarities.max(axis=1, keepdims=True)) / tau)  # the largest is 1
    pooled = weights @ frames  # (q, f) @ (f, d) -> (q, d)
    return (queries * _unit(pooled, "pooled frames")).sum(axis=1)


def rank_films(query_features, film_features):
    """All films for each query, best first, by cosine whatever the norms.

    Parameters
    ----------
    query_features : array (q, d);  film_features : array (f, d), one row per film

    Returns
    -------
    similarities : float32 array (q, f), in the order of film_features
    order : int array (q, f), rows of film_features from best to worst; equal ones by row

    Raises
    ------
    ValueError : different dimensions, an empty array, a row that is zero, NaN or infinite.
    """
    similarities = cosines(query_features, film_features)
    return similarities, best_first(similarities)


def best_first(similarities):
    """Indices (q, f) of the columns from the highest to the lowest similarity; equal ones by index."""
    similarities = np.asarray(similarities)
    if np.isnan(similarities).any():
        raise ValueError("Expected similarities without NaN: what is not a number has no rank.")
    return np.argsort(-similarities, axis=1, kind="stable")


def hub_bias(reference_queries, films, how="mean_raw", *, top_k=16, alpha=0.75, **pooling):
    r"""What each film gets for being near to many queries anyway; to be subtracted from its scores.

    NNN (Chowdhury et al., EMNLP 2024) per film: with :math:`s(t, i)` of `score_films`,

    .. math:: b_i = \frac{\alpha}{k} \sum_{t \in top_k} s(t, i)

    over the k reference queries that fit film i best.

    Parameters
    ----------
    reference_queries : array (m, d), of the same kind as the queries and none of them: captions of the
        reference set for texts, its pictures for pictures
    films, how, **pooling : as for `score_films`
    top_k : int;  alpha : float; the source's README has 128 of far more queries, and 0.75

    Returns
    -------
    bias : float32 array (number of films,)
    """
    if not 1 <= top_k <= len(reference_queries):
        raise ValueError(f"Expected 1 <= top_k <= number of reference queries, got top_k={top_k} with "
                         f"{len(reference_queries)}. Lower top_k or give more.")
    similarities = score_films(reference_queries, films, how, **pooling)  # (m, films)
    return alpha * np.sort(similarities, axis=0)[-top_k:].mean(axis=0)


def cosines(query_features, features, name="film_features"):
    """Cosine of each query with each row: (q, d), (f, d) -> float32 (q, f); `name` is for errors.

    Worked in float64, so that equal films get equal numbers and ties stay ties.
    """
    return _product(_unit(query_features, "query_features"), _unit(features, name), name).astype(np.float32)


def _product(queries, features, name):
    if queries.shape[1] != features.shape[1]:
        raise ValueError(f"Expected query_features and {name} of one dimension, got {queries.shape} and "
                         f"{features.shape}. Encode both with the same model.")
    return queries @ features.T  # (q, d) @ (d, f) -> (q, f)


def _matrix(features, name):
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"Expected {name} of shape (rows, d) with at least one row, got {features.shape}.")
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1) | ~features.any(axis=1))
    if len(bad):
        raise ValueError(f"Row {bad[0]} of {name} is zero or not finite (NaN or infinity): it "
                         "has no direction. Encode that item again or leave it out.")
    return features


def _unit(features, name):
    features = _matrix(features, name)
    return features / np.linalg.norm(features, axis=1, keepdims=True)
