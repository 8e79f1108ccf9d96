"""Rows of the results files: what was measured, on what, from which inputs (DESIGN.md, rules of measurement)."""

import numpy as np
import pandas as pd

from impart_utils.config import run_info
from impart_utils.evidence import metrics
from impart_utils.sources.features import atomic_path, content_hash
from impart_utils.zeroshot import PAPER_TEMPLATE

CLASSIFICATION_COLUMNS = (
    "run_id", "commit", "inputs", "profile", "dataset", "n_available", "n", "method", "variant", "scale", "k",
    "image_weight", "text_weight", "prompts", "names", "average", "references_id", "draw", "seed", "correct",
    "accuracy", "low", "high")
VIDEO_COLUMNS = ("run_id", "commit", "inputs", "profile", "gallery", "query", "pooling", "metric", "value", "low",
                 "high", "n")


def classification_row(config, test, correct, *, method, references=None, variant="", scale="", draw=None, seed=None):
    """One row of table1.csv or figure1.csv.

    Parameters
    ----------
    test : cached.TestSet;  correct : bool array (n,), which pictures were recognized
    method : str, one of `plots.METHOD_COLORS`;  variant : str, for RAM its normalization
    references : ReferenceSet or None where the method uses none;  draw, seed : int or None

    Returns
    -------
    row : dict with CLASSIFICATION_COLUMNS; accuracy is micro, with its 95 % Wilson interval
    """
    correct = np.asarray(correct, dtype=bool)
    low, high = metrics.wilson(int(correct.sum()), len(correct))
    vanilla, is_ram = method in ("RA-CLIP Vanilla", "random neighbors"), "RAM" in method
    trained = (variant, scale, seed, config.ram_epochs, config.pairs) if is_ram else None
    return {
        **run_info(config), "inputs": inputs_hash(config, test.key, references, trained), "dataset": test.name,
        "n_available": test.n_available, "n": len(correct), "method": method, "variant": variant, "scale": scale,
        "k": config.top_k if references is not None else None,
        "image_weight": config.image_weight if vanilla else None,
        "text_weight": config.text_weight if vanilla else None,
        "prompts": test.prompts, "names": "raw" if test.prompts == PAPER_TEMPLATE else "as stored",
        "average": "micro", "references_id": references.key if references is not None else "",
        "draw": draw, "seed": seed, "correct": int(correct.sum()), "accuracy": float(correct.mean()),
        "low": low, "high": high}


def video_rows(config, gallery, ranks, films, *, query, pooling):
    """Rows of video_retrieval.csv for one kind of query: R@1, R@5, R@10, median and mean rank, MRR.

    Parameters
    ----------
    gallery : gallery.Gallery;  ranks : int array (q,), rank of the right film per query, from 1
    films : int array (q,), the right film of each query
    query, pooling : str, what was asked and how frames became films

    Returns
    -------
    rows : list of dict with VIDEO_COLUMNS; 95 % bootstrap intervals that resample whole movies, since
        clips of one movie resemble each other
    """
    measures = {"R@1": lambda r: metrics.recall_at(r, 1), "R@5": lambda r: metrics.recall_at(r, 5),
                "R@10": lambda r: metrics.recall_at(r, 10), "median rank": metrics.median_rank,
                "mean rank": metrics.mean_rank, "MRR": metrics.mean_reciprocal_rank}
    movies, rows = [gallery.movies[film] for film in films], []
    clusters = movies if len(set(movies)) > 1 else None  # one movie alone can't be resampled
    for name, measure in measures.items():
        low, high = metrics.bootstrap_interval(ranks, measure, clusters=clusters, seed=config.seed)
        rows.append({**run_info(config), "inputs": inputs_hash(config, gallery.key), "gallery": gallery.name,
                     "query": query, "pooling": pooling, "metric": name, "value": float(measure(ranks)), "low": low,
                     "high": high, "n": len(ranks)})
    return rows


def inputs_hash(config, key, references=None, trained=None):
    """Content hash of what a row was computed from: the set's features, the references, k, weights, training."""
    used = None if references is None else (references.key, config.top_k, config.image_weight, config.text_weight)
    return content_hash(key, used, trained)


def write_results(rows, path, columns):
    """Write rows as CSV with exactly `columns`, to a temporary name first."""
    table = pd.DataFrame(rows)
    missing = set(columns) - set(table.columns)
    if missing:
        raise ValueError(f"Expected the columns {', '.join(columns)} for {path}, missing: {', '.join(sorted(missing))}.")
    with atomic_path(path) as temporary:
        table[list(columns)].to_csv(temporary, index=False)
    return table
