"""A whole run of the demo on the smallest sizes, for the tests that look at what it leaves."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SMALLEST = {"references": 200, "pairs": 600, "limit": 150, "draws": 2, "ram_epochs": 1, "ram_seeds": 2,
            "train_steps": 40, "fps": 2.0}


class Demo(NamedTuple):
    output: Path
    printed: str
    before: str  # git status of the clone
    after: str


def run(output, *arguments, **settings):
    """`python -m impart_utils.run` with its outputs below `output`; returns the finished process."""
    given = [f"--set={name}={value}" for name, value in settings.items()]
    environment = {**os.environ, "IMPART_OUTPUT": str(output)}
    return subprocess.run([sys.executable, "-m", "impart_utils.run", *arguments, *given], cwd=ROOT,
                          env=environment, capture_output=True, text=True, timeout=900)


def git_status():
    if not (ROOT / ".git").exists():
        return ""
    done = subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain"], capture_output=True, text=True)
    return done.stdout
