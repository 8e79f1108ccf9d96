"""The README says what is so: its code prints what it shows, its links and commands lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_first_example_prints_what_it_shows():
    block = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    shown = [line[2:] for line in block.splitlines() if line.startswith("# ")]
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    # as bytes: text mode would turn the carriage returns, with which a bar clears its line, into new lines
    lines = [line.split("\r")[-1].strip() for line in done.stdout.decode().split("\n")]
    assert [line for line in lines if line] == shown


@pytest.mark.parametrize("page", ["README.md", "data/README.md"])
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (impart_utils[\w.]*)", README))))
def test_commands_are_there(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT,
                          timeout=120)
    assert done.returncode == 0 and "usage" in done.stdout.lower(), done.stderr
