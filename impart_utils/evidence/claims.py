"""The scoreboard: each number of the paper, what its code does, what we measured, and a verdict.

The rules were fixed before anything was measured (DESIGN.md §6.6):

- *reproduced* / *not reproduced*: same protocol, and the paper's value inside / outside our 95 % interval;
- *not comparable*: another protocol or a subset; the differences are listed;
- *inconclusive*: too few pictures or trainings to decide;
- *not run*: the results file is missing; the reason names the notebook;
- *not run here: toy world*: the demo's numbers bear on nothing in the paper;
- *stale: …*: from another commit or other inputs than the current run's: never a verdict;
- *setting: …*: a choice the paper states, not a result: ours is the same or differs.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from impart_utils.evidence import metrics
from impart_utils.evidence.results import CLASSIFICATION_COLUMNS, VIDEO_COLUMNS

METHODS = ("CLIP", "RA-CLIP Vanilla", "RA-CLIP (RAM)", "RA-CLIP (RAM, normalized)", "random neighbors")
COMPARISON_COLUMNS = (*CLASSIFICATION_COLUMNS, "against", "b", "c", "difference", "p")
PAPER_COLUMNS = ("claim_id", "source", "item", "place", "dataset", "method", "metric", "value", "unit", "n",
                 "protocol", "tolerance", "note", "where_kit")
SCOREBOARD_COLUMNS = ("claim_id", "item", "dataset", "method", "metric", "unit", "paper", "code", "ours", "low", "high",
                      "n", "measured_on", "verdict", "reason", "notebook", "note")
SCHEMAS = {"table1.csv": CLASSIFICATION_COLUMNS, "figure1.csv": CLASSIFICATION_COLUMNS,
           "comparisons.csv": COMPARISON_COLUMNS, "video_retrieval.csv": VIDEO_COLUMNS}
WHOLE = ("n_available", "n", "k", "draw", "seed", "correct", "b", "c", "difference")
FRACTIONS = ("accuracy", "low", "high", "p")  # of the video file only where the metric is a share
MAY_BE_EMPTY = ("k", "image_weight", "text_weight", "draw", "seed", "low", "high")
NUMBERS = (*WHOLE, *FRACTIONS, "image_weight", "text_weight", "value")
TOY = {"cifar10": "toy10", "cifar100": "toy100", "caltech101": "toy101", "condensed movies": "toy"}
MIN_TRAININGS = 3
OPENAI = "OpenAI ViT-B/32"

# ---- Reading -----------------------------------------------------------------------------------


def read_paper_values(path):
    """data/paper_values.csv as a DataFrame of str (values stay in the paper's unit; "" where it gives none)."""
    table = _read(path, PAPER_COLUMNS)
    _known(path, "method", table["method"], ("", *METHODS))
    _known(path, "source", table["source"], ("paper", "authors_code"))
    if table["claim_id"].duplicated().any():
        raise ValueError(f"{path}, column claim_id: {table['claim_id'][table['claim_id'].duplicated()].iloc[0]!r} "
                         "is there more than once.")
    return table


def read_results(path):
    """A results file with its columns and types checked.

    Parameters
    ----------
    path : a file named table1.csv, figure1.csv, comparisons.csv or video_retrieval.csv

    Returns
    -------
    table : DataFrame; text columns are str, the others numbers, with NaN only where empty is allowed

    Raises
    ------
    ValueError : the message names the file and the column.
    """
    path = Path(path)
    if path.name not in SCHEMAS:
        raise ValueError(f"Unknown results file {path.name!r}. Known: {', '.join(SCHEMAS)}.")
    table = _read(path, SCHEMAS[path.name])
    for name in set(NUMBERS) & set(table.columns):
        table[name] = _numbers(path, name, table[name])
    if "accuracy" in table:
        _known(path, "method", table["method"], METHODS)
        wrong = (table["correct"] / table["n"] - table["accuracy"]).abs() > 1e-6
        if (wrong & (table["average"] == "micro")).any():
            raise ValueError(f"{path}, column accuracy: row {int(np.flatnonzero(wrong)[0])} isn't correct / n.")
    return table


def _read(path, columns):
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no {path}.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)  # a name "None" stays text
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing. Expected {', '.join(columns)}.")
    return table[list(columns)]


