"""Two results folders compared: what changed, by how much, and whether a stated tolerance allows it.

``python -m impart_utils.evidence.claims diff A B`` prints it and exits with 1 where something is beyond. The
tolerances are those of `tolerances`. Commits, hashes of inputs and versions may differ: they are listed,
since they say where to look.
"""

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from impart_utils.evidence.tolerances import ITEMS, MEASURED, RULES, TRAINED, number, tolerance

SHOWN = 12  # changes of a file that the command lists
CLASSIFIED = ("dataset", "method", "variant", "scale", "draw", "seed")
KEYS = {  # what tells one row of a table from another; of other tables: all that is no number with decimals
    "scoreboard.csv": ("claim_id",), "table1.csv": CLASSIFIED, "figure1.csv": CLASSIFIED,
    "comparisons.csv": (*CLASSIFIED, "against"), "is_it_retrieval.csv": ("dataset", "method"),
    "video_retrieval.csv": ("gallery", "query", "pooling", "variant", "metric"),
    "pretraining.csv": ("steps", "dataset", "method"),
}
IGNORED = ("run_id", "commit", "inputs", "references_id", "reason", "note", "seconds")
CONTEXT = ("profile", "commit", "seed", "settings", "threads", "machine", "versions", "inputs", "packs")


@dataclass(frozen=True)
class Comparison:
    """Made by `compare`.

    Attributes
    ----------
    changes : DataFrame with file, row, column, a, b, change, tolerance, beyond; one row per cell that differs
    counts : DataFrame by file: rows in both, only in A, only in B, and cells that differ
    context : list of str, what else differs: commits, settings, versions, hashes
    same_machine : bool, whether what isn't trained must be equal
    """

    changes: pd.DataFrame
    counts: pd.DataFrame
    context: list
    same_machine: bool

    @property
    def beyond(self):
        """The changes that no tolerance allows."""
        return self.changes[self.changes["beyond"].astype(bool)]


def compare(a, b):
    """Compare two results folders.

    Parameters
    ----------
    a, b : path of a folder with results files; run.json says where and with what they were computed

    Raises
    ------
    FileNotFoundError : a folder without any results file.
    """
    folders = [Path(a), Path(b)]
    for folder in folders:
        if not list(folder.glob("*.csv")):
            raise FileNotFoundError(f"Expected a results folder with .csv files, got {folder}. A run makes "
                                    "one: results/demo or results/paper.")
    records = [_record(folder) for folder in folders]
    same = None not in records and all(records[0].get(name) == records[1].get(name)
                                       for name in ("machine", "versions", "threads"))
    changes, counts = [], {}
    for name in sorted({path.name for folder in folders for path in folder.glob("*.csv")}):
        changed, counts[name] = compare_tables(*(_read(folder / name) for folder in folders), name, same)
        changes += changed
    changes = pd.DataFrame(changes, columns=["file", "row", "column", "a", "b", "change", "tolerance",
                                             "beyond"])
    return Comparison(changes, pd.DataFrame(counts).T, _context(*records), same)


def _record(folder):
    path = folder / "run.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _read(path):
    """A table of str, or None without the file; numbers written differently ("8", "8.0") become the same."""
    if not path.is_file():
        return None
    return pd.read_csv(path, dtype=str, keep_default_na=False).map(lambda text: _plain(text))


def _plain(text):
    value = number(text)
    return text if value is None else f"{value:.15g}"


# ---- Tables ---------------------------------------------------------------------------------------


def compare_tables(a, b, name, same_machine):
    """Two versions of a results file: (list of changes, dict of counts).

    Parameters
    ----------
    a, b : DataFrame of str, or None where a run doesn't have the file (one change, not one for each row)
    name : str, the file's;  same_machine : bool
    """
    rows = [{} if table is None else _by_key(table, _key(table, name)) for table in (a, b)]
    both = [key for key in rows[0] if key in rows[1]]
    counts = {"rows in both": len(both), "only in A": len(rows[0]) - len(both),
              "only in B": len(rows[1]) - len(both), "cells that differ": 0}
    if a is None or b is None:
        return [_missing(name, "the file", "B" if a is None else "A")], counts
    changes = [_missing(name, f"column {column}", "A" if column in a else "B")
               for column in dict.fromkeys([*a, *b]) if (column in a) != (column in b)]
    changes += [_missing(name, key, "A") for key in rows[0] if key not in rows[1]]
    changes += [_missing(name, key, "B") for key in rows[1] if key not in rows[0]]
    cells = [change for key in both
             for change in _changed_cells(name, key, rows[0][key], rows[1][key], same_machine)]
    return changes + cells, {**counts, "cells that differ": len(cells)}


def _key(table, name):
    if name in KEYS:
        return [column for column in KEYS[name] if column in table.columns]
    measured = [column for column in table.columns if column in (*MEASURED, "verdict", "equivalence")
                or any("." in text and number(text) is not None for text in table[column])]
    return [column for column in table.columns if column not in (*measured, *IGNORED)]


