"""Rollouts for policies with memory: stretches of steps, and the memory that each began with.

Back-propagation through time is cut at the stretch's beginning (Werbos, "Backpropagation through time",
1990; as recurrent PPO commonly does). The memory there is that of the rollout, which older parameters made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from torch import Tensor

from ...envs.errors import UserError
from .buffer import RolloutBuffer

STARTS = "episode_starts"
MEMORY = "memory:"
"""Keys beside the observation's own in what `SequenceRolloutBuffer` gives."""


class SequenceRolloutBuffer(RolloutBuffer):
    """A rollout whose minibatches are whole stretches of ``length`` steps, flattened step by step.

    Args:
        args: as of `RolloutBuffer`.
        length: of a stretch; it divides the steps of a rollout.
        kwargs: as of `RolloutBuffer`.

    Attributes:
        policy: tells (``memory_before``) what it remembered when it acted; set by the learner.
    """

    def __init__(self, *args: Any, length: int = 16, **kwargs: Any) -> None:
        self.length = length
        super().__init__(*args, **kwargs)
        if self.n_steps % length:
            raise UserError(
                f"algorithm.n_steps is {self.n_steps}, not a multiple of algorithm.sequence_length "
                f"{length}: a rollout is cut into sequences"
            )
        self.policy: Any = None

    def reset(self) -> None:
        """Begin again."""
        super().reset()
        self.memories: list[dict[str, Tensor]] = []

    def add(self, *args: Any, **kwargs: Any) -> None:
        """One step of all rows."""
        if self.pos % self.length == 0:
            self.memories.append({key: value.clone() for key, value in self.policy.memory_before.items()})
        super().add(*args, **kwargs)

    def get(self, batch_size: int | None = None) -> Iterator[DictRolloutBufferSamples]:
        """Minibatches of about ``batch_size`` samples, of stretches in random order."""
        self._check_full()
        # Flat number of a stretch: part * n_envs + row.
        order = np.random.permutation(self.n_steps // self.length * self.n_envs)
        count = max(1, (batch_size or self.n_steps * self.n_envs) // self.length)
        memories = {  # (parts * B, ...) each
            key: torch.cat([memory[key] for memory in self.memories]) for key in self.memories[0]
        }
        for chosen in torch.from_numpy(order).to(self.device).split(count):
            yield self._stretches(chosen, memories)

    def _stretches(self, chosen: Tensor, memories: dict[str, Tensor]) -> DictRolloutBufferSamples:
        part, row = chosen // self.n_envs, chosen % self.n_envs
        steps = part * self.length + torch.arange(self.length, device=self.device)[:, None]  # (L, b)
        places = (steps * self.n_envs + row).flatten()
        more = {STARTS: self.episode_starts.flatten().index_select(0, places)}
        for key, values in memories.items():
            more[MEMORY + key] = values.index_select(0, chosen)
        return self._samples(places, more)


def forget(memory: dict[str, Tensor], start: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The memory with that of an episode's start in ``rows`` (B,) bool."""
    return {
        key: torch.where(rows.view(-1, *[1] * (value.ndim - 1)), start[key], value)
        for key, value in memory.items()
    }
