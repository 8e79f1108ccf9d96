"""What a run leaves in results/<profile>/run.json: versions, seed, inputs, and a row per notebook."""

import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from impart_utils import config

RECORDED = ("torch", "torchvision", "clip-anytorch", "numpy", "scikit-learn", "scipy", "pandas", "matplotlib",
            "pillow", "av", "safetensors", "papermill")


def start_record(run_config, settings, paths, *, keep_others):
    """What run.json says of the run; with `--only`, rows of other notebooks stay, with their own run_id."""
    earlier = run_config.results_dir / "run.json"
    if not keep_others:  # a whole run states its inputs anew
        (run_config.results_dir / "inputs.json").unlink(missing_ok=True)
    rows = json.loads(earlier.read_text())["notebooks"] if keep_others and earlier.exists() else {}
    selected = [path.stem for path in paths]
    packages = {found.name: found.version for found in importlib.metadata.distributions()}
    return {
        "run_id": time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + secrets.token_hex(3),
        "profile": run_config.profile, "commit": config.commit(), "started": time.time(),
        "settings": settings, "seed": run_config.seed, "threads": os.environ["OMP_NUM_THREADS"],
        "versions": {"python": platform.python_version(), "platform": platform.platform(),
                     **{name: packages[name] for name in RECORDED if name in packages}},
        "machine": machine(),
        "selected": selected, "notebooks": {name: rows[name] for name in rows if name not in selected},
    }


def machine():
    """Processor, cores, memory in GB and graphics cards; "" where the system doesn't say."""
    import psutil

    processor, cards = platform.processor(), ""
    with suppress(OSError, StopIteration):  # Linux alone has this file, which names the model
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    with suppress(OSError, subprocess.SubprocessError):  # torch knows, too, but takes seconds to import
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        cards = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    return {"processor": processor or platform.machine(), "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1), "gpu": cards.replace("\n", ", ")}


def save_record(record, run_config):
    """Write run.json: the record and the hashes of what was read."""
    from impart_utils.sources.features import atomic_path, file_hash

    files = [run_config.data_dir / name for name in ("paper_values.csv", "toy_clip.safetensors")]
    inputs = {file.name: file_hash(file) for file in files if file.exists()}
    listed = run_config.results_dir / "inputs.json"  # what else the notebooks read, written by them
    if listed.exists():
        inputs.update(json.loads(listed.read_text()))
    seconds = round(time.time() - record["started"], 1)
    with atomic_path(run_config.results_dir / "run.json") as path:
        path.write_text(json.dumps({**record, "seconds": seconds, "inputs": inputs}, indent=1) + "\n")


@contextmanager
def peak_memory(interval=0.2):
    """Sample the memory of this process' children, the kernel and what it starts; {"mb": the largest sum}."""
    import psutil

    peak, done = {"mb": 0}, threading.Event()

    def sample():
        while not done.wait(interval):
            with suppress(psutil.Error):  # a child ended meanwhile: the next sample counts
                children = psutil.Process().children(recursive=True)
                peak["mb"] = max(peak["mb"], round(sum(child.memory_info().rss for child in children) / 1e6))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
