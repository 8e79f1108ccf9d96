"""What every test shares: thread counts, set before torch is imported, and outputs outside the clone."""

import os

import demo_run
import pytest

from impart_utils import run

run.set_environment()


@pytest.fixture(scope="session", autouse=True)
def outputs_outside_the_clone(tmp_path_factory):
    """Caches, results and executed notebooks of the session go to a folder that is removed afterwards."""
    before = os.environ.get("IMPART_OUTPUT")
    os.environ["IMPART_OUTPUT"] = str(tmp_path_factory.mktemp("output"))
    yield
    os.environ.pop("IMPART_OUTPUT")
    if before is not None:
        os.environ["IMPART_OUTPUT"] = before


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo run once for all: its output folder, what it printed, git status before and after."""
    output, before = tmp_path_factory.mktemp("demo"), demo_run.git_status()
    done = demo_run.run(output, **demo_run.SMALLEST)
    assert done.returncode == 0, done.stdout + done.stderr
    return demo_run.Demo(output, done.stdout, before, demo_run.git_status())


@pytest.fixture(scope="module")
def vit():
    """OpenAI's architecture class with a vision transformer, as small as it goes."""
    import torch
    from clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIP(32, 32, 2, 64, 8, 77, 49408, 64, 1, 2).float().eval()


@pytest.fixture(scope="module")
def resnet():
    """The same with the ResNet tower in the tiny CLIP's size."""
    import torch
    from clip.model import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(1)
        return CLIP(64, 32, (1, 1, 1, 1), 16, None, 77, 49408, 64, 1, 2).float().eval()
