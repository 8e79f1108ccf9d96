"""What every test shares: thread counts, set before torch is imported, and outputs outside the clone."""

import os

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
