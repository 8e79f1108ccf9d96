"""Many trainings of RAM, side by side in worker processes of one thread each, as one table.

One RAM is too small to keep several cores busy; several RAMs are not. A worker gets features, not CLIP.
"""

import atexit
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from impart_utils import cached
from impart_utils.config import ROOT
from impart_utils.sources.files import content_hash, progress_bar

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                            "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
_gathering = threading.Lock()
_idle = []  # workers that wait for the next call: starting one takes seconds


def run_all(config, jobs, *, processes=2, progress=True):
    """Train RAM as often as `jobs` say, each training once and kept, and give all scores as one table.

    Parameters
    ----------
    config : Config
    jobs : list of dict, arguments of `cached.ram_job` each; `evaluate` is all of config.datasets unless given
    processes : int, trainings at a time, each in a process of one thread
    progress : bool, show a bar over the trainings

    Returns
    -------
    table : DataFrame, a row per job, epoch (those that `curve` of `cached.ram_job` asks for) and test set:
        configuration, the options of `RAM`, learn_temperature, scale, seed, draw, neighbors_from, pairs
        (trained on), epoch, dataset, accuracy (a fraction), added (mean of ‖output - v‖ / ‖v‖), length (of
        ‖output‖ / ‖v‖), loss (mean over the epoch), temperature, alignment, seconds (of training, so far)

    Raises
    ------
    RuntimeError : a training failed; the message is the worker's.
    """
    import pandas as pd

    from impart_utils import ram_jobs

    jobs = [{"evaluate": config.datasets, **arguments} for arguments in jobs]
    planned = [cached.ram_job(config, **arguments) for arguments in jobs]
    missing = {}  # by path: one training may be asked for with several test sets
    for job, arrays in planned:
        if ram_jobs.history(job) is None:
            missing[job["path"]] = _merged((job, arrays), missing.get(job["path"]))
    if missing:
        _train(list(missing.values()), processes, progress)
    return pd.DataFrame([row for arguments, (job, _) in zip(jobs, planned, strict=True)
                         for row in _rows(arguments, job, ram_jobs.history(job))])


def _merged(one, other):
    """Of two jobs with one path, (job, function that makes its arrays), the one that does both."""
    if other is None:
        return one
    (job, arrays), (other_job, other_arrays) = one, other
    curve = math.gcd(job["curve"], other_job["curve"])  # all that each asks for; 0 asks for nothing
    return ({**job, "tests": job["tests"] | other_job["tests"], "curve": curve},
            lambda: arrays() | other_arrays())


def _rows(arguments, job, history):
    """The rows of one job."""
    fixed = {"configuration": arguments.get("configuration", "paper_code"), **job["options"],
             "learn_temperature": job["settings"]["learn_temperature"],
             "scale": arguments.get("scale", "raw"), "seed": job["seed"], "draw": arguments.get("draw", 0),
             "neighbors_from": arguments.get("neighbors_from", "references"), "pairs": job["pairs"]}
    losses = {}
    for row in history:
        losses.setdefault(row["epoch"], []).append(row.get("loss", float("nan")))
    return [{**fixed, "epoch": row["epoch"], "dataset": name, **scores,
             "loss": sum(losses[row["epoch"]]) / len(losses[row["epoch"]]),
             **{key: row[key] for key in ("temperature", "alignment", "seconds")}}
            for row in history for name, scores in row.get("tests", {}).items()]


def _train(jobs, processes, progress):
    """Run jobs, (job, function that makes its arrays), in worker processes; the longest first."""
    todo = deque(sorted(jobs, key=lambda pair: -pair[0]["settings"]["epochs"]))
    with tempfile.TemporaryDirectory(prefix="impart-ram-") as folder:
        workers = [_waiting() or _Worker() for _ in range(min(processes, len(jobs)))]
        with progress_bar(total=len(jobs), description="trainings of RAM", progress=progress) as bar, \
                ThreadPoolExecutor(len(workers)) as pool:
            try:
                for done in [pool.submit(worker.serve, todo, folder, bar) for worker in workers]:
                    done.result()
                _idle.extend(workers)
            except BaseException:  # one failed, or the notebook was stopped: then none goes on alone
                for worker in workers:
                    worker.stop()
                raise


def _stored(arrays, folder):
    """Path of the arrays as a file, written once however many jobs share them."""
    import numpy as np
    from safetensors.numpy import save_file

    path = Path(folder) / f"{content_hash(arrays)}.safetensors"
    if not path.exists():
        save_file({name: np.ascontiguousarray(block) for name, block in arrays.items()}, path)
    return str(path)


class _Worker:
    """A process that trains what it reads from its standard input, one job a line."""

    def __init__(self):
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "impart_utils.evidence.ram_runs"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, text=True,
            # a Jupyter kernel that is told to leave waits for the children of its own process group until it
            # is killed, and never comes to `stop_workers`
            start_new_session=True, env={**os.environ, **ONE_THREAD, "PYTHONPATH": path})

    def serve(self, todo, folder, bar):
        """Have jobs done until none is left; RuntimeError, and none left for the others, where one fails."""
        while todo:
            try:
                job, arrays = todo.popleft()
            except IndexError:  # the other worker was faster
                return
            try:
                with _gathering:  # what notebooks share is made once, not by two threads
                    task = {"job": job, "arrays": _stored(arrays(), folder)}
                print(json.dumps(task), file=self.process.stdin, flush=True)
                done = "done\n" in self.process.stdout  # reads lines up to the answer, or to the end
            except BrokenPipeError:
                done = False
            except BaseException:  # the arrays can't be made
                todo.clear()
                raise
            if not done:
                todo.clear()
                raise RuntimeError(self._failure(job))
            bar.update()

    def _failure(self, job):
        code = self.process.wait()
        self.errors.seek(0)
        return (f"Training RAM with {job['options']}, {job['settings']} and seed {job['seed']} failed. "
                f"Its worker process ended with exit code {code}:\n{self.errors.read()[-3000:]}")

    def stop(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def _waiting():
    """A worker that waits for work, or None; those that died meanwhile are dropped."""
    while _idle:
        worker = _idle.pop()
        if worker.process.poll() is None:
            return worker
        worker.stop()


def start_workers(processes=2):
    """Start the processes that `run_all` will need: they get ready while the caller goes on.

    Starting one takes as long as importing torch. `run_all` starts what it lacks by itself.
    """
    _idle.extend(_Worker() for _ in range(processes - len(_idle)))


@atexit.register
def stop_workers():
    """End the processes that wait for more trainings, as leaving Python does."""
    while _idle:
        _idle.pop().stop()


def main():
    """Serve `run_all`: read jobs, a line of JSON each, from standard input; answer "done" to each."""
    from functools import lru_cache

    from safetensors.numpy import load_file

    from impart_utils import ram_jobs

    answers, sys.stdout = sys.stdout, sys.stderr  # whatever prints can't be taken for an answer
    read = lru_cache(maxsize=1)(load_file)
    for line in sys.stdin:
        task = json.loads(line)
        ram_jobs.run(task["job"], read(task["arrays"]), progress=False)
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
