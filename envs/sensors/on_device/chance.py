"""Random numbers of many rows from one generator of a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...snapshots import Misfit
from .kept import KeptTensors


class Chance(KeptTensors):
    """Random numbers for B rows. Rows of one seed draw the same, so that candidates meet the same episodes.

    Args:
        num_envs: B.
        device: of the generator and of what it draws.

    Attributes:
        stream: (B,) int64, the row whose numbers a row takes; its own if no earlier one has its seed.
        generator: to be registered with a CUDA graph that draws.
    """

    kept = ("stream",)

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.generator = torch.Generator(device)
        self.stream = torch.arange(num_envs, device=device)

    def seed(self, seed: int, stream: np.ndarray) -> None:
        """Begin anew.

        Args:
            seed: of the generator.
            stream: (B,) which of the distinct seeds is a row's.
        """
        self.generator.manual_seed(seed)
        _, first, which = np.unique(stream, return_index=True, return_inverse=True)
        self.stream.copy_(torch.from_numpy(first[which]))

    def uniform(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, *size) in [0, 1)."""
        shape = (len(self.stream), *size)
        drawn = torch.rand(shape, generator=self.generator, device=self.stream.device, dtype=dtype)
        return drawn.index_select(0, self.stream)

    def normal(self, *size: int) -> Tensor:
        """(B, *size) float32 of deviation 1."""
        shape = (len(self.stream), *size)
        drawn = torch.randn(shape, generator=self.generator, device=self.stream.device)
        return drawn.index_select(0, self.stream)

    def orders(self, size: int) -> Tensor:
        """(B, size) int64, a permutation for each row."""
        return self.uniform(size).argsort(1)

    def snapshot(self) -> dict[str, Any]:
        """Copies on the host."""
        return {**super().snapshot(), "generator": self.generator.get_state()}

    def restore(self, taken: Mapping[str, Any]) -> None:
        """Inverse of `snapshot`. Raises Misfit."""
        self.check_fit(taken)
        self.stream.copy_(taken["stream"])
        self.generator.set_state(taken["generator"])

    def check_fit(self, taken: Mapping[str, Any]) -> None:
        """Raises Misfit: ``taken`` is of other rows, or of the generator of another kind of device."""
        super().check_fit({name: value for name, value in taken.items() if name != "generator"})
        own, other = self.generator.get_state().shape, getattr(taken.get("generator"), "shape", None)
        if own != other:
            raise Misfit(f"a generator of {self.stream.device} has a state of {tuple(own)}, not {other}")
