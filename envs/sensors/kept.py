"""Parts of an environment whose future depends on a few of their attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..snapshots import put, take


class Kept:
    """Goes on from the attributes that ``kept`` names; the others are fixed, or made anew in every step."""

    kept: tuple[str, ...]

    def snapshot(self) -> dict[str, Any]:
        """Copies of what this goes on from."""
        return take(self, self.kept)

    def restore(self, taken: Mapping[str, Any]) -> None:
        """Inverse of `snapshot`. Raises Misfit."""
        put(self, self.kept, taken)
