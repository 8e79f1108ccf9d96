"""The reviewer's page on the paper's claims: its numbers, its sentences, its Table 1; a section each."""

from fnmatch import fnmatch

import pandas as pd

from impart_utils.evidence.bearing import RAM, VANILLA, files_of, recalls
from impart_utils.evidence.report_tables import bears, missing, table

FILES = {"accuracy": "table1.csv", "equivalence": "comparisons.csv", "direction": "figure1.csv",
         "example": "video_retrieval.csv"}  # what a claim is judged from, by its metric

# ---- The paper's numbers and sentences ------------------------------------------------------------


def verdicts(run):
    """How many claims got which verdict."""
    title = "## Verdicts"
    if "scoreboard.csv" not in run.tables:
        return f"{title}\n\nNone: {missing(run, 'scoreboard.csv')}."
    kinds = run.tables["scoreboard.csv"]["verdict"].str.replace("^stale:.*", "stale", regex=True)
    rows = [{"verdict": kind, "numbers and judged sentences": f"{count}"}
            for kind, count in kinds.value_counts().items()]
    return f"{title}\n\n" + table(rows, "The rules, fixed before anything was measured, stand in notebook "
                                        f"{run.link('09_scoreboard')}.")


def numbers(run):
    """The claims of the scoreboard, a row each, in groups that share a quote."""
    title = "## Numbers"
    if "scoreboard.csv" not in run.tables:
        return f"{title}\n\n{missing(run, 'scoreboard.csv')}."
    quotes, groups = run.texts["paper_quotes.csv"].to_dict("records"), {}
    for claim in run.tables["scoreboard.csv"].to_dict("records"):
        quote = next((quote for quote in quotes if _about(quote, claim["claim_id"])), None)
        words = (f"“{quote['quote']}”", quote["place"]) if quote else (claim["item"], "")
        groups.setdefault((*words, where(run, claim)), []).append(claim)
    shown = [_group(run, *words, claims) for words, claims in groups.items()]
    return "\n\n".join([title, (
        f"Numbers of the paper, and sentences with a rule{run.toy}. Accuracies in percent with 95 % "
        "intervals, of several trainings from the lowest low to the highest high; for a sentence, 'ours' is "
        "a difference in points, to CLIP with its 90 % interval; examples are fractions."), *shown])


def _group(run, quote, place, cell, claims):
    """A quote with its place, the cell it is judged in, what the paper's code did, and a row per claim."""
    notes, place = {}, f" ({place})" if place else ""
    for claim in claims:
        notes.setdefault(claim["note"], []).append(claim["claim_id"])
    notes.pop("", None)
    told = "\n".join(f"- {', '.join(names)}: {note}." for note, names in notes.items())
    if len(notes) == 1 and len(next(iter(notes.values()))) == len(claims):
        told = f"On the paper's code: {next(iter(notes))}."
    rows = [{"claim": claim["claim_id"], "paper": _value(claim), "its code's stored runs": claim["code"],
             "ours": _ours(claim), "interval, n": interval(claim), "control": control(run, claim),
             "verdict": f"**{claim['verdict']}** ({claim['reason']})"} for claim in claims]
    empty = [name for name in rows[0] if not any(row[name] for row in rows)]
    rows = [{name: text for name, text in row.items() if name not in empty} for row in rows]
    return table(rows, "\n\n".join(filter(None, [f"**{quote}**{place}", f"Judged in {cell}.", told])))


def sentences(run):
    """One row per sentence of the paper about its own method that is not a row above."""
    board = run.tables.get("scoreboard.csv")
    verdict = {} if board is None else dict(zip(board["claim_id"], board["verdict"], strict=True))
    rows = []
    for quote in run.texts["paper_quotes.csv"].to_dict("records"):
        if not (quote["code"] or quote["bearing"] or quote["why"]):  # a quote of the section above
            continue
        judged = pd.Series([verdict[claim] for claim in verdict if _about(quote, claim)], dtype=str)
        counted = [f"{kind} ({count} of {len(judged)} rows above)"
                   for kind, count in judged.value_counts().items()]
        cells = [_cell(run, file) for file in files_of(quote["bearing"]) if file in run.cells]
        rows.append({
            "the paper": f"“{quote['quote']}” ({quote['place']})", "what its code did": quote["code"],
            "ours, and its control": " ".join([bears(run, quote["bearing"]),
                                               *([f"({'; '.join(cells)})"] if cells else [])]),
            "verdict": "; ".join([*counted, quote["why"] and f"not judged: {quote['why']}"]).strip("; ")})
    return "## Sentences\n\n" + table(rows, (
        f"Sentences of the paper about its own method{run.toy}. Those about other papers, and plans, are "
        "left out."))


def _about(quote, claim_id):
    return any(fnmatch(claim_id, pattern) for pattern in quote["claims"].split())


def _value(claim):
    return "" if claim["unit"] == "text" else claim["paper"] or "not in the text"


def _ours(claim):
    if pd.isna(claim["ours"]):
        return ""
    return f"{claim['ours']:g}" if claim["unit"] in ("count", "fps") else f"{claim['ours']:.2f}"


