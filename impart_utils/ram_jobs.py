"""One training of RAM as a job: arrays in, a file out. A worker process thus needs neither CLIP nor pictures.

`cached.ram_job` makes jobs, `cached.trained_ram` runs one, `evidence.ram_runs.run_all` many.
"""

import contextlib
import json
from pathlib import Path

import numpy as np
import torch

from impart_utils.ram_files import load_history, load_ram, save_ram
from impart_utils.ram_variants import configuration as configured
from impart_utils.ram_variants import parts
from impart_utils.reference import scaled
from impart_utils.sources.files import atomic_path, content_hash, file_hash
from impart_utils.training import apply_ram, new_ram, train_ram
from impart_utils.zeroshot import predict

HERE = Path(__file__).parent
# whoever edits one of these gets a RAM trained by the edited code
CODE = [HERE / name for name in ("ram.py", "ram_gradient.py", "contrastive.py", "adam.py", "training.py",
                                 "ram_files.py", "ram_jobs.py")]


def divide(training, pairs, validation):
    """(pairs to train on, pairs to validate): the first `pairs` pairs, the last `validation` of these.

    Parameters
    ----------
    training : ReferenceSet;  pairs : int or None (all);  validation : int
    """
    there, pairs = len(training), len(training) if pairs is None else pairs
    if not there:
        raise ValueError("No pairs are left to train RAM: all of the pool are references. Lower references, "
                         "or give more pairs.")
    if not 1 <= pairs <= there or not 0 <= validation < pairs:
        raise ValueError(f"Expected pairs from 1 to {there}, the training pairs, and validation below pairs, "
                         f"got pairs={pairs} and validation={validation}.")
    return training.take(np.arange(pairs - validation)), training.take(np.arange(pairs - validation, pairs))


def new_job(folder, configuration, changes, training, tests, *, patience, curve, scale, seed, inputs):
    """A training of RAM as a dict that JSON can hold.

    Parameters
    ----------
    folder : path;  configuration, changes : see `ram_variants.configuration`
    training : ReferenceSet, the pairs to train on;  tests : list of `TestSet`;  patience : see `train_ram`
    curve : int, score the test sets before training and after every so many epochs (True: each); False:
        after the last only
    scale : str;  seed : int;  inputs : what names the references and neighbors trained with

    Returns
    -------
    job : dict of path, options (of `RAM`), settings (of `train_ram`), seed, pairs, tests (key -> name), curve
    """
    options, settings = parts(configured(configuration, **changes))
    settings["patience"] = patience
    code = [file_hash(path) for path in CODE]
    key = content_hash(training.key, *inputs, options, settings, scale, seed, code)
    path = Path(folder) / f"{options['normalize']}-{scale}-seed{seed}-{key}.safetensors"
    return {"path": str(path), "options": options, "settings": settings, "seed": seed,
            "pairs": len(training), "tests": {test.key: test.name for test in tests}, "curve": int(curve)}


def gather(scale, training, held_out, seen, near, references, tests):
    """The arrays that `run` takes.

    Parameters
    ----------
    scale : see `reference.scaled`
    training, held_out, seen, references : `ReferenceSet`: the training pairs, those to validate (maybe none),
        those among which the neighbors of both are, and those among which test pictures' neighbors are
    near : list of int arrays (n, k), rows of `seen`: of the training pairs, and of the held out if there are
    tests : list of (`TestSet`, int array (n, k) into references)

    Returns
    -------
    arrays : dict of v, t (n, d), neighbors (n, k), R_img, R_txt (m, d) to train with; held.v, held.t,
        held.neighbors to validate; test.R_img, test.R_txt (m, d); and for each test set KEY.v (n, d),
        KEY.neighbors (n, k), KEY.classes (c, d), KEY.labels (n,)
    """
    found = {}
    for prefix, pairs, indices in zip(("", "held."), (training, held_out), near, strict=False):
        v, found["R_img"], found["R_txt"] = scaled(pairs.image_features, seen, scale)
        found |= {f"{prefix}v": v, f"{prefix}t": pairs.text_features, f"{prefix}neighbors": indices}
    for test, near in tests:
        v, found["test.R_img"], found["test.R_txt"] = scaled(test.image_features, references, scale)
        found |= {f"{test.key}.v": v, f"{test.key}.neighbors": near,
                  f"{test.key}.classes": test.class_features, f"{test.key}.labels": test.labels}
    return found


