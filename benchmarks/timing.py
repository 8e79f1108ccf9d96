"""What the benchmarks share: alternated rounds, ratios with their spread, the machine's own speed."""

import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd

from impart_utils.sources.files import atomic_path


def machine():
    """What the figures were measured on: processor, its vector units, cores, threads, versions."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    found = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in lines if ":" in line}
    flags = set(found.get("flags", "").split())
    return {"processor": found.get("model name", platform.processor() or platform.machine()),
            "vector units": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile"}),
            "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
            "numpy": np.__version__, "python": platform.python_version(), "platform": platform.platform(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else ""}


def matmul_rate(dtype, *, size=2048, seconds=2.0, device="cpu"):
    """The machine's speed limit: the best rate of a square matrix product, in GFLOP/s.

    Parameters
    ----------
    dtype : torch dtype;  size : int
    seconds : float, how long to try after as long a warm-up; at least three products are timed
    """
    import torch

    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    found, begun = [], time.perf_counter()
    while len(found) < 3 or time.perf_counter() < begun + 2 * seconds:
        started = time.perf_counter()
        a @ b
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
        if started < begun + seconds:
            found = found[-1:]  # still warming up
    return 2 * size**3 / min(found) / 1e9


def alternate(ways, *, rounds=5, warmup=1):
    """Run several ways of one job in turns, so that a slow minute of the machine hits all of them.

    Parameters
    ----------
    ways : dict, name -> function without arguments
    rounds : int, measured rounds; every second one runs in the opposite order
    warmup : int, rounds before, not measured

    Returns
    -------
    seconds : dict, name -> list of `rounds` floats
    """
    seconds = {name: [] for name in ways}
    for number in range(warmup + rounds):
        for name in list(ways)[::-1 if number % 2 else 1]:
            started = time.perf_counter()
            ways[name]()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def summary(seconds, baseline, *, per=1, unit="s"):
    """A row per way: median seconds and how many times as fast as the baseline, with their spread.

    Parameters
    ----------
    seconds : dict of `alternate`;  baseline : str, one of its names
    per : number, items in one job; seconds are divided by it;  unit : "s" or "ms"

    Returns
    -------
    table : DataFrame with median, min, max (in `unit`) and ratio, ratio min, ratio max: the median and the
        ends over rounds of baseline / way, both of the same round
    """
    scale = {"s": 1.0, "ms": 1e3}[unit] / per
    base, rows = np.asarray(seconds[baseline]), {}
    for name, values in seconds.items():
        values = np.asarray(values)
        ratio = base / values
        rows[name] = {f"median {unit}": np.median(values) * scale, f"min {unit}": values.min() * scale,
                      f"max {unit}": values.max() * scale, "ratio": np.median(ratio),
                      "ratio min": ratio.min(), "ratio max": ratio.max()}
    return pd.DataFrame(rows).T


def save(name, rows, **extra):
    """Write benchmarks/NAME.json: what was measured (a DataFrame or JSON), on which machine; its path."""
    path = Path(__file__).with_name(f"{name}.json")
    if isinstance(rows, pd.DataFrame):
        rows = rows.rename_axis("way").reset_index().to_dict("records")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"machine": machine(), **extra, "rows": rows}, indent=2) + "\n")
    return path
