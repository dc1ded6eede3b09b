"""Policies, the algorithms that train them, and what they leave behind."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .acting import Agent
    from .checkpoint import load_policy

__all__ = ["Agent", "load_policy"]

_WHERE = {"Agent": ".acting", "load_policy": ".checkpoint"}


def __getattr__(name: str) -> Any:
    # Imported at first use: torch takes seconds, and the command line's help does not need it.
    if name in _WHERE:
        return getattr(import_module(_WHERE[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
