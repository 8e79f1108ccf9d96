"""The scoreboard: each number of the paper, what its code does, what we measured, and a verdict.

The rules were fixed before anything was measured (DESIGN.md, §6.6):

- *reproduced*, *not reproduced*: same protocol, and the paper's value inside, outside our 95 % interval;
- *not comparable*: another protocol or a subset; the differences are listed;
- *inconclusive*: too few pictures or trainings to decide;
- *not run*: the results file or its row is missing; the reason names the notebook;
- *not run here: toy world*: the demo's numbers bear on nothing in the paper;
- *stale: …*: from another commit, profile or other inputs than the current run's: never a verdict;
- *not tested*: a sentence that nothing here or in the paper can test; the reason says why;
- *setting: …*: a choice that the paper states, not a result; ours is the same or another.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from impart_utils.evidence import metrics
from impart_utils.evidence.results import SCHEMAS, read_paper_values, read_results
from impart_utils.zeroshot import PAPER_TEMPLATE

SCOREBOARD_COLUMNS = ("claim_id", "item", "dataset", "method", "metric", "unit", "paper", "code", "ours",
                      "low", "high", "n", "measured_on", "verdict", "reason", "notebook", "note")
PROTOCOL = ("prompts", "names", "average", "split", "k", "image_weight", "text_weight")  # as the paper's?
USUAL = {"prompts": (PAPER_TEMPLATE,), "names": ("raw",), "average": ("micro",),
         "split": ("torchvision", "test")}  # the paper's; sets other than Caltech101 have one test part
TOY = {"cifar10": "toy10", "cifar100": "toy100", "caltech101": "toy101"}
MIN_TRAININGS = 3
OPENAI = ("OpenAI ViT-B/32", "OpenAI CLIP ViT-B/32")  # as checkpoints and as feature packs name it


def differences(test, references=None, *, ram_epochs=None, training_pairs=None):
    """What sets a result apart from the paper's protocol: data, prompts, weights, references.

    Parameters
    ----------
    test : cached.TestSet;  references : ReferenceSet, or None where the method uses none
    ram_epochs, training_pairs : int, of RAM's training, or None where the method has none

    Returns
    -------
    differences : list of str, to be recorded under the row's `inputs` in inputs.json
    """
    found = list(test.notes)
    for name, known in USUAL.items():
        if getattr(test, name) not in known:
            found.append(f"{name}: {getattr(test, name)}, the paper's: {known[0]}")
    if test.weights not in OPENAI:
        found.append(f"weights: {test.weights}, the paper's: {OPENAI[0]}")
    if references is not None:
        source = str(references.metadata.get("source", "an unknown source"))
        if "yfcc" not in source.lower() or len(references) != 1000:
            found.append(f"references: {len(references)} from {source}, the paper's: 1000 from YFCC15M")
    if ram_epochs not in (None, 8):
        found.append(f"epochs of RAM's training: {ram_epochs}, the paper's code: 8")
    if training_pairs not in (None, 9000):
        found.append(f"pairs of RAM's training: {training_pairs}, the paper's code: at most 9000")
    return found


# ---- Judging -----------------------------------------------------------------------------------


def scoreboard(paper_values, results_folder, *, profile, commit, inputs=None, settings=None):
    """One row per claim of the paper, from the files in results/<profile>; see `judge`.

    What `cached.record_inputs` wrote into inputs.json as a list under a row's `inputs` are its `differences`.
    """
    folder = Path(results_folder)
    if not isinstance(paper_values, pd.DataFrame):
        paper_values = read_paper_values(paper_values)
    tables = {name: read_results(folder / name) for name in SCHEMAS if (folder / name).is_file()}
    if (folder / "cost.csv").is_file():  # times, which no schema judges
        tables["cost.csv"] = pd.read_csv(folder / "cost.csv")
    listed = folder / "inputs.json"
    recorded = json.loads(listed.read_text()) if listed.is_file() else {}
    recorded = {key: value for key, value in recorded.items() if isinstance(value, list)}
    return judge(paper_values, tables, profile=profile, commit=commit, inputs=inputs, settings=settings,
                 recorded=recorded)


def judge(paper_values, tables, *, profile, commit, inputs=None, settings=None, recorded=None):
    """The scoreboard from tables in memory.

    Parameters
    ----------
    paper_values : DataFrame of `read_paper_values`
    tables : dict, file name -> DataFrame of `read_results`; a missing file is a missing key
    profile, commit : str, of the current run; a row from another is stale
    inputs : collection of str, optional: the hashes that the current run computes from; a row with another
        is stale. None: not compared.
    settings : dict, optional: our value for the metrics of the paper's set-up, such as {"references": 1000}
    recorded : dict, `inputs` hash -> list of `differences`. A row without an entry isn't comparable:
        nothing vouches for its weights and references.

    Returns
    -------
    scoreboard : DataFrame with SCOREBOARD_COLUMNS; paper, code, ours, low and high in the column unit's unit
    """
    run = {"profile": profile, "commit": commit, "inputs": inputs, "settings": settings or {},
           "recorded": recorded or {}}
    of_code = paper_values[paper_values["source"] == "authors_code"]
    board = []
    for claim in paper_values[paper_values["source"] == "paper"].to_dict("records"):
        claim["notebook"], claim["file"] = claim["where_kit"].split(":")
        stored = [row["value"] for row in of_code.to_dict("records")
                  if all(row[name] == claim[name] for name in ("dataset", "method", "metric", "where_kit"))]
        found = _setting(claim, run) if claim["file"] == "settings" else _judge(claim, tables, run)
        board.append({**claim, "n": np.nan, "paper": claim["value"], "code": " / ".join(stored),
                      "measured_on": "", **found})
    return pd.DataFrame(board, columns=list(SCOREBOARD_COLUMNS))


def _judge(claim, tables, run):
    table, notebook = tables.get(claim["file"]), claim["notebook"]
    if claim["metric"] == "cost":
        return _cost(claim, table)
    if table is None:
        return {"verdict": "not run", "reason": f"{claim['file']} is missing: run notebook {notebook}"}
    wanted = dict(part.split("=", 1) for part in claim["protocol"].split("; ") if part)
    if claim["metric"] == "example" and "metric" not in wanted:
        verdict = "not run here: toy world" if run["profile"] == "demo" else "not comparable"
        return {"verdict": verdict, "reason": "no metric of ours measures this sentence"}
    name = TOY.get(claim["dataset"], "the films") if run["profile"] == "demo" else claim["dataset"]
    rows = _rows(claim, wanted, table, name)
    if not len(rows):
        return {"verdict": "not run", "reason": f"{claim['file']} has no row of {claim['method']} on "
                                                f"{name}: run notebook {notebook} with it"}
    where = " ".join(sorted(set(rows["dataset" if "dataset" in rows else "gallery"])))
    stale = _stale(rows, run)
    if stale:
        return {"verdict": stale, "reason": f"run notebook {notebook} again", "measured_on": where}
    measure = {"accuracy": _accuracy, "equivalence": _equivalence, "direction": _direction,
               "example": _example}
    found = measure[claim["metric"]](claim, rows, table)
    differs = _differences(claim, wanted, rows, run)
    if run["profile"] == "demo":
        found.update(verdict="not run here: toy world", reason=f"on {where}, which the kit draws itself")
    elif differs and found["verdict"] != "not comparable":
        found.update(verdict="not comparable", reason="; ".join(differs))
    return {**found, "measured_on": where}


def _rows(claim, wanted, table, name):
    """The rows of a results table that measure what the claim is about, here on the data set `name`."""
    if "gallery" in table:
        return table[(table["query"] == wanted["query"]) & (table["pooling"] == wanted["pooling"])
                     & (table["metric"] == wanted["metric"])]
    rows = table[(table["method"] == claim["method"]) & (table["dataset"].map(base_dataset) == name)]
    preferred = [rows["dataset"] == name]  # the set itself before a pack of it
    preferred += [_same(rows[column], wanted[column]) for column in PROTOCOL if column in wanted]
    if "variant" in wanted:
        rows = rows[rows["variant"] == wanted["variant"]]
        preferred.append(rows["scale"] == "raw")  # Fig. 1's bars; unit inputs stand in where norms are gone
    for mask in preferred:
        chosen = rows[mask.loc[rows.index]]
        rows = chosen if len(chosen) else rows
    return rows


def base_dataset(name):
    """The paper's data set behind a name: "cifar10:PATH" and "pack:cifar10_test500.npz" are "cifar10"."""
    kind, _, place = name.partition(":")
    return Path(place).stem.split("_")[0] if kind in ("pack", "folder") and place else kind


