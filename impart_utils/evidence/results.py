"""The results files: rows that say what was measured, on what and from which inputs; written, read, checked.

The columns are those of DESIGN.md, rules of measurement.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from impart_utils.config import AVERAGES, run_info
from impart_utils.evidence import metrics
from impart_utils.sources.features import atomic_path, content_hash

METHODS = ("CLIP", "RA-CLIP Vanilla", "RA-CLIP (RAM)", "RA-CLIP (RAM, normalized)", "random neighbors")
CLASSIFICATION_COLUMNS = (
    "run_id", "commit", "inputs", "profile", "dataset", "n_available", "n", "method", "variant", "scale", "k",
    "image_weight", "text_weight", "prompts", "names", "average", "references_id", "draw", "seed", "correct",
    "accuracy", "low", "high", "weights", "split")
VIDEO_COLUMNS = ("run_id", "commit", "inputs", "profile", "gallery", "query", "pooling", "metric", "value",
                 "low", "high", "n", "weights", "variant")
PAPER_COLUMNS = ("claim_id", "source", "item", "place", "dataset", "method", "metric", "value", "unit", "n",
                 "protocol", "tolerance", "note", "where_kit")
COMPARISON_COLUMNS = (*CLASSIFICATION_COLUMNS, "against", "b", "c", "difference", "p")
SCHEMAS = {"table1.csv": CLASSIFICATION_COLUMNS, "figure1.csv": CLASSIFICATION_COLUMNS,
           "comparisons.csv": COMPARISON_COLUMNS, "video_retrieval.csv": VIDEO_COLUMNS}
WHOLE = ("n_available", "n", "k", "draw", "seed", "correct", "b", "c", "difference")
NUMBERS = (*WHOLE, "image_weight", "text_weight", "accuracy", "value", "low", "high", "p")
MAY_BE_EMPTY = ("k", "image_weight", "text_weight", "draw", "seed", "low", "high")

# ---- Rows ---------------------------------------------------------------------------------------


def classification_row(config, test, correct, *, method, references=None, variant="", scale="", draw=None,
                       seed=None):
    """One row of table1.csv or figure1.csv.

    Parameters
    ----------
    test : cached.TestSet;  correct : bool array (n,), which pictures were recognized
    method : str, one of `plots.METHOD_COLORS`;  variant : str, for RAM its normalization
    references : ReferenceSet or None where the method uses none;  draw, seed : int or None

    Returns
    -------
    row : dict with CLASSIFICATION_COLUMNS; accuracy and its 95 % interval as `averaged` with test.average
    """
    correct = np.asarray(correct, dtype=bool)
    accuracy, low, high = averaged(correct, test.labels, test.average)
    vanilla, is_ram = method in ("RA-CLIP Vanilla", "random neighbors"), "RAM" in method
    trained = (variant, seed, config.ram_epochs, config.pairs) if is_ram else None
    return {
        **run_info(config), "inputs": inputs_hash(config, test.key, references,
                                                      (scale, trained, test.average)),
        "dataset": test.name, "n_available": test.n_available, "n": len(correct),
        "method": method, "variant": variant, "scale": scale,
        "k": config.top_k if references is not None else None,
        "image_weight": config.image_weight if vanilla else None,
        "text_weight": config.text_weight if vanilla else None,
        "prompts": test.prompts, "names": test.names, "average": test.average,
        "references_id": references.key if references is not None else "", "draw": draw, "seed": seed,
        "correct": int(correct.sum()), "accuracy": accuracy, "low": low, "high": high,
        "weights": test.weights, "split": test.split}


def averaged(correct, labels, average):
    """(accuracy, low, high) with a 95 % interval.

    Parameters
    ----------
    correct : bool array (n,);  labels : int array (n,)
    average : "micro", each picture counts the same: Wilson's interval; or "mean per class", each class that
        occurs counts the same: bootstrap interval, resampled within each class
    """
    if average not in AVERAGES:
        raise ValueError(f"Unknown average {average!r}. Known: {', '.join(AVERAGES)}.")
    if average == "micro":
        return float(correct.mean()), *metrics.wilson(int(correct.sum()), len(correct))
    _, which = np.unique(labels, return_inverse=True)
    per_class = np.bincount(which, weights=correct) / np.bincount(which)  # (c,)
    return float(per_class.mean()), *metrics.mean_per_class_interval(correct, labels)


def video_rows(config, gallery, table, references=None):
    """Rows of video_retrieval.csv from a table of `film_evaluation.film_table`.

    Parameters
    ----------
    gallery : gallery.Gallery;  table : DataFrame of `film_table`
    references : ReferenceSet that the variants other than "CLIP" use, or None

    Returns
    -------
    rows : DataFrame with VIDEO_COLUMNS. `pooling` alone tells plain CLIP's rows from the others, for readers
        that know no variant: "mean_raw" is CLIP's, "Eq. 1 on frames, mean_raw" another's; "chance" guesses,
        with low and high empty.
    """
    def pooling(variant, how):
        return how if variant == "CLIP" else ", ".join(word for word in (variant, how) if word)

    plain, others = (inputs_hash(config, gallery.key, used) for used in (None, references))
    made = table.assign(
        **run_info(config), gallery=gallery.name, weights=gallery.weights,
        inputs=[plain if variant in ("CLIP", "chance") else others for variant in table["variant"]],
        pooling=[pooling(*row) for row in zip(table["variant"], table["pooling"], strict=True)])
    return made[list(VIDEO_COLUMNS)]


def comparison_table(rows, correct, *, against="CLIP"):
    """Every method against CLIP on the same pictures: the rows of comparisons.csv.

    Parameters
    ----------
    rows : list of dict in the results schema, one per method, data set and training
    correct : sequence of bool arrays (n,), what each row has right, in the order of `rows`
    against : the method to compare with, one row per data set

    Returns
    -------
    table : DataFrame with COMPARISON_COLUMNS, without the rows of `against`. b: pictures that only
        `against` has right (broken); c: only the row's method (mended); difference = c - b, in pictures;
        p: McNemar's exact test.
    """
    rows, correct = list(rows), list(correct)
    if len(rows) != len(correct):
        raise ValueError(f"Expected one array of right and wrong per row, got {len(correct)} for {len(rows)} "
                         "rows.")
    base = {row["dataset"]: right for row, right in zip(rows, correct, strict=True)
            if row["method"] == against}
    compared = []
    for row, right in zip(rows, correct, strict=True):
        if row["dataset"] not in base:
            raise ValueError(f"Expected a row of {against!r} to compare with for data set "
                             f"{row['dataset']!r}, got none.")
        if row["method"] != against:
            test = metrics.mcnemar(base[row["dataset"]], right)
            compared.append({**row, "against": against, "b": test.b, "c": test.c, "p": test.p,
                             "difference": test.c - test.b})
    return pd.DataFrame(compared, columns=list(COMPARISON_COLUMNS))


def inputs_hash(config, key, references=None, trained=None):
    """Content hash of what a row comes from: the set's features, the references, k, weights, training."""
    used = None
    if references is not None:
        used = (references.key, config.top_k, config.image_weight, config.text_weight)
    return content_hash(key, used, trained)


