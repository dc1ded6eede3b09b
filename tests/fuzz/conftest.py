"""How many inputs are tried: few in every run, thousands in those that are marked slow."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SECONDS = 10
"""That any input may take, of computation."""

settings.register_profile(
    "fuzz", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, database=None
)


class Watch:
    """What every input is held to; counts them.

    Args:
        folder: in which nothing may be left behind.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs = self.refused = 0

    def __call__(self, load, kind, file=None):
        """Load an input: it succeeds, or one error of ``kind`` names the file; soon, nothing is written."""
        before, began = listing(self.folder), used()
        self.inputs += 1
        try:
            load()
        except kind as error:
            self.refused += 1
            message = str(error)
            assert message.strip() and len(message) < 5000, message
            assert "\n" not in message, message
            assert file is None or str(file) in message, message
        assert used() - began < SECONDS, "a hang"
        assert listing(self.folder) == before, "something was written"


def listing(folder):
    """Names, sizes and times of all that is in a folder."""
    return [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))]


def used():
    """Seconds of computation of this process and those it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.fixture
def watch(tmp_path, monkeypatch, record_property):
    """A `Watch` over the folder in which the test stands; its counts go into the report."""
    monkeypatch.chdir(tmp_path)
    found = Watch(tmp_path)
    yield found
    record_property("inputs", found.inputs)
    record_property("refused", found.refused)
    print(f"{found.inputs} inputs, {found.refused} refused")