def _stale(rows, run):
    for column in ("profile", "commit"):
        other = sorted(set(rows[column]) - {run[column]})
        if other:
            return f"stale: computed with {column} {other[0]}, now {run[column]}"
    used = run["recorded"].get("references_used")
    if used and "references_id" in rows and set(rows["references_id"]) - {"", *used}:
        return "stale: computed with other references than the last notebook that ran"
    other = [] if run["inputs"] is None else sorted(set(rows["inputs"]) - set(run["inputs"]))
    return f"stale: computed from inputs {other[0]}, which aren't the current run's" if other else ""


def _same(column, wanted):
    return column == wanted if pd.api.types.is_string_dtype(column) else column == float(wanted)


def _differences(claim, wanted, rows, run):
    """How the rows' protocol differs from the paper's, as a list of str."""
    found = []
    if "n_available" in rows:
        for available, n in sorted(set(zip(rows["n_available"], rows["n"], strict=True))):
            found += [f"a subset: {n:.0f} of {available:.0f} pictures"] if n < available else []
            found += [f"n: {n:.0f}, the paper's: {claim['n']}"] if n != float(claim["n"]) else []
        for name in [name for name in PROTOCOL if name in wanted]:
            others = rows[name][~_same(rows[name], wanted[name])].unique()
            found += [f"{name}: {value}, the paper's: {wanted[name]}" for value in others]
    for key in rows["inputs"].unique():
        found += run["recorded"].get(key, ["its weights and references are not recorded in inputs.json"])
    return list(dict.fromkeys(found))


