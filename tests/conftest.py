from __future__ import annotations

import copy
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource

from .faults.processes import Nursery

# Else every process that tests start compiles the package anew, and pytest rewrites every test anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


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


@pytest.fixture(scope="session", autouse=True)
def configuration_is_parsed_once() -> Iterator[None]:
    """Our configuration's files do not change while tests run, and Hydra reads each for every command anew.

    A tenth of the time of all tests was spent on that.
    """
    read = ImportlibResourcesConfigSource.load_config
    parsed: dict[tuple[str, str, str], Any] = {}

    def load_config(self: ImportlibResourcesConfigSource, config_path: str) -> Any:
        file = self.provider, self.path, config_path
        if file not in parsed:
            parsed[file] = read(self, config_path)
        return copy.deepcopy(parsed[file])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImportlibResourcesConfigSource, "load_config", load_config)
        yield
