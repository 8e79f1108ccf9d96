"""Run the notebooks and keep a record of the run; afterwards the report and the HTML book are made."""

import argparse
import importlib.util
import logging
import os
import sys
import textwrap
import time
from pathlib import Path

from impart_utils import config
from impart_utils.book import build_book
from impart_utils.run_record import peak_memory, save_record, start_record
from impart_utils.run_settings import Stop, assign, check_inputs, choose, find_packs, parse_settings

NOTEBOOKS = config.ROOT / "notebooks"
COMMANDS = """./run_all.sh test runs the tests: what follows goes to pytest, for example -m "not slow".
./run_all.sh lab opens JupyterLab in notebooks/: what follows goes to JupyterLab.
./run_all.sh handout makes copies of the notebooks without solutions, and with open ones (--help says more).
Without bash, once the kit is installed: python -m impart_utils.run, with the same arguments."""


def main(arguments=None):
    """Run one command line; returns the exit code: 0, 1 (something failed) or 130 (stopped by Ctrl-C)."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--profile=demo"]
    try:
        set_environment()
        if command == "test":
            return hand_over("pytest", *rest)
        if command == "lab":
            return hand_over("jupyterlab", f"--notebook-dir={NOTEBOOKS}", *rest)
        if command == "handout":
            return hand_out(rest)
        if not command.startswith("-"):
            raise Stop(f"Unknown command {command!r}. Known: test, lab, handout, or none to run the "
                       "notebooks.")
        return run_notebooks(parse([command, *rest]))
    except Stop as message:
        print(message, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error}\nThe kit writes to {config.output_root()}; to write elsewhere: "
              "IMPART_OUTPUT=/path ./run_all.sh", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # nbclient's task of the stopped cell
        print("\nStopped.", file=sys.stderr)
        return 130


def parse(arguments):
    """The options of a run as an argparse namespace: profile, only, settings, book."""
    parser = argparse.ArgumentParser(
        prog="./run_all.sh", usage="./run_all.sh [test | lab | handout] [options]", description=__doc__,
        epilog=COMMANDS, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo",
                        help="demo (default): the toy world, no network; paper: the paper's data and sizes")
    parser.add_argument("--only", metavar="02,04", help="run these notebooks alone")
    parser.add_argument("--features", metavar="DIR", help="take data sets, references and films from the "
                        "feature packs in DIR, without pictures or CLIP's weights (data/README.md)")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], dest="settings",
                        help="give a notebook parameter another value; may be repeated")
    parser.add_argument("--no-book", action="store_false", dest="book", help="leave out the HTML book")
    return parser.parse_args(arguments)


def set_environment():
    """What kernels and pytest inherit: thread counts, this environment's kernel, the folder of outputs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, threads)  # torch would obey MKL's before OMP's
    # Threads that wait in a loop for one that another program has displaced make training ten times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # First on the path, so that a kernel "python3" in the user's home can't stand in for this Python.
    paths = [str(Path(sys.prefix, "share", "jupyter")), *os.environ.get("JUPYTER_PATH", "").split(os.pathsep)]
    os.environ["JUPYTER_PATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    if "IMPART_OUTPUT" in os.environ:
        os.environ["IMPART_OUTPUT"] = os.path.abspath(os.environ["IMPART_OUTPUT"])
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # the debugger's remark on frozen modules


def require(*modules):
    """Stop where a module isn't installed, and say how to install it."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise Stop(f"Not installed for {sys.executable}: {', '.join(missing)}. ./run_all.sh sets all up; "
                   f'or, in {config.ROOT}: python -m pip install -c constraints.txt -e ".[book,test]"')


def hand_over(module, *arguments):
    """Run `python -m module` in the clone instead of this process; its exit code is the run's."""
    require(module)
    os.chdir(config.ROOT)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def hand_out(arguments):
    """Make the copies for a class and, where asked to, run them."""
    from impart_utils import handout

    folders, run_them = handout.main(arguments)
    for kind, folder in folders.items() if run_them else ():
        run_copies(folder, folder.parent / f"{kind}-run", book=kind == "solutions")
    return 0


def run_copies(folder, output, *, book):
    """Run the notebooks of `folder` in the demo profile; results go to `output`, the cache is shared."""
    os.environ["IMPART_CACHE"] = str(config.load_config("demo").cache_dir)  # before the next line moves it
    os.environ["IMPART_OUTPUT"] = str(output)
    return run_notebooks(parse(["--profile=demo", *([] if book else ["--no-book"])]), folder)


def run_notebooks(options, notebooks=NOTEBOOKS):
    """Run the chosen notebooks in order, up to the first that fails; returns 0 or raises Stop."""
    require("papermill", "ipykernel", *(["sphinx", "myst_nb", "sphinx_book_theme"] if options.book else []))
    chosen = choose(sorted(notebooks.glob("[0-9][0-9]_*.ipynb")), options.only)
    settings = parse_settings(options.settings)
    packs = find_packs(options, settings)
    parameters = assign(settings, chosen, options.profile, packs)
    run_config, skipped = check_inputs(options.profile, settings, chosen, packs)
    for given in parameters.values():  # relative paths count from here, the notebooks run in their own folder
        given.update({name: ",".join(value) if isinstance(value, tuple) else value
                      for name, value in vars(run_config).items() if given.get(name) is not None})
    record = start_record(run_config, settings, chosen, keep_others=options.only is not None)
    os.environ["IMPART_RUN_ID"] = record["run_id"]  # for the kernels' results
    record.update({"packs": packs.packs} if packs else {})
    for path, reason in skipped.items():
        record["notebooks"][path.stem] = {"status": "skipped", "reason": reason,
                                          **{name: record[name] for name in ("run_id", "commit")}}
    save_record(record, run_config)
    run_config.executed_dir.mkdir(parents=True, exist_ok=True)
    paths = [path for path in chosen if path not in skipped]
    for number, path in enumerate(paths, start=1):
        label = f"[{number}/{len(paths)}] {path.stem} ... "
        failure = run_notebook(path, parameters[path], run_config, record, label)
        if failure:
            raise Stop(f"\n{failure}\n\n{number - 1} of {len(paths)} notebooks ran, {path.stem} did not. "
                       f"As far as it came: {run_config.executed_dir / path.name}")
    from impart_utils.evidence import report  # here, since it imports pandas and --help needs none

    print(f"Report: {report.write_report(run_config)}")
    if options.book:
        ran = [name for name, row in record["notebooks"].items()
               if row["status"] == "ok" and (run_config.executed_dir / f"{name}.ipynb").is_file()]
        print(f"Book: {build_book(run_config, ran).as_uri()}")
    print(f"Results: {run_config.results_dir}\nExecuted notebooks: {run_config.executed_dir}")
    left_out = f", {len(skipped)} skipped" if skipped else ""
    print(f"{len(paths)} of {len(chosen)} notebooks ran{left_out}, {time.time() - record['started']:.0f} s",
          flush=True)
    return 0


def run_notebook(path, parameters, run_config, record, label):
    """Execute one notebook and put its row into the record; returns what went wrong, or None."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from impart_utils import notebook_engine

    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" and cell.source.strip()]
    row = {"status": "stopped", "run_id": record["run_id"], "commit": record["commit"], "cells": len(code),
           "parameters": parameters}
    rewrite = f"\r\033[K{label}" if sys.stdout.isatty() else ""
    executed = []

    def show_cell(cell, cell_index):
        executed.append(cell)
        if rewrite:  # the cell that papermill injects after `parameters` isn't counted
            print(f"{rewrite}cell {max(1, len(executed) - 1)} of {len(code)}", end="", flush=True)

    print(label, end="", flush=True)
    started, failure = time.time(), None
    with peak_memory() as peak:
        try:
            papermill.execute_notebook(
                path, run_config.executed_dir / path.name, parameters, cwd=path.parent, kernel_name="python3",
                engine_name=notebook_engine.NAME, progress_bar=False, coalesce_streams=True,
                on_cell_execute=show_cell, autosave_cell_every=notebook_engine.EVERY,
                extra_arguments=["--log-level=CRITICAL"])  # the kernel's own remarks, not the notebook's
            drop_blank_output(run_config.executed_dir / path.name)
            row["status"] = "ok"
        except PapermillExecutionError as error:
            failure = describe(error.exec_count, error.source, error.ename, error.evalue)
        except DeadKernelError:
            failure = describe(len(executed), executed[-1].source, "DeadKernelError", "out of memory?")
        finally:
            row["status"] = "failed" if failure else row["status"]
            row.update(seconds=round(time.time() - started, 1), peak_memory_mb=peak["mb"])
            record["notebooks"] = dict(sorted({**record["notebooks"], path.stem: row}.items()))
            save_record(record, run_config)
            note = "" if row["status"] == "ok" else f", {row['status']}"
            print(f"{rewrite}{len(code)} cells, {row['seconds']} s{note}", flush=True)
    return failure


def drop_blank_output(path):
    """Take out of an executed notebook what a progress bar leaves when it clears its line: white space."""
    import nbformat

    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("text", "-").strip()]
    nbformat.write(notebook, path)


def describe(number, source, name, message):
    """A cell's failure as the user should see it; of what is missing, the message alone."""
    if name in ("MissingInput", "SystemExit"):
        return message
    lines = source.splitlines()
    shown = "\n".join([*lines[:8], *(["..."] if len(lines) > 8 else [])])
    return f"In [{number}]:\n{textwrap.indent(shown, '    ')}\n{name}: {message}"


if __name__ == "__main__":
    sys.exit(main())
