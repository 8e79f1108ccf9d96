"""The README's tables, written between marks from committed files; and a run checked against them.

``python -m impart_utils.evidence.readme_table --from results/demo`` takes the numbers of a whole demo run
into data/demo_values.csv and writes the README; without an option it writes the README alone (from that file
and benchmarks/worlds.json). ``--check results/demo`` says where a run differs from the committed numbers.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from impart_utils.evidence.exports import markdown
from impart_utils.evidence.results import METHODS, read_results, write_results
from impart_utils.evidence.tolerances import ITEMS, TRAINED
from impart_utils.sources.files import atomic_path

ROOT = Path(__file__).resolve().parents[2]
VALUES, WORLDS = ROOT / "data" / "demo_values.csv", ROOT / "benchmarks" / "worlds.json"
README = ROOT / "README.md"
COLUMNS = ("quantity", "row", "column", "value", "low", "high", "n")
COMMAND = "python -m impart_utils.evidence.readme_table"
TITLES = {"toy10": "Toy-10", "toy100": "Toy-100", "toy101": "Toy-101"}
PLACES = (  # what of the paper, its notebook's number, the module beside it
    ("CLIP, Sec. 2.1", "00", ""), ("reference set, Sec. 4.1", "01", "reference"),
    ("Eq. 1, Sec. 3.1", "02", "vanilla"), ("RAM, Sec. 3.2", "03", "ram"), ("Table 1", "04", ""),
    ("Fig. 1", "05", ""), ("Figs. 2, 3", "06", ""), ("is it retrieval? (beyond the paper)", "07", ""),
    ("scenes and characters, Sec. 5", "08", ""), ("every number", "09", ""),
)


# ---- The committed numbers ------------------------------------------------------------------------


def demo_values(folder, *, whole=False):
    """The README's numbers of one run as a DataFrame with COLUMNS, numbers as text.

    Parameters
    ----------
    folder : path of results/demo: table1.csv and run.json
    whole : bool, refuse a folder whose notebooks ran in several commands

    Returns
    -------
    values : quantity "accuracy" (fraction; of several trainings the mean, the lowest low and the highest
        high), "seconds" of each notebook, and "threads"

    Raises
    ------
    ValueError : the folder isn't that of a demo run in the sizes it comes with, or not of one run.
    """
    folder = Path(folder)
    record = json.loads((folder / "run.json").read_text())
    if record["profile"] != "demo" or record["settings"]:
        raise ValueError(f"Expected a run of the demo as it comes, got profile {record['profile']!r} with "
                         f"settings {record['settings']}. Run ./run_all.sh first.")
    runs = {row["run_id"] for row in record["notebooks"].values()}
    if whole and len(runs) > 1:
        raise ValueError(f"Expected all notebooks of one run, got those of {len(runs)}: "
                         f"{', '.join(sorted(runs))}. Run ./run_all.sh without --only.")
    table, rows = read_results(folder / "table1.csv"), []
    for (dataset, method), part in table.groupby(["dataset", "method"], sort=False):
        rows.append(("accuracy", method, dataset, *(f"{value:.4f}" for value in (
            part["accuracy"].mean(), part["low"].min(), part["high"].max())), f"{part['n'].iloc[0]:.0f}"))
    rows += [("seconds", name, "", f"{row['seconds']:.0f}", "", "", "")
             for name, row in record["notebooks"].items() if row["status"] == "ok"]
    rows.append(("threads", "", "", record["threads"], "", "", ""))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_values(path):
    """data/demo_values.csv, as `demo_values` gives it."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def differences(values, committed):
    """Where accuracies of a run differ from the committed ones by more than `tolerances` allows elsewhere.

    Returns
    -------
    found : list of str, empty where all agree
    """
    old, new = (table[table["quantity"] == "accuracy"].set_index(["row", "column"]) for table in
                (committed, values))
    found = [f"{method} on {dataset}: only in the {'committed numbers' if key in old.index else 'run'}"
             for key in old.index.symmetric_difference(new.index) for method, dataset in [key]]
    for method, dataset in old.index.intersection(new.index):
        one, two = old.loc[(method, dataset)], new.loc[(method, dataset)]
        allowed = TRAINED if "RAM" in method else ITEMS / float(one["n"])
        change = float(two["value"]) - float(one["value"])
        if abs(change) > allowed + 1e-4 or one["n"] != two["n"]:
            found.append(f"{method} on {dataset}: {one['value']} -> {two['value']}, of {one['n']} and "
                         f"{two['n']} pictures (tolerance {allowed:.4f})")
    return found


