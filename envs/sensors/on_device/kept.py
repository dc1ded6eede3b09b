"""Tensors that an environment goes on from, which stay where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...snapshots import Misfit, put


class KeptTensors:
    """Goes on from the tensors that ``kept`` names.

    They are written to in place, in every step and when they are restored: a CUDA graph that was captured
    once goes on with the memory that it has seen.
    """

    kept: tuple[str, ...]

    def snapshot(self) -> dict[str, Any]:
        """Copies on the host."""
        return {name: _taken(getattr(self, name)) for name in self.kept}

    def restore(self, taken: Mapping[str, Any]) -> None:
        """Inverse of `snapshot`. Raises Misfit: of another form; nothing has been changed then."""
        self.check_fit(taken)
        put(self, self.kept, taken)

    def check_fit(self, taken: Mapping[str, Any]) -> None:
        """Raises Misfit: ``taken`` is no snapshot of one that was made in the same way."""
        if set(taken) != set(self.kept):
            raise Misfit(f"{type(self).__name__} keeps {', '.join(self.kept)}, not {', '.join(taken)}")
        for name in self.kept:
            own, other = getattr(self, name), taken[name]
            if isinstance(own, KeptTensors):
                own.check_fit(other)
            elif isinstance(own, Tensor) and own.shape != getattr(other, "shape", None):
                found = tuple(getattr(other, "shape", ()))
                raise Misfit(f"{type(self).__name__}.{name} is {tuple(own.shape)}, the snapshot {found}")


def _taken(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return None if value is None else value.snapshot()