def run(job, arrays, *, progress=True):
    """Train the RAM of a job (`new_job`) on `arrays` (`gather`) and write it to the job's path.

    Does nothing where it is there with all that is asked for. After a kill the same call goes on behind the
    last whole epoch. `arrays` may be a function that makes them, called only where they are needed.
    """
    if history(job) is not None:
        return
    arrays = arrays() if callable(arrays) else arrays
    path = Path(job["path"])
    asked = "-".join([f"every{job['curve']}", *sorted(job["tests"])])
    half_done = path.with_name(f"{path.stem}-{asked}-part.safetensors")
    held_out = [arrays.get(f"held.{name}") for name in ("v", "t", "neighbors")]

    def score(epoch, copy):
        return {"tests": _scores(job, arrays, copy)[0]} if epoch % job["curve"] == 0 else {}

    with one_thread():
        ram = new_ram(arrays["v"].shape[1], seed=job["seed"], **job["options"])
        rows = train_ram(ram, *(arrays[name] for name in ("v", "t", "R_img", "R_txt", "neighbors")),
                         seed=job["seed"], **job["settings"],
                         each_epoch=score if job["curve"] else None,
                         validation=None if held_out[0] is None else held_out, checkpoint=half_done,
                         progress=progress)
        end, right = _scores(job, arrays, ram)  # of the weights that are kept
    known = _known_scores(path)
    for epoch, found in [*((row["epoch"], row.pop("tests", {})) for row in rows), ("end", end),
                         ("right", right)]:
        for key in found:
            known.setdefault(key, {})[str(epoch)] = found[key]
    with atomic_path(_scores_path(path)) as temporary:
        temporary.write_text(json.dumps(known))
    save_ram(path, ram, job["options"], rows)
    half_done.unlink(missing_ok=True)


def history(job):
    """The history of a job that has been run, or None.

    As `train_ram` returns it, with "tests" (name -> `scores`): with `curve` in the row before training,
    epoch 0, and in the last of every `curve`-th epoch; without, in the very last alone, of the weights that
    are kept (with patience the best, not the last). Test sets scored by other jobs are left out.
    """
    path = Path(job["path"])
    if not path.exists():
        return None
    rows, known = load_history(path), _known_scores(path)
    if job["tests"]:
        scored = [("end", rows[-1])]
        if job["curve"]:
            scored = [(str(row["epoch"]), row) for row in rows  # of an epoch the last
                      if "alignment" in row and row["epoch"] % job["curve"] == 0]
        for epoch, row in scored:
            if any(epoch not in known.get(key, {}) for key in job["tests"]):
                return None
            row["tests"] = {name: known[key][epoch] for key, name in job["tests"].items()}
    return rows if job["tests"] and job["curve"] else [row for row in rows if row["epoch"]]


def right_answers(job):
    """Test set's name -> bool (n,): which of its pictures the RAM of a job that has been run gets right."""
    known = _known_scores(Path(job["path"]))
    return {name: np.array([answer == "1" for answer in known[key]["right"]])
            for key, name in job["tests"].items()}


def load(job):
    """(ram in eval mode, history) of a job that has been run."""
    return load_ram(job["path"])[0], history(job)


def scores(ram, v, R_img, R_txt, neighbors, classes, labels):
    """How RAM does on a test set, and how much it changes the queries.

    Parameters
    ----------
    v : array (n, d);  R_img, R_txt : arrays (m, d);  neighbors : int array (n, k)
    classes : array (c, d);  labels : int array (n,)

    Returns
    -------
    scores : dict with accuracy (a fraction), added (mean of ‖output - v‖ / ‖v‖), length (of ‖output‖ / ‖v‖)
    right : bool (n,), which pictures are named correctly
    """
    augmented = apply_ram(ram, v, R_img, R_txt, neighbors)  # (n, d)
    before, after, added = (np.linalg.norm(block, axis=1) for block in (v, augmented, augmented - v))
    right = predict(augmented, classes) == labels
    return {"accuracy": float(right.mean()), "added": float((added / before).mean()),
            "length": float((after / before).mean())}, right


@contextlib.contextmanager
def one_thread():
    """torch computes in one thread: the order of its sums, and so the last bit, is then always the same.

    Workers and notebooks thus train the same RAM, on however many cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _scores(job, arrays, ram):
    """`scores` of all test sets of a job: key -> dict, and key -> right answers as a str of 0 and 1."""
    names, found, right = ("neighbors", "classes", "labels"), {}, {}
    for key in job["tests"]:
        found[key], answers = scores(ram, arrays[f"{key}.v"], arrays["test.R_img"], arrays["test.R_txt"],
                                     *(arrays[f"{key}.{name}"] for name in names))
        right[key] = "".join("01"[answer] for answer in answers.astype(int))
    return found, right


def _scores_path(path):
    return path.with_suffix(".json")


def _known_scores(path):
    """Test set's key -> epoch as a str, or "end" -> `scores`, of all jobs that trained this RAM.

    Beside the epochs "right" has the answers at the end, as a str of 0 and 1.
    """
    path = _scores_path(path)
    return json.loads(path.read_text()) if path.exists() else {}
