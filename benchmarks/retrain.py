"""Does the tiny CLIP's recipe lead where the shipped weights are? Repeats it whole and compares.

    python benchmarks/retrain.py [--seed 0] [--cache FOLDER]

Trains for a minute or two on two cores, prints both accuracies on each toy test set and writes them to
benchmarks/retrain.json. Ends with an error where one differs by more than 3 points. `--seed` other than
the shipped weights' also changes the random start and the training pictures: a look at the recipe's own
spread.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch
from tqdm import tqdm

from impart_utils.sources.features import atomic_path
from impart_utils.toy_world import scenes, train_clip

LIMIT = 0.03  # how far the retrained weights may be from the shipped ones, as a fraction
OUT = Path(__file__).with_suffix(".json")


def machine():
    """What a figure in seconds needs to be read by."""
    return {"system": platform.platform(terse=True), "processor": platform.machine(),
            "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__}


def compare(seed=0, cache=None):
    """Rows of test set, n, accuracy shipped and retrained; and the seconds that training took."""
    torch.set_num_threads(train_clip.THREADS)
    start = time.perf_counter()
    model, _ = train_clip.train(seed=seed, cache=cache, probe_every=0,
                                progress=lambda steps: tqdm(steps, desc="retraining"))
    seconds = time.perf_counter() - start
    shipped, rows = train_clip.load_weights(), []
    for name in scenes.CLASS_NAMES:
        before = train_clip.zero_shot_accuracy(shipped, name, cache=cache)
        after = train_clip.zero_shot_accuracy(model, name, cache=cache)
        rows.append({"dataset": name, "n": len(scenes.test_set(name).labels), "shipped": before,
                     "retrained": after, "difference": after - before})
    return rows, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(train_clip.read_metadata()["seed"]))
    parser.add_argument("--cache", help="folder for the pictures (default: draw them anew)")
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    options = parser.parse_args()
    rows, seconds = compare(options.seed, options.cache)
    print(f"{'test set':<10}{'n':>7}{'shipped':>10}{'retrained':>11}{'difference':>12}")
    for row in rows:
        print(f"{row['dataset']:<10}{row['n']:>7}{row['shipped']:>10.1%}{row['retrained']:>11.1%}"
              f"{100 * row['difference']:>+9.1f} pts")
    print(f"training took {seconds:.0f} s with {torch.get_num_threads()} threads (drawing included)")
    result = {"seed": options.seed, "steps": train_clip.Recipe.steps, "recipe_hash": train_clip.recipe_hash(),
              "seconds": round(seconds, 1), "machine": machine(), "rows": rows}
    with atomic_path(options.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    worst = max(rows, key=lambda row: abs(row["difference"]))
    if abs(worst["difference"]) > LIMIT:
        raise SystemExit(f"{worst['dataset']}: retrained and shipped weights differ by "
                         f"{100 * worst['difference']:+.1f} points, more than {100 * LIMIT:.0f}.")


if __name__ == "__main__":
    main()
