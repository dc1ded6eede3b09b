from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

import pytest

from .faults.processes import Nursery
from .parsed_once import parse_once

# Else every process that tests start compiles the package anew, and pytest rewrites every test anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
parse_once()


def pytest_collection_finish() -> None:
    """What was imported and collected, a million objects, stays: garbage is not looked for in it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Starts runs in processes of their own."""
    started = Nursery()
    yield started
    started.close()
