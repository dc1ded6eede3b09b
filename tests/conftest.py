from __future__ import annotations

from collections.abc import Iterator

import pytest

from .faults.processes import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Starts runs in processes of their own."""
    started = Nursery()
    yield started
    started.close()
