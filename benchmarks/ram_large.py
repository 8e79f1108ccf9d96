"""Does RAM train on more pairs than fit into memory? 1.35 million, on disk, with the peak memory measured.

    python benchmarks/ram.py --large [--quick]

Random features, 5.5 GB in a temporary folder that is removed afterwards; 1000 references; the search for all
neighbors and 500 steps of 100 pairs, in a process of their own so that making the files doesn't count. Linux
only: memory is read from /proc. Writes benchmarks/ram_large.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from timing import save

from impart_utils.retrieval import Retriever
from impart_utils.training import new_ram, train_ram

PAIRS, DIM, STEPS, BATCH, REFERENCES, TOP_K = 1_350_000, 512, 500, 100, 1000, 8
GOAL = 8.0  # GB


def random_features(n, m, dim, seed=0):
    """v, t (n, d), R_img, R_txt (m, d): float32, of norm about 10 as ViT-B/32's."""
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((rows, dim), dtype=np.float32) * 10 / dim**0.5 for rows in (n, n, m, m))


def make_large(folder, pairs, dim):
    """Two files of random float32 features, written in pieces."""
    rng = np.random.default_rng(0)
    for name in ("image", "text"):
        block = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (pairs, dim))
        for start in range(0, pairs, 10_000):
            rows = min(10_000, pairs - start)
            block[start:start + rows] = rng.standard_normal((rows, dim), dtype=np.float32) * 10 / dim**0.5
        block.flush()


def memory():
    """Memory of this process in GB, as Linux counts it: the most resident so far, its own, pages of files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"peak resident": "VmHWM", "own": "RssAnon", "file pages": "RssFile"}
    return {name: int(lines[field].split()[0]) * 1.024e-6 for name, field in names.items()}


def large_run(folder, steps):
    """Search and train on the files of `make_large` in this process; seconds and peak memory."""
    peaks, stop = {}, threading.Event()

    def watch():
        while not stop.wait(0.02):
            for name, value in memory().items():
                peaks[name] = max(peaks.get(name, 0), value)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    v, t = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", "text"))
    _, _, R_img, R_txt = random_features(1, REFERENCES, v.shape[1], seed=1)
    started = time.perf_counter()
    retriever = Retriever(R_img)
    indices = np.concatenate([retriever.search(v[start:start + 10_000], TOP_K)[1]
                              for start in range(0, len(v), 10_000)])
    searched = time.perf_counter()
    history = train_ram(new_ram(v.shape[1], seed=0), v, t, R_img, R_txt, indices, seed=0, epochs=1,
                        batch_size=BATCH, max_steps=steps, progress=False)
    trained = time.perf_counter()
    stop.set()
    watcher.join()
    return {"pairs": len(v), "steps": len(history), "first loss": history[0]["loss"],
            "last loss": history[-1]["loss"], "search s": searched - started, "steps s": trained - searched,
            **{f"{name} GB": value for name, value in peaks.items()}}


def large(*, pairs=PAIRS, dim=DIM, steps=STEPS):
    """`large_run` in a process of its own, so that making the files doesn't count."""
    with tempfile.TemporaryDirectory() as folder:
        make_large(Path(folder), pairs, dim)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e9
        done = subprocess.run([sys.executable, __file__, "--run", folder, str(steps)], check=True,
                              stdout=subprocess.PIPE, text=True)
    return {"files GB": size, **json.loads(done.stdout)}


def report(*, quick):
    row = large(pairs=20_000, dim=64, steps=20) if quick else large()
    print("\n".join(f"{name:<20}{value:>14,.2f}" for name, value in row.items()))
    met = "met" if row["peak resident GB"] < GOAL else "missed"
    print(f"peak below {GOAL:g} GB: {met}. File pages, those of the two files, go when the system needs the "
          "room; own memory is what the process can't do without.")
    if not quick:
        print(f"written to {save('ram_large', [row], top_k=TOP_K, references=REFERENCES, dim=DIM)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "STEPS"), required=True)
    folder, count = parser.parse_args().run
    print(json.dumps(large_run(Path(folder), int(count))))
