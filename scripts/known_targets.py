"""What a configuration may build: the classes that the configurations of this package name."""

from __future__ import annotations

import functools
import re
from importlib import resources
from importlib.resources.abc import Traversable

_PACKAGES = ("somite.conf", "somite.scripts.benchmarks.conf")
_TARGET = re.compile(r"^\s*_target_:\s*(\S+)", re.MULTILINE)


@functools.cache
def known_targets() -> frozenset[str]:
    """Every ``_target_`` in ``conf/``: functions of ours that remove or write files are not among them."""
    found: set[str] = set()
    waiting: list[Traversable] = [resources.files(package) for package in _PACKAGES]
    while waiting:
        place = waiting.pop()
        if place.is_dir():
            waiting += place.iterdir()
        elif place.name.endswith(".yaml"):
            found.update(_TARGET.findall(place.read_text(encoding="utf-8")))
    return frozenset(found)
