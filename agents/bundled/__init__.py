"""Trained agents that come with the toolkit: a ``policy/`` each, and ``card.json`` of how it was made."""

from __future__ import annotations

from pathlib import Path

PREFIX = "bundled/"
"""What their names begin with on the command line."""
_ROOT = Path(__file__).parent


def bundled_names() -> list[str]:
    """Names of the bundled agents, ``<task>-<policy>``."""
    return sorted(card.parent.name for card in _ROOT.glob("*/card.json"))


def bundled_folder(name: str) -> Path:
    """The policy folder of a bundled agent; it need not be there."""
    return _ROOT / name


def is_bundled(folder: Path) -> bool:
    """Whether it is the folder of a bundled agent, where nothing is to be written."""
    return folder.resolve().parent == _ROOT.resolve()
