"""CarRacing, batched, drawn fast, and seen as patches."""

from typing import Any

__all__ = ["CarRacing", "Scenery"]


def __getattr__(name: str) -> Any:
    # Worker processes import this package, and need neither the task nor torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import task

    return getattr(task, name)