# ---- Writing and reading ------------------------------------------------------------------------


def write_results(rows, path, columns):
    """Write rows as CSV with exactly `columns`, to a temporary name first."""
    table = pd.DataFrame(rows)
    missing = set(columns) - set(table.columns)
    if missing:
        raise ValueError(f"Expected the columns {', '.join(columns)} for {path}, "
                         f"missing: {', '.join(sorted(missing))}.")
    with atomic_path(path) as temporary:
        table[list(columns)].to_csv(temporary, index=False)
    return table


def read_paper_values(path):
    """data/paper_values.csv as a DataFrame of str: values in the paper's unit, "" where its text has none."""
    table = _read(path, PAPER_COLUMNS)
    _known(path, "method", table["method"], ("", *METHODS))
    _known(path, "source", table["source"], ("paper", "authors_code"))
    twice = table["claim_id"][table["claim_id"].duplicated()]
    if len(twice):
        raise ValueError(f"{path}, column claim_id: {twice.iloc[0]!r} is there more than once.")
    return table


def read_results(path):
    """A results file, its columns and types checked.

    Parameters
    ----------
    path : a file named table1.csv, figure1.csv, comparisons.csv or video_retrieval.csv

    Returns
    -------
    table : DataFrame; text columns are str, the others float, with NaN only where empty is allowed

    Raises
    ------
    FileNotFoundError, ValueError : the message names the file and the column.
    """
    path = Path(path)
    if path.name not in SCHEMAS:
        raise ValueError(f"Unknown results file {path.name!r}. Known: {', '.join(SCHEMAS)}.")
    table = _read(path, SCHEMAS[path.name])
    for name in [name for name in table.columns if name in NUMBERS]:
        table[name] = _numbers(path, name, table[name])
    if "method" in table:
        _known(path, "method", table["method"], METHODS)
        _known(path, "average", table["average"], AVERAGES)
        wrong = (table["correct"] / table["n"] - table["accuracy"]).abs() > 1e-6
        if (wrong & (table["average"] == "micro")).any():
            raise ValueError(f"{path}, column accuracy: row {np.flatnonzero(wrong)[0]} isn't correct / n.")
    return table


def _read(path, columns):
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no {path}.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)  # a name "None" stays text
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing. Expected {', '.join(columns)}.")
    return table[list(columns)].copy()


def _numbers(path, name, column):
    numbers = pd.to_numeric(column.mask(column == ""), errors="coerce").astype(float)
    wrong, rule = numbers.isna() & ~((column == "") & (name in MAY_BE_EMPTY)), "a number"
    if name in WHOLE:
        wrong, rule = wrong | (numbers.notna() & (numbers % 1 != 0)), "a whole number"
    if name in ("accuracy", "p"):
        wrong, rule = wrong | (numbers < 0) | (numbers > 1), "a fraction from 0 to 1, not percent,"
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"{path}, column {name}: expected {rule} in row {row}, got {column.iloc[row]!r}.")
    return numbers


def _known(path, name, column, known):
    unknown = sorted(set(column) - set(known))
    if unknown:
        raise ValueError(f"{path}, column {name}: unknown {name} {unknown[0]!r}. "
                         f"Known: {', '.join(word for word in known if word)}.")
