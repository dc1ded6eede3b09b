"""Trained agents that come with the toolkit: a ``policy/`` each, and ``card.json`` of how it was made."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

PREFIX = "bundled/"
"""What their names begin with on the command line."""


def bundled_names() -> list[str]:
    """Names of the bundled agents, ``<task>-<policy>``."""
    return sorted(path.name for path in _root().iterdir() if (path / "card.json").is_file())


def bundled_folder(name: str) -> Path:
    """The policy folder of a bundled agent; it need not be there."""
    return _root() / name


def is_bundled(folder: Path) -> bool:
    """Whether it is the folder of a bundled agent, where nothing is to be written."""
    return folder.resolve().parent == _root().resolve()


def read_card(name: str) -> dict[str, Any]:
    """How a bundled agent was made: command, seed, steps, wall-clock, machine, versions."""
    return json.loads((_root() / name / "card.json").read_text(encoding="utf-8"))


def _root() -> Path:
    return Path(str(resources.files(__package__)))