def _numbers(path, name, column):
    numbers = pd.to_numeric(column.mask(column == ""), errors="coerce").astype(float)
    wrong = numbers.isna() & ~((column == "") & (name in MAY_BE_EMPTY))
    rule = "a number"
    if name in WHOLE:
        wrong, rule = wrong | (numbers.notna() & (numbers % 1 != 0)), "a whole number"
    if name in FRACTIONS and name in ("accuracy", "p"):
        wrong, rule = wrong | (numbers < 0) | (numbers > 1), "a fraction from 0 to 1, not percent"
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"{path}, column {name}: expected {rule} in row {row}, got {column.iloc[row]!r}.")
    return numbers


def _known(path, name, column, known):
    unknown = sorted(set(column) - set(known))
    if unknown:
        raise ValueError(f"{path}, column {name}: unknown {name} {unknown[0]!r}. "
                         f"Known: {', '.join(word for word in known if word)}.")


# ---- What the results files need from the notebooks --------------------------------------------


def comparison_table(rows, correct, *, against="CLIP"):
    """Every method against CLIP on the same pictures: the rows of comparisons.csv.

    Parameters
    ----------
    rows : list of dict in the results schema, one per method, data set and training
    correct : sequence of bool arrays (n,), which pictures each row has right, in the order of `rows`
    against : the method to compare with, once per data set

    Returns
    -------
    table : DataFrame with COMPARISON_COLUMNS, without the rows of `against` itself. b: pictures that only
        `against` has right (broken); c: only the row's method (mended); difference = c - b, in pictures;
        p: McNemar's exact test.
    """
    rows, correct = list(rows), list(correct)
    if len(rows) != len(correct):
        raise ValueError(f"Expected one array of right and wrong for each row, got {len(correct)} for {len(rows)} rows.")
    base = {row["dataset"]: right for row, right in zip(rows, correct) if row["method"] == against}
    compared = []
    for row, right in zip(rows, correct):
        if row["dataset"] not in base:
            raise ValueError(f"There is no row of {against!r} for data set {row['dataset']!r} to compare with.")
        if row["method"] != against:
            test = metrics.mcnemar(base[row["dataset"]], right)
            compared.append({**row, "against": against, "b": test.b, "c": test.c, "difference": test.c - test.b,
                             "p": test.p})
    return pd.DataFrame(compared, columns=COMPARISON_COLUMNS)


def differences(test, references=None):
    """What sets a result apart from the paper's protocol and isn't in its row: data, weights, references.

    Parameters
    ----------
    test : cached.TestSet;  references : ReferenceSet or None where the method uses none

    Returns
    -------
    differences : list of str; record them under the row's `inputs` with `cached.record_inputs`
    """
    found = list(test.notes)
    if test.weights != OPENAI:
        found.append(f"weights: {test.weights}, the paper's: {OPENAI}")
    if references is not None:
        source = str(references.metadata.get("source", "unknown"))
        if "yfcc" not in source.lower() or len(references) != 1000:
            found.append(f"references: {len(references)} from {source}, the paper's: 1000 from YFCC15M")
    return found


# ---- Judging -----------------------------------------------------------------------------------


def scoreboard(paper_values, results_folder, *, profile, commit, inputs=None, settings=None):
    """One row per claim of the paper.

    Parameters
    ----------
    paper_values : DataFrame from `read_paper_values`, or its path
    results_folder : path of results/<profile>
    profile, commit : str, of the current run; a row from another is stale
    inputs : collection of str, optional: the `inputs` hashes the current run computes from; a row with
        another is stale. None: not compared.
    settings : dict, optional: our value for each metric of the paper's set-up, such as {"references": 1000}

    Returns
    -------
    scoreboard : DataFrame with SCOREBOARD_COLUMNS; ours, low and high in the paper's unit
    """
    folder = Path(results_folder)
    if not isinstance(paper_values, pd.DataFrame):
        paper_values = read_paper_values(paper_values)
    tables = {name: read_results(folder / name) for name in SCHEMAS if (folder / name).is_file()}
    recorded = json.loads((folder / "inputs.json").read_text()) if (folder / "inputs.json").is_file() else {}
    return judge(paper_values, tables, profile=profile, commit=commit, inputs=inputs, settings=settings,
                 recorded={key: value for key, value in recorded.items() if isinstance(value, list)})


