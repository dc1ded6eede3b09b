"""Policies, the algorithms that train them, and what they leave behind."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import Agent
    from .storage.policy import load_policy

__all__ = ["Agent", "load_policy"]

_WHERE = {"Agent": ".agent", "load_policy": ".storage.policy"}


def __getattr__(name: str) -> Any:
    # Imported at first use: torch takes seconds, and the command line's help does not need it.
    if name in _WHERE:
        return getattr(import_module(_WHERE[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