def _accuracy(claim, rows, table):
    """Of several trainings the mean, and the interval from the lowest low to the highest high."""
    low, high = 100 * rows["low"].min(), 100 * rows["high"].max()
    found = {"ours": 100 * rows["accuracy"].mean(), "low": low, "high": high, "n": rows["n"].iloc[0]}
    trainings = rows["seed"].nunique()
    if not claim["value"]:
        return {**found, "verdict": "not comparable", "reason": claim["note"].split(";")[0]}
    if "RAM" in claim["method"] and trainings < MIN_TRAININGS:
        return {**found, "verdict": "inconclusive",
                "reason": f"trainings: {trainings}, at least {MIN_TRAININGS} are needed"}
    inside = low <= float(claim["value"]) <= high
    return {**found, "verdict": "reproduced" if inside else "not reproduced",
            "reason": f"{claim['value']} lies {'inside' if inside else 'outside'} {low:.2f} to {high:.2f}"}


def _equivalence(claim, rows, table):
    """As good as CLIP, or better, by `metrics.equivalence_of_counts`: the 90 % interval of the difference."""
    row, margin = rows.iloc[0], float(claim["tolerance"]) / 100
    test = metrics.equivalence_of_counts(row["c"], row["b"], row["n"], margin)  # c: only the method is right
    verdict = "reproduced" if test.verdict == "equivalent" or test.low > margin else "not reproduced"
    return {"ours": 100 * test.difference, "low": 100 * test.low, "high": 100 * test.high, "n": row["n"],
            "verdict": "inconclusive" if test.verdict == "inconclusive" else verdict,
            "reason": f"{test.verdict} at a margin of {100 * margin:g} point: difference to {row['against']} "
                      f"in points, 90 % interval; {row['b']:.0f} pictures broken, {row['c']:.0f} mended"}


def _direction(claim, rows, table):
    """Higher in each of at least three trainings, paired by seed: reproduced; in none: not reproduced."""
    scale = rows["scale"].iloc[0]
    table = table[table["dataset"].isin(rows["dataset"]) & (table["scale"] == scale)]
    wide = table.pivot_table(index="seed", columns="variant", values="accuracy")
    wide = wide.reindex(columns=["none", "branch", "sum"])
    gains = {name: 100 * (wide[name] - wide["none"]).dropna() for name in ("branch", "sum")}
    wins, trainings = int((gains["branch"] > 0).sum()), len(gains["branch"])
    told = "; ".join(f"{name}: higher in {(gain > 0).sum()} of {len(gain)} trainings, "
                     f"mean {gain.mean():+.2f} points" for name, gain in gains.items() if len(gain))
    sure = trainings >= MIN_TRAININGS and wins in (0, trainings)
    return {"ours": gains["branch"].mean(), "n": rows["n"].iloc[0],
            "verdict": "inconclusive" if not sure else "reproduced" if wins else "not reproduced",
            "reason": f"{told or 'nothing to compare with'} ({scale} inputs). Rule: 'branch' higher in each "
                      f"of at least {MIN_TRAININGS} trainings, or in none"}


def _cost(claim, table):
    """Pretraining's cost can't be tested with frozen encoders; what a query costs besides is measured."""
    reason = ("nothing is pretrained at the paper's scale, the encoders are frozen; for the toy world see "
              "notebook 05 with grid=full")
    if table is None:
        return {"verdict": "not tested", "reason": reason}
    costs = table.set_index("method")[["ms_per_query", "mb_per_query"]]
    added = costs.loc[claim["method"]] - costs.loc["CLIP"]
    return {"verdict": "not tested", "measured_on": " ".join(sorted(set(table["dataset"]))),
            "reason": f"{reason}; Eq. 1 adds {added['ms_per_query']:.2g} ms and "
                      f"{added['mb_per_query']:.2g} MB to a query, its search included"}


def _example(claim, rows, table):
    row = rows.iloc[0]
    return {"ours": row["value"], "low": row["low"], "high": row["high"], "n": row["n"],
            "verdict": "not comparable",
            "reason": f"the paper shows one example without a metric; ours is {row['metric']} as a fraction "
                      f"over {row['n']:.0f} queries ({row['query']}, {row['pooling']})"}


def _setting(claim, run):
    ours = run["settings"].get(claim["metric"])
    found = {} if ours is None else {"ours": ours}
    if run["profile"] == "demo":
        return {**found, "verdict": "not run here: toy world", "reason": "a setting, here of the toy world"}
    if ours is None:
        return {"verdict": "not run", "reason": f"this run states no value of {claim['metric']}"}
    low, high = (float(bound) for bound in (claim["value"].split("-") * 2)[:2])  # "10-15" is a range
    same = low - float(claim["tolerance"]) <= ours <= high + float(claim["tolerance"])
    return {**found, "verdict": f"setting: {'the same' if same else 'another'}",
            "reason": f"ours is {ours:g}, the paper's {claim['value']}"}


def main(arguments=None):
    """`python -m impart_utils.evidence.claims diff A B` compares two results folders: see `run_diff`."""
    from impart_utils.evidence import run_diff

    return run_diff.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