def judge(paper_values, tables, *, profile, commit, inputs=None, settings=None, recorded=None):
    """The scoreboard from tables in memory; see `scoreboard`.

    Parameters
    ----------
    tables : dict, file name -> DataFrame from `read_results`; a missing file is a missing key
    recorded : dict, `inputs` hash -> list of `differences`. A row without an entry is not comparable:
        nothing vouches for its weights and references.
    """
    run = {"profile": profile, "commit": commit, "inputs": inputs, "recorded": recorded or {}, "settings": settings or {}}
    code = paper_values[paper_values["source"] == "authors_code"]
    board = []
    for claim in paper_values[paper_values["source"] == "paper"].to_dict("records"):
        same = code[(code[["dataset", "method", "metric"]] == [claim[c] for c in ("dataset", "method", "metric")]).all(axis=1)]
        notebook, file = claim["where_kit"].split(":")
        found = _judge(claim, notebook, file, tables, run)
        board.append({**claim, "paper": claim["value"], "code": " / ".join(same["value"]), "ours": np.nan, "low": np.nan,
                      "high": np.nan, "n": np.nan, "measured_on": "", "notebook": notebook, **found})
    return pd.DataFrame(board, columns=SCOREBOARD_COLUMNS)


def _judge(claim, notebook, file, tables, run):
    if file == "settings":
        return _setting(claim, run)
    if file not in tables:
        return {"verdict": "not run", "reason": f"{file} is missing: run notebook {notebook}"}
    wanted = dict(part.split("=", 1) for part in claim["protocol"].split("; "))
    rows = _rows(claim, wanted, tables[file], run["profile"])
    if not len(rows):
        what = " ".join(filter(None, [claim["method"] if "method" in tables[file] else "", "on", claim["dataset"]]))
        return {"verdict": "not run", "reason": f"{file} has no row of {what}: run notebook {notebook} with it"}
    measure = {"accuracy": _accuracy, "equivalence": _equivalence, "direction": _direction, "example": _example}
    found = measure[claim["metric"]](claim, rows, tables[file], _differences(claim, wanted, rows, run))
    found["measured_on"] = " ".join(sorted(set(rows["dataset" if "dataset" in rows else "gallery"])))
    stale = _stale(rows, run)
    if stale:
        return {"verdict": stale, "reason": f"run notebook {notebook} again", "measured_on": found["measured_on"]}
    if run["profile"] == "demo":
        found.update(verdict="not run here: toy world", reason="the toy world's number, beside the paper's for its place only")
    return found


def _rows(claim, wanted, table, profile):
    """The rows of a results table that measure what the claim is about."""
    column = "dataset" if "dataset" in table else "gallery"
    if column == "gallery":
        chosen = table[(table["query"] == wanted["query"]) & (table["pooling"] == wanted["pooling"])]
        return chosen[chosen["metric"] == wanted["metric"]]
    name = TOY[claim["dataset"]] if profile == "demo" else claim["dataset"]
    chosen = table[(table["method"] == claim["method"]) & (table[column].map(base_dataset) == name)]
    if (chosen[column] == name).any():  # the set itself before a pack of it
        chosen = chosen[chosen[column] == name]
    if "variant" in wanted:
        chosen = chosen[chosen["variant"] == wanted["variant"]]
        raw = chosen[chosen["scale"] == "raw"]  # the figure's bars; unit inputs stand in where norms are gone
        return raw if len(raw) else chosen
    return chosen


def base_dataset(name):
    """The paper's data set behind a name: "cifar10:PATH" and "pack:cifar10_test500.npz" are "cifar10"."""
    kind, _, place = name.partition(":")
    return Path(place).stem.split("_")[0] if kind in ("pack", "folder") and place else kind


def _stale(rows, run):
    for column in ("profile", "commit"):
        other = sorted(set(rows[column]) - {run[column]})
        if other:
            return f"stale: computed with {column} {other[0]}, now {run[column]}"
    if run["inputs"] is not None and not set(rows["inputs"]) <= set(run["inputs"]):
        other = sorted(set(rows["inputs"]) - set(run["inputs"]))
        return f"stale: computed from inputs {other[0]}, which aren't the current run's"
    return ""


def _differences(claim, wanted, rows, run):
    """How the rows' protocol differs from the paper's, as a list of str."""
    found = []
    if "n_available" in rows:
        for available, n in sorted(set(zip(rows["n_available"], rows["n"]))):
            found += [f"a subset: {n:.0f} of {available:.0f} pictures"] if n < available else []
            found += [f"n: {n:.0f}, the paper's: {claim['n']}"] if n != float(claim["n"]) else []
        for name in ("prompts", "names", "average", "k", "image_weight", "text_weight"):
            for value in rows[name].drop_duplicates() if name in wanted else ():
                same = value == wanted[name] if isinstance(value, str) else value == float(wanted[name])
                found += [] if same else [f"{name}: {value}, the paper's: {wanted[name]}"]
    for key in rows["inputs"].drop_duplicates():
        found += run["recorded"].get(key, ["weights and references of this row are not recorded in inputs.json"])
    return list(dict.fromkeys(found))