def interval(row):
    """"80.26 to 83.62, n = 2000", or what of it there is."""
    ends = "" if pd.isna(row["low"]) else f"{row['low']:.2f} to {row['high']:.2f}"
    return ", ".join(part for part in (ends, "" if pd.isna(row["n"]) else f"n = {row['n']:.0f}") if part)


def where(run, claim):
    """Notebook, section and cell that wrote the file a claim is judged from."""
    notebook, file = claim["notebook"], FILES.get(claim["metric"], f"{claim['notebook']}:settings")
    file = "figure1.csv" if claim["item"] == "Fig. 1" else file
    written_by = run.cells.get(file, ("",))[0]
    return _cell(run, file) if written_by == notebook else run.link(notebook)


def _cell(run, file):
    notebook, heading, number = run.cells[file]
    return f"{run.link(notebook)}, {heading}, code cell {number}"


def control(run, claim):
    """What the same measurement gives without what the claim credits: text, "" where there is none.

    For a film query: a frame that isn't in the film's mean. For Eq. 1: random neighbors, and the best of the
    controls. For RAM: plain CLIP; for normalized RAM also RAM as it is. In the unit of `ours`.
    """
    if pd.isna(claim["ours"]) or claim["method"] in ("", "CLIP") or claim["metric"] == "direction":
        return ""
    if claim["metric"] == "example":
        return _held_out(run) if "video_retrieval.csv" in run.tables else ""
    known = _means(run.tables["table1.csv"], claim) if "table1.csv" in run.tables else {}
    base, more = (("random neighbors", _best_control(run, claim["measured_on"]))
                  if claim["method"] == VANILLA else ("CLIP", _plain_ram(run, claim)))
    shown = {**({base: known[base]} if base in known else {}), **more}
    if claim["metric"] == "equivalence":  # a difference to CLIP
        shown = {name: value - known["CLIP"] for name, value in shown.items() if "CLIP" in known}
    return ", ".join(f"{name} {value:.2f}" for name, value in shown.items())


def _held_out(run):
    """R@1 of frames held out of the film, pooled as in the paper's code."""
    rows = recalls(run.tables["video_retrieval.csv"])
    rows = rows[(rows["query"] == "held-out frame") & (rows["pooling"] == "mean_raw")
                & (rows["variant"] == "CLIP")]
    return f"a frame held out of the film: {rows['value'].iloc[0]:.2f}" if len(rows) else ""


def _means(table, claim):
    """Accuracy in percent by method, the mean over trainings, on the claim's data set."""
    rows = table[table["dataset"] == claim["measured_on"]]
    return dict(100 * rows.groupby("method")["accuracy"].mean())


def _plain_ram(run, claim):
    """RAM that isn't normalized, on the inputs of Fig. 1's bars, beside a claim about normalized RAM."""
    if "figure1.csv" not in run.tables or "normalized" not in claim["method"]:
        return {}
    rows = run.tables["figure1.csv"]
    rows = rows[rows["scale"] == ("raw" if "raw" in set(rows["scale"]) else "unit")]
    plain = _means(rows[rows["variant"] == "none"], claim)
    return {"not normalized": plain[RAM]} if RAM in plain else {}


def _best_control(run, dataset):
    """The control with the highest accuracy in is_it_retrieval.csv."""
    known = run.tables.get("is_it_retrieval.csv")
    if known is None or not {"dataset", "kind", "method", "accuracy"} <= set(known.columns):
        return {}
    rows = known[(known["dataset"] == dataset) & (known["kind"] == "control")].reset_index(drop=True)
    best = rows.loc[rows["accuracy"].idxmax()] if len(rows) else None
    return {} if best is None else {f"best of {len(rows)} ({best['method']})": 100 * best["accuracy"]}


# ---- Table 1 --------------------------------------------------------------------------------------


def table1(run):
    """Table 1 as the paper prints it, with ours in the same cells; below it what the paper doesn't have."""
    title = "## Table 1 beside ours"
    board = run.tables.get("scoreboard.csv")
    if board is None:
        return f"{title}\n\n{missing(run, 'scoreboard.csv')}."
    rows = []
    for method, part in board[board["item"] == "Table 1"].groupby("method", sort=False):
        row = {"method": method}
        for claim in part.to_dict("records"):
            ours = claim["verdict"]
            if pd.notna(claim["ours"]):
                ours = (f"ours on {claim['measured_on']}: {claim['ours']:.2f} ({claim['low']:.2f} to "
                        f"{claim['high']:.2f})")
            row[claim["dataset"]] = f"paper {claim['paper']}; {ours}"
        rows.append(row)
    shown = table(rows, f"Zero-shot accuracy in percent{run.toy}.")
    return f"{title}\n\n{shown}\n{_beside(run)}"


def _beside(run):
    """Methods of table1.csv that aren't in the paper's table."""
    own = run.tables.get("table1.csv")
    if own is None:
        return missing(run, "table1.csv") + "."
    rows = []
    for method, part in own[~own["method"].isin(["CLIP", RAM, VANILLA])].groupby("method", sort=False):
        row = {"method": method}
        for dataset, cells in part.groupby("dataset", sort=False):
            row[dataset] = (f"{100 * cells['accuracy'].mean():.2f} ({100 * cells['low'].min():.2f} to "
                            f"{100 * cells['high'].max():.2f})")
        rows.append(row)
    return table(rows, f"Not in the paper's table{run.toy}:") if rows else ""