# ---- The tables -----------------------------------------------------------------------------------


def places_table(values):
    """What of the paper, its notebook, the command and the seconds that it took."""
    seconds = values[values["quantity"] == "seconds"].set_index("row")["value"]
    threads = values[values["quantity"] == "threads"]["value"].iloc[0]
    rows = []
    for place, number, module in PLACES:
        beside = f", [`{module}.py`](impart_utils/{module}.py)" if module else ""
        for path in sorted((ROOT / "notebooks").glob(f"{number}_*.ipynb")):
            rows.append({"paper": place, "notebook": f"[{number}](notebooks/{path.name}){beside}",
                         "command": f"`./run_all.sh --only {number}`",
                         "seconds": seconds.get(path.stem, "–")})
    total = ("–" if "–" in [row["seconds"] for row in rows]
             else f"{sum(float(value) for value in seconds):.0f}, and the book")
    rows.append({"paper": "**all**", "notebook": "", "command": "`./run_all.sh`", "seconds": total})
    caption = f"The demo's notebooks in one run, with {threads} threads:"
    return markdown(pd.DataFrame(rows), caption)


def accuracy_table(values):
    """Accuracy in percent by method and data set, with its 95 % interval."""
    part = values[values["quantity"] == "accuracy"]
    sizes = part.groupby("column", sort=False)["n"].first()
    rows = []
    for method in [name for name in METHODS if name in set(part["row"])]:
        cells = part[part["row"] == method].set_index("column")
        rows.append({"accuracy in %, **toy world**": method, **{
            f"{TITLES[name]} (n = {sizes[name]})": "{:.1f} ({:.1f} to {:.1f})".format(
                *(100 * float(cells.loc[name, column]) for column in ("value", "low", "high")))
            for name in cells.index}})
    return markdown(pd.DataFrame(rows), "With 95 % intervals; RAM: the mean of its trainings, and the lowest "
                                        "low to the highest high.")


def worlds_table(worlds):
    """benchmarks/worlds.json: differences in points over worlds drawn from other seeds."""
    rows = {}
    for row in worlds["summary"]:
        name = row["difference"].replace(" - ", " − ")
        told = "{:+.1f} ({:+.1f} to {:+.1f}), above zero in {}".format(
            *(100 * row[end] for end in ("mean", "low", "high")), row["above_zero"])
        rows.setdefault(name, {})[TITLES[row["dataset"]]] = told.replace("-", "−")
    count = worlds["summary"][0]["worlds"]
    frame = pd.DataFrame([{f"points, {count} other worlds: mean (range)": name, **cells}
                          for name, cells in rows.items()])
    return markdown(frame, "The same in worlds drawn from other seeds:")


def tables(values, worlds):
    """{name of the marks: Markdown} of the README's three tables."""
    return {"places": places_table(values), "accuracy": accuracy_table(values),
            "worlds": worlds_table(worlds)}


def replaced(text, name, table):
    """A page's text with `table` between its marks of that name.

    Raises
    ------
    ValueError : the marks aren't there, each once and in order.
    """
    start, end = f"<!-- {name}: written by {COMMAND} -->", f"<!-- end of {name} -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"Expected the marks {start!r} and {end!r}, each once and in this order.")
    before, rest = text.split(start)
    return f"{before}{start}\n{table.strip()}\n\n{end}{rest.split(end)[1]}"


def written(text, values, worlds):
    """The README's text with all its tables current."""
    for name, table in tables(values, worlds).items():
        text = replaced(text, name, table)
    return text


def main(arguments=None):
    """The command line; returns the exit code: 1 where a checked run differs or an input can't be used."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.split("\n\n")[0])
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--from", dest="source", metavar="DIR", help="take the numbers of this demo run")
    one.add_argument("--check", metavar="DIR", help="compare this demo run with the committed numbers")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            found = differences(demo_values(options.check), read_values(VALUES))
            print("\n".join(found) or "Every accuracy is that of the README, within the tolerance.")
            return int(bool(found))
        if options.source:
            write_results(demo_values(options.source, whole=True), VALUES, COLUMNS)
        worlds = json.loads(WORLDS.read_text())
        text = written(README.read_text(encoding="utf-8"), read_values(VALUES), worlds)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    with atomic_path(README) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"Wrote the tables of {README}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
