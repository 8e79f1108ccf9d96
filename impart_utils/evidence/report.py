"""The reviewer's page, written after each run from nothing but the results folder.

``python -m impart_utils.evidence.report results/demo`` writes results/demo/report.md again. The book holds
the same page. What the page says in words stands once, in data/paper_quotes.csv, deviations.csv and
checklists.csv; each number comes from a results file, and a file that is missing is named.
"""

import argparse
import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from impart_utils import config
from impart_utils.evidence import report_claims, report_parts, report_tables
from impart_utils.evidence.results import SCHEMAS, read_results
from impart_utils.evidence.tolerances import MEASURED
from impart_utils.sources.files import atomic_path

ROOT = Path(__file__).resolve().parents[2]  # the words on the page belong to the code, not to a run
TABLES = ("scoreboard.csv", *SCHEMAS, "is_it_retrieval.csv", "pretraining.csv")
TEXTS = ("paper_quotes.csv", "deviations.csv", "checklists.csv")
ORPHAN = "---\norphan: true\n---\n\n"  # the page builds whether or not a table of contents names it


@dataclass(frozen=True)
class Run:
    """A results folder, read; made by `read_run`.

    Attributes
    ----------
    folder : path;  record : dict, run.json
    tables : dict, file name -> DataFrame;  problems : dict, file name -> why it isn't among them
    texts : dict, file name -> DataFrame of the words in data/
    cells : dict of `report_parts.find_cells`: where each file is written
    link : function of a notebook's name -> Markdown
    toy : str, " (toy world)" as in titles elsewhere, or ""
    figures : str, where the page finds figures, relative to itself
    """

    folder: Path
    record: dict
    tables: dict
    problems: dict
    texts: dict
    cells: dict
    link: object
    toy: str
    figures: str = "figures"


def read_run(folder, *, notebooks=None, link=None):
    """Read a results folder; a table that is missing or damaged becomes an entry of `problems`.

    Parameters
    ----------
    folder : path of results/<profile>, with its run.json
    notebooks : folder of the executed notebooks, to find the cells that wrote a file; the kit's own where
        a notebook isn't there
    link : function of a notebook's name -> Markdown, optional

    Raises
    ------
    FileNotFoundError : there is no run.json, so it isn't a results folder.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise FileNotFoundError(f"Expected a results folder with run.json, got {folder}. A run makes one: "
                                "./run_all.sh")
    cells = report_parts.find_cells([*([notebooks] if notebooks else []), ROOT / "notebooks"])
    tables, problems = {}, {}
    for name in TABLES:
        try:
            tables[name] = _read_table(folder / name)
        except FileNotFoundError:
            problems[name] = f"{name} is missing" + (f": notebook {cells[name][0][:2]} writes it"
                                                     if name in cells else "")
        except ValueError as error:  # pandas' own errors are ValueErrors, too
            problems[name] = f"{name} can't be read: {str(error).replace(f'{folder}/', '').rstrip('.')}"
    texts = {name: pd.read_csv(ROOT / "data" / name, dtype=str, keep_default_na=False) for name in TEXTS}
    record = json.loads((folder / "run.json").read_text())
    return Run(folder, record, tables, problems, texts, cells, link or str, _label(record))


def _label(record):
    """`Config.label` of the run; features from packs aren't known to be the toy world's."""
    names = {field.name for field in dataclasses.fields(config.Config)} & set(record["settings"])
    settings = {name: record["settings"][name] for name in names}
    return "" if record.get("packs") else config.load_config(record["profile"], **settings).label


def _read_table(path):
    if path.name in SCHEMAS:
        return read_results(path)
    table = pd.read_csv(path, keep_default_na=False, dtype=str)  # a name "None" stays text
    for name in [name for name in table.columns if name not in ("paper", "code")]:  # as they were printed
        numbers = pd.to_numeric(table[name].mask(table[name] == ""), errors="coerce")
        if name in (*MEASURED, "n") or (numbers.notna().any() and numbers.notna().equals(table[name] != "")):
            table[name] = numbers.astype(float)
    return table


def report(run):
    """The whole page as Markdown."""
    sections = [
        report_parts.head(run), report_parts.ten_minutes(run), report_claims.verdicts(run),
        report_claims.numbers(run), report_claims.sentences(run), report_claims.table1(run),
        report_parts.figures(run), report_tables.methods(run), report_tables.films(run),
        report_tables.deviations(run), report_parts.not_run(run), report_parts.environment(run),
        report_tables.checklists(run)]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def write_report(run_config):
    """Write results/<profile>/report.md from the files beside it; returns its path."""
    executed = f"../../executed/{run_config.profile}"

    def link(notebook):
        path = run_config.executed_dir / f"{notebook}.ipynb"
        return f"[{notebook}]({executed}/{notebook}.ipynb)" if path.is_file() else notebook

    return _write(read_run(run_config.results_dir, notebooks=run_config.executed_dir, link=link),
                  run_config.results_dir / "report.md")


def write_page(run_config, source, notebooks):
    """Write the same as a page of the book, with the figures that it shows.

    Parameters
    ----------
    source : folder of the book's sources;  notebooks : names of the notebooks in the book
    """
    def link(notebook):
        return f"[{notebook}](notebooks/{notebook}.ipynb)" if notebook in notebooks else notebook

    run = read_run(run_config.results_dir, notebooks=run_config.executed_dir, link=link)
    run = dataclasses.replace(run, figures="report_figures")
    for path in report_parts.shown_figures(run).values():
        (Path(source) / run.figures).mkdir(exist_ok=True)
        shutil.copy(path, Path(source) / run.figures)
    return _write(run, Path(source) / "report.md", before=ORPHAN)


def _write(run, path, *, before=""):
    with atomic_path(path) as temporary:
        temporary.write_text(before + report(run), encoding="utf-8")
    return path


def main(arguments=None):
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m impart_utils.evidence.report",
                                     description="Write report.md into a results folder.")
    parser.add_argument("folder", type=Path, help="for example results/demo")
    folder = parser.parse_args(arguments).folder
    try:
        run = read_run(folder)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    print(_write(run, folder / "report.md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
