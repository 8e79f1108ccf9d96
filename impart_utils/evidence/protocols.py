"""One set of features under every protocol, beside the numbers that others published for the same weights.

A zero-shot accuracy is a number about weights, prompts, class names, a choice of pictures and a way of
averaging. Leave one of them out, and 81.9, 85.4 and 87.9 for one and the same CLIP look like a contradiction.
"""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

from impart_utils import cached
from impart_utils.config import AVERAGES, CALTECH, MissingInput
from impart_utils.evidence.claims import OPENAI, base_dataset
from impart_utils.evidence.results import averaged
from impart_utils.sources import caltech, prompts
from impart_utils.zeroshot import predict

TABLE_COLUMNS = ("dataset", "split", "prompts", "names", "average", "accuracy", "low", "high", "n", "weights")
PUBLISHED_COLUMNS = ("source", "dataset", "value", "prompts", "names", "split", "average", "note", "mark")
SIDE_BY_SIDE_COLUMNS = ("dataset", "source", "published", "ours", "low", "high", "n", "prompts", "names",
                        "split", "average", "note")


def protocol_table(config, name):
    """CLIP's accuracy on one data set under every protocol that its features allow.

    Parameters
    ----------
    config : Config, whose prompts, names, caltech and average are left aside here
    name : str, as for `cached.test_set`

    Returns
    -------
    table : DataFrame with TABLE_COLUMNS: prompts x names x (Caltech101: split) x average; accuracy as a
        fraction with its 95 % interval (micro: Wilson; mean per class: bootstrap). The split "vtab (drawn)"
        leaves 30 pictures a class out as VTAB does, where its own list isn't here.

    No picture is encoded twice. Texts are: all prompts of all classes, once, then cached.
    """
    texts, rows = cached.class_texts(config, name), []
    words = {asked: _described(replace(config, prompts=asked, names=names), name) for asked, names in texts}
    for split, test, scored in _splits(config, name, next(iter(texts))):
        for (asked, names), W in texts.items():
            correct = (predict(test.image_features, W[test.class_rows]) == test.labels)[scored]
            for average in AVERAGES:
                accuracy, low, high = averaged(correct, test.labels[scored], average)
                rows.append({"dataset": test.name, "split": split, "prompts": words[asked], "names": names,
                             "average": average, "accuracy": accuracy, "low": low, "high": high,
                             "n": len(correct), "weights": test.weights})
    return pd.DataFrame(rows, columns=list(TABLE_COLUMNS))


def _described(config, name):
    """The prompts in the words of a results row."""
    if name.startswith("pack:"):
        return cached.test_set(config, name).prompts
    return prompts.described(config.prompts, name.partition(":")[0])


def _splits(config, name, texts):
    """(split, TestSet, which of its pictures are scored) for every split of the data set."""
    config, found = replace(config, prompts=texts[0], names=texts[1]), []
    for protocol in CALTECH:
        try:
            with warnings.catch_warnings():  # of missing pictures the run's own test set has told
                warnings.simplefilter("ignore", UserWarning)
                test = cached.test_set(replace(config, caltech=protocol), name)
        except MissingInput:  # vtab without the background's pictures
            continue
        found.append((test.split, test, slice(None)))
        if test.split not in CALTECH:  # no other split: all three settings mean the same
            break
        if test.split == "vtab" and len(test.labels) == sum(caltech.COUNTS.values()):
            rows = caltech.drawn_by_tfds_rule(test.class_names, test.labels)
            found.append(("vtab (drawn)", test, rows))
    return found


def published(path):
    """data/published_values.csv: what others report for CLIP ViT-B/32, in percent.

    Returns
    -------
    table : DataFrame with PUBLISHED_COLUMNS, value as float, the rest str. mark: "R", read in the source
        itself, or "S", taken from a secondary source. An empty protocol column means that the source
        doesn't say.

    Raises
    ------
    ValueError : the message names the file, the column and the row.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in PUBLISHED_COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing. "
                         f"Expected {', '.join(PUBLISHED_COLUMNS)}.")
    values = pd.to_numeric(table["value"], errors="coerce")
    for column, wrong, rule in (
            ("value", ~values.between(0, 100), "a number of percent"),
            ("mark", ~table["mark"].isin(["R", "S"]), "R (read) or S (secondary)"),
            ("source", table["source"] == "", "a source"),
            ("average", ~table["average"].isin(["", *AVERAGES]), f"one of {', '.join(AVERAGES)}")):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"{path}, column {column}: expected {rule} in row {row}, "
                             f"got {table[column].iloc[row]!r}.")
    return table[list(PUBLISHED_COLUMNS)].assign(value=values)


def side_by_side(table, paper_values, published_values):
    """Table 1's row of CLIP, the authors' stored run and other published values, each beside ours.

    Parameters
    ----------
    table : DataFrame of `protocol_table`, of one or several data sets
    paper_values : DataFrame of `claims.read_paper_values`;  published_values : DataFrame of `published`

    Returns
    -------
    table : DataFrame with SIDE_BY_SIDE_COLUMNS, in percent. `ours` is under that row's own protocol, and
        empty where this run has no such protocol, data set or OpenAI's weights.
    """
    rows = []
    for row in [*_of_paper(paper_values), *published_values.to_dict("records")]:
        ours = _same_protocol(table, row)
        rows.append({**row, "published": row["value"], "ours": np.nan, "low": np.nan, "high": np.nan,
                     "n": np.nan, **ours})
    found = pd.DataFrame(rows, columns=list(SIDE_BY_SIDE_COLUMNS))
    return found.sort_values("dataset", key=lambda names: names.map(list(dict.fromkeys(names)).index),
                             kind="stable", ignore_index=True)


def _of_paper(paper_values):
    """Rows of CLIP in Table 1 and of the stored run of its code, in the columns of `published`."""
    sources = {"paper": "IMPART, Table 1", "authors_code": "its code, stored run"}
    for row in paper_values.to_dict("records"):
        if row["method"] == "CLIP" and row["metric"] == "accuracy" and row["value"]:
            protocol = dict(part.split("=", 1) for part in row["protocol"].split("; ") if part)
            split = "torchvision" if row["dataset"] == "caltech101" else "test"
            yield {"source": sources[row["source"]], "dataset": row["dataset"], "value": float(row["value"]),
                   "split": split, "note": "", **{name: protocol[name] for name in ("prompts", "names",
                                                                                   "average")}}


def _same_protocol(table, row):
    """Ours, in percent, under a published row's protocol; {} where there is none."""
    same = table["dataset"].map(base_dataset).eq(row["dataset"]) & table["weights"].isin(OPENAI)
    for name in ("prompts", "names", "average"):
        same &= table[name] == row[name]
    same &= table["split"].isin([row["split"], f"{row['split']} (drawn)"])
    if not same.any():
        return {}
    ours = table[same].iloc[-1]  # "vtab (drawn)" stands behind "vtab", and has its number of pictures
    return {"ours": 100 * ours["accuracy"], "low": 100 * ours["low"], "high": 100 * ours["high"],
            "n": ours["n"]}