def _accuracy(claim, rows, table, differs):
    """Several trainings: their mean, and the interval from the lowest low to the highest high."""
    low, high = 100 * rows["low"].min(), 100 * rows["high"].max()
    found = {"ours": 100 * rows["accuracy"].mean(), "low": low, "high": high, "n": rows["n"].iloc[0]}
    if not claim["value"]:
        return {**found, "verdict": "not comparable", "reason": claim["note"].split(";")[0]}
    if differs:
        return {**found, "verdict": "not comparable", "reason": "; ".join(differs)}
    trainings = rows["seed"].nunique()
    if "RAM" in claim["method"] and trainings < MIN_TRAININGS:
        return {**found, "verdict": "inconclusive", "reason": f"{trainings} trainings, {MIN_TRAININGS} are needed"}
    inside = low <= float(claim["value"]) <= high
    return {**found, "verdict": "reproduced" if inside else "not reproduced",
            "reason": f"{claim['value']} lies {'inside' if inside else 'outside'} {low:.2f} to {high:.2f}"}


def _equivalence(claim, rows, table, differs):
    """As good as CLIP, or better: the difference to CLIP must not lie beyond the margin on the bad side."""
    row, margin = rows.iloc[0], float(claim["tolerance"]) / 100
    test = metrics.equivalence_of_counts(row["c"], row["b"], row["n"], margin)  # c: only the method has it right
    found = {"ours": 100 * test.difference, "low": 100 * test.low, "high": 100 * test.high, "n": row["n"]}
    verdict = {"equivalent": "reproduced", "inconclusive": "inconclusive",
               "different": "reproduced" if test.low > margin else "not reproduced"}[test.verdict]
    if differs:
        return {**found, "verdict": "not comparable", "reason": "; ".join(differs)}
    return {**found, "verdict": verdict,
            "reason": f"{test.verdict} with a margin of {100 * margin:g} point: difference to {row['against']} in points, "
                      f"90 % interval {100 * test.low:.2f} to {100 * test.high:.2f}; {row['b']:.0f} pictures broken, "
                      f"{row['c']:.0f} mended"}


def _direction(claim, rows, table, differs):
    """Higher in every training, paired by seed, of at least three: reproduced; in none: not reproduced."""
    scale = rows["scale"].iloc[0]
    same = table[table["dataset"].isin(rows["dataset"]) & (table["scale"] == scale)]
    wide = same.pivot_table(index="seed", columns="variant", values="accuracy")
    gains = {name: 100 * (wide[name] - wide["none"]).dropna() for name in ("branch", "sum")
             if name in wide and "none" in wide}
    main = gains.get("branch", pd.Series(dtype=float))
    wins, seeds = int((main > 0).sum()), len(main)
    found = {"ours": main.mean(), "n": rows["n"].iloc[0]}
    told = "; ".join(f"{name}: higher in {(gain > 0).sum()} of {len(gain)} trainings, mean {gain.mean():+.2f} points"
                     for name, gain in gains.items())
    reason = f"{told or 'no training without normalizing to compare with'}; {scale} inputs; 'branch' decides"
    if differs:
        return {**found, "verdict": "not comparable", "reason": f"{'; '.join(differs)}; {reason}"}
    if seeds < MIN_TRAININGS or 0 < wins < seeds:
        return {**found, "verdict": "inconclusive", "reason": f"{reason}, by all of at least {MIN_TRAININGS} trainings"}
    return {**found, "verdict": "reproduced" if wins else "not reproduced", "reason": reason}


def _example(claim, rows, table, differs):
    row = rows.iloc[0]
    return {"ours": row["value"], "low": row["low"], "high": row["high"], "n": row["n"], "verdict": "not comparable",
            "reason": f"the paper shows one example without a metric; ours is {row['metric']}, a fraction, over {row['n']:.0f} "
                      f"queries ({row['query']}, {row['pooling']})"}


def _setting(claim, run):
    ours = run["settings"].get(claim["metric"])
    if run["profile"] == "demo":
        return {"ours": np.nan if ours is None else ours, "measured_on": "toy world", "verdict": "not run here: toy world",
                "reason": "a setting of the toy world"}
    if ours is None:
        return {"verdict": "not run", "reason": f"this run states no {claim['metric']}"}
    low, high = (float(bound) for bound in (claim["value"].split("-") * 2)[:2])
    same = low - float(claim["tolerance"]) <= ours <= high + float(claim["tolerance"])
    return {"ours": ours, "verdict": f"setting: {'the same' if same else 'another'}",
            "reason": f"ours is {ours:g}, the paper's {claim['value']}"}
