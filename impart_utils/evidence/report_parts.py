"""The other sections of the reviewer's page: what to do, figures, what was not run, where it ran."""

import json
import re
from pathlib import Path

from impart_utils.evidence.report_tables import table
from impart_utils.evidence.tolerances import RULES
from impart_utils.sources.files import file_hash

FIGURES = {"fig1": ("Fig. 1", "figure1_*.png"), "fig2": ("Fig. 2", "figure2_*.png"),
           "fig3": ("Fig. 3", "figure3_*.png")}  # prefix of the quotes' ids -> title, our picture


def find_cells(folders):
    """Where each results file is written: {file name: (notebook, heading, number of the code cell)}.

    "NOTEBOOK:settings" is the cell that fixes a notebook's settings.

    Parameters
    ----------
    folders : list of path; a notebook is taken from the first that has it. The cell that papermill puts in
        with a run's parameters isn't counted.
    """
    found, seen = {}, set()
    for folder in folders:
        for path in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb")):
            if path.stem not in seen:
                seen.add(path.stem)
                for name, cell in _written(path).items():
                    found.setdefault(name, cell)
    return found


def _written(path):
    heading, number, found = "", 0, {}
    for cell in json.loads(path.read_text(encoding="utf-8")).get("cells", []):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = next(iter(reversed(re.findall(r"^#+ (.+)$", source, re.MULTILINE))), heading)
        elif "injected-parameters" not in cell.get("metadata", {}).get("tags", []):
            number += 1
            names = re.findall(r'results_dir / "([\w.]+\.csv)"', source)
            names += [f"{path.stem}:settings"] if "load_config(" in source else []
            for name in names:
                found.setdefault(name, (path.stem, f"“{heading}”", number))
    return found


# ---- Head, what to do -----------------------------------------------------------------------------


def head(run):
    """Title, which run this is, and what its numbers can't say."""
    record = run.record
    lines = [f"# The reviewer's page{run.toy}", "",
             f"Run {record.get('run_id', 'unknown')}, profile {record.get('profile', 'unknown')}, version "
             f"{record.get('commit', 'unknown')} of the kit. Written from the files in its results folder; "
             "nothing on this page was typed from a result."]
    if run.toy:
        lines += ["", "**This is the demo.** Its pictures, captions, films and CLIP are a toy world that the "
                      "kit draws itself. Its numbers show that everything runs and how the method works; "
                      "none of them bears on the paper, and no row gets a verdict on it."]
    mixed = sorted({row.get("commit", "") for row in record.get("notebooks", {}).values()} - {""})
    if len(mixed) > 1:
        lines += ["", f"**Mixed.** The notebooks behind this page ran with {len(mixed)} versions of the kit "
                      f"({', '.join(mixed)}). Run all of them again: `./run_all.sh --profile "
                      f"{record.get('profile', 'demo')}`"]
    return "\n".join([*lines, *_outdated_board(record)])


def _outdated_board(record):
    """A warning where a notebook ran after the scoreboard's: run ids begin with their time."""
    rows = record.get("notebooks", {})
    board = rows.get("09_scoreboard", {}).get("run_id", "")
    later = [name for name, row in rows.items() if board and row.get("run_id", "") > board]
    if not later:
        return []
    return ["", f"**The scoreboard is older than {', '.join(later)}.** Write it again: `./run_all.sh "
                f"--profile {record.get('profile', 'demo')} --only 09`"]


def ten_minutes(run):
    """Three ways to check this page, from the quickest to the most complete."""
    seconds = sum(row.get("seconds", 0) for row in run.record.get("notebooks", {}).values())
    took = f" The notebooks behind this page took {seconds / 60:.1f} minutes." if run.toy and seconds else ""
    return f"""## Check it in ten minutes

1. **The toy world**, without network or GPU once the kit is installed.{took}
   The second line compares with the numbers in the README; the third, with the results folder of another
   run, say the one that this page came from. Both list each difference beyond the tolerances below, and
   exit with 1 if there is one.

   ```
   ./run_all.sh
   python -m impart_utils.evidence.readme_table --check results/demo
   python -m impart_utils.evidence.claims diff OTHER/results/demo results/demo
   ```

2. **The paper's data from feature packs**, for whoever has been given some: no weights, pictures or GPU.

   ```
   ./run_all.sh --profile paper --features DIR
   ```

3. **Everything from the start**, with OpenAI's weights and the data sets (README, *The paper profile*). One
   command then makes the packs of step 2:

   ```
   python -m impart_utils.export --profile paper --out data/packs
   ```

No pack of the paper's data has been published with the kit yet: step 2 waits for whoever does step 3.

{RULES.replace(":", ":" + chr(10), 1)}"""


# ---- Figures --------------------------------------------------------------------------------------


def shown_figures(run):
    """{"fig1": path of our picture, …}, of those that this run has drawn."""
    found = {key: sorted((run.folder / "figures").glob(pattern)) for key, (_, pattern) in FIGURES.items()}
    return {key: paths[0] for key, paths in found.items() if paths}