def _by_key(table, key):
    """{text that names a row: the row as dict}; a row that occurs again gets a number."""
    found, seen = {}, Counter()
    for row in table.to_dict("records"):
        text = ", ".join(row[column] if number(row[column]) is None else f"{column}={row[column]}"
                         for column in key if row[column]) or "row"
        seen[text] += 1
        found[text if seen[text] == 1 else f"{text} #{seen[text]}"] = row
    return found


def _missing(name, key, side):
    return {"file": name, "row": key, "column": "", "a": "", "b": "", "change": f"only in {side}",
            "tolerance": "none", "beyond": True}


def _changed_cells(name, key, a, b, same_machine):
    changes = []
    for column in [column for column in a if column in b]:
        values = a[column], b[column]
        if column in IGNORED or values[0] == values[1]:
            continue
        numbers = [number(value) for value in values]
        if None in numbers or (name in KEYS and column not in MEASURED):  # a text or a setting
            changes.append(_change(name, key, column, values, "", "none", True))
            continue
        change = numbers[1] - numbers[0]
        allowed = tolerance(column, a, name, same_machine)
        beyond = allowed is not None and abs(change) > allowed + 1e-12
        changes.append(_change(name, key, column, values, f"{change:+.4g}",
                               "follows" if allowed is None else f"{allowed:.4g}", beyond))
    return changes


def _change(name, key, column, values, change, allowed, beyond):
    return {"file": name, "row": key, "column": column, "a": values[0], "b": values[1], "change": change,
            "tolerance": allowed, "beyond": beyond}


# ---- What else differs ----------------------------------------------------------------------------


def _context(a, b):
    """Lines on what run.json says differently."""
    if a is None or b is None:
        return ["run.json is missing in " + " and ".join(
            side for side, record in (("A", a), ("B", b)) if record is None)]
    told = []
    for name in CONTEXT:
        one, two = a.get(name, {}), b.get(name, {})
        if not (isinstance(one, dict) and isinstance(two, dict)):
            told += [f"{name}: {_short(one)} -> {_short(two)}"] if one != two else []
            continue
        changed = [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
        of_rows = [key for key in changed if re.fullmatch("[0-9a-f]{16}", key)]  # what inputs.json notes
        told += [f"{name}, {key}: {_short(one.get(key))} -> {_short(two.get(key))}"
                 for key in changed if key not in of_rows]
        told += [f"{name}: {len(of_rows)} hashes of rows' inputs are in one run alone"] if of_rows else []
    return told


def _short(value):
    text = "nothing" if value is None else f"{value}"
    return text if len(text) <= 60 else text[:57] + "..."


# ---- The command ----------------------------------------------------------------------------------


def describe(found, *, every=False):
    """A `Comparison` as the lines that the command prints.

    Parameters
    ----------
    every : bool, list each change; otherwise at most `SHOWN` of a file beyond the tolerance, and of those
        within it the largest of each file and column, without what follows from others
    """
    rule = ("one machine, same versions and threads: what isn't trained must be equal" if found.same_machine
            else f"another machine, versions or threads: {ITEMS} pictures or queries allowed")
    lines = [f"{rule}; {100 * TRAINED:g} points where RAM was trained.", "", found.counts.to_string(), ""]
    lines += [f"differs: {text}" for text in found.context] + ([""] if found.context else [])
    within = found.changes.drop(found.beyond.index)
    lines.append(f"{len(within)} changes within the tolerance" + (":" if len(within) else "."))
    within = within if every else within[within["tolerance"] != "follows"]
    for _, part in within.groupby(["file", "column"], sort=False):
        largest = part["change"].astype(float).abs().idxmax()
        lines += [_line(row) for row in (part if every else part.loc[[largest]]).itertuples()]
        lines[-1] += "" if every or len(part) == 1 else f", the largest of {len(part)}"
    lines.append(f"{len(found.beyond)} changes beyond it" + (":" if len(found.beyond) else "."))
    for file, part in found.beyond.groupby("file", sort=False):
        shown = part if every else part.head(SHOWN)
        lines += [_line(row) for row in shown.itertuples()]
        more = len(part) - len(shown)
        lines += [f"    {file}: {more} more, all with --every"] if more else []
    return "\n".join(lines)


def _line(row):
    if not row.column:
        return f"    {row.file}  {row.row}  {row.change}"
    by = f" ({row.change}, tolerance {row.tolerance})" if row.change else ""
    return f"    {row.file}  {row.row}  {row.column}: {_short(row.a)} -> {_short(row.b)}{by}"


def main(arguments=None):
    """The command line; returns the exit code: 1 where something is beyond the tolerance, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m impart_utils.evidence.claims", description=__doc__.split("\n\n")[0],
        epilog=RULES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["diff"])
    parser.add_argument("a", metavar="A", help="a results folder, such as results/demo")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--every", action="store_true", help="list every change")
    options = parser.parse_args(arguments)
    try:
        found = compare(options.a, options.b)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(describe(found, every=options.every))
    return int(len(found.beyond) > 0)