def figures(run):
    """Of Figs. 1 to 3 what the paper's captions and text state, and our pictures."""
    lines = ["## Figures 1 to 3", "", "The paper's pictures are not in the kit, and the heights of Fig. 1's "
             "bars are not in its text: what stands here is what captions and text state. Each is judged in "
             "*Numbers*."]
    quotes, drawn = run.texts["paper_quotes.csv"].to_dict("records"), shown_figures(run)
    for key, (title, _) in FIGURES.items():
        lines += ["", f"### {title}", ""]
        lines += [f"- “{quote['quote']}” ({quote['place']})" for quote in quotes
                  if quote["quote_id"].startswith(f"{key}-")]
        path = drawn.get(key)
        lines += ["", f"![Ours to {title}{run.toy}]({run.figures}/{path.name})" if path
                  else "Ours: not drawn in this run."]
    return "\n".join(lines)


# ---- Not run, environment -------------------------------------------------------------------------


def not_run(run):
    """Claims without a verdict by reason, notebooks and files that are missing, the other profile."""
    lines, board = ["## Not run, and why", ""], run.tables.get("scoreboard.csv")
    if board is not None:
        open_rows = board[board["verdict"].str.startswith(("not run", "stale", "not comparable"))]
        grouped = open_rows.groupby(["verdict", "reason"], sort=False)["claim_id"].agg(["size", "first"])
        rows = [{"rows": f"{row.size_}", "verdict": row.Index[0], "reason": row.Index[1],
                 "for example": row.first_}
                for row in grouped.rename(columns={"size": "size_", "first": "first_"}).itertuples()]
        lines.append(table(rows, "Rows of the scoreboard without a verdict on the paper, by reason.")
                     if rows else "Every row of the scoreboard has a verdict on the paper.")
    lines += [f"- {text}" for text in _left_out(run)]
    return "\n".join(lines)


def _left_out(run):
    """Sentences on notebooks and files that this page lacks, and on the paper profile."""
    rows = run.record.get("notebooks", {})
    told = [f"Notebook {name}: {row['status']}" + (f", {row['reason']}" if row.get("reason") else "") + "."
            for name, row in rows.items() if row.get("status") != "ok"]
    known = {cell[0] for cell in run.cells.values()}
    told += [f"Notebook {name}: not run." for name in sorted(known - set(rows))]
    told += [f"{reason}." for name, reason in run.problems.items() if name != "pretraining.csv"]
    if "pretraining.csv" in run.problems:
        told.append("Whether retrieval replaces pretraining, in the toy world: pretraining.csv is written by "
                    "`./run_all.sh --only 05 --set grid=full`.")
    if run.record.get("profile") == "demo":
        told.append("The paper profile: `./run_all.sh --profile paper` says first what it lacks on a machine "
                    "(OpenAI's weights, the data sets, reference pairs, films) and how to get each.")
    return told


def environment(run):
    """Versions, machine, seconds and memory of each notebook, and hashes of what was read and written."""
    record = run.record
    settings = ", ".join(f"{name}={value}" for name, value in record.get("settings", {}).items())
    facts = {"run": record.get("run_id"), "kit": record.get("commit"), "seed": record.get("seed"),
             "settings": settings or "as the profile has them", "threads": record.get("threads"),
             **{name: value for name, value in record.get("machine", {}).items() if value != ""},
             "seconds of the last command": record.get("seconds"), **record.get("versions", {})}
    rows = [{"what": name, "value": f"{value}"} for name, value in facts.items() if value is not None]
    books = [{"notebook": run.link(name), "status": row.get("status"), "seconds": row.get("seconds", 0),
              "peak MB": row.get("peak_memory_mb", ""), "run": row.get("run_id", "")}
             for name, row in record.get("notebooks", {}).items()]
    total = sum(row["seconds"] or 0 for row in books)
    books.append({"notebook": "all", "status": "", "seconds": round(total, 1), "peak MB": "", "run": ""})
    return "\n\n".join([
        "## Environment", table(rows, "Where and with what it ran.").strip(),
        table(books, "Notebooks: seconds, and the largest memory of the kernel and what it starts.").strip(),
        table(_hashes(run), "SHA-256 of files; the kit's own content hash of what isn't one file.").strip()])


def _hashes(run):
    """Rows of what a run read (from run.json) and wrote (computed here)."""
    read = run.record.get("inputs", {})
    rows = [{"kind": "read", "name": name, "hash": value if isinstance(value, str) else ", ".join(value)}
            for name, value in read.items() if not _row_hash(name)]
    rows += [{"kind": f"pack of {pack['holds']}", "name": pack["file"], "hash": pack["hash"]}
             for pack in run.record.get("packs", [])]
    return rows + [{"kind": "written", "name": path.name, "hash": file_hash(path)}
                   for path in sorted(run.folder.glob("*.csv"))]


def _row_hash(name):
    """A key of inputs.json that stands for a row's inputs: 16 hex characters."""
    return re.fullmatch(r"[0-9a-f]{16}", name) is not None

