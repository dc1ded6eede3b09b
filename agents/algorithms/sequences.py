"""Rollouts for policies with memory: stretches of steps, and the memory that each began with.

Back-propagation through time is cut at the stretch's beginning (Werbos, "Backpropagation through time",
1990; as recurrent PPO commonly does). The memory there is that of the rollout, which older parameters made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from torch import Tensor

from ...envs.errors import UserError

STARTS = "episode_starts"
MEMORY = "memory:"
"""Keys beside the observation's own in what `SequenceRolloutBuffer` gives."""


class SequenceRolloutBuffer(DictRolloutBuffer):
    """SB3's buffer, whose minibatches are whole stretches of ``length`` steps, flattened step by step.

    Args:
        args: as SB3 passes them.
        length: of a stretch; it divides the steps of a rollout.
        kwargs: as SB3 passes them.

    Attributes:
        policy: tells (``memory_before``) what it remembered when it acted; set by the learner.
    """

    def __init__(self, *args: Any, length: int = 16, **kwargs: Any) -> None:
        self.length = length
        super().__init__(*args, **kwargs)
        if self.buffer_size % length:
            raise UserError(
                f"algorithm.n_steps is {self.buffer_size}, not a multiple of algorithm.sequence_length "
                f"{length}: a rollout is cut into sequences"
            )
        self.policy: Any = None

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        self.memories: list[dict[str, Tensor]] = []

    def add(self, *args: Any, **kwargs: Any) -> None:
        """One step of all rows."""
        if self.pos % self.length == 0:
            self.memories.append({key: value.clone() for key, value in self.policy.memory_before.items()})
        super().add(*args, **kwargs)

    def get(self, batch_size: int | None = None) -> Iterator[DictRolloutBufferSamples]:
        """Minibatches of about ``batch_size`` samples, of stretches in random order."""
        parts = self.buffer_size // self.length
        # Flat number of a stretch: part * n_envs + row.
        order = np.random.permutation(parts * self.n_envs)
        count = max(1, (batch_size or self.buffer_size * self.n_envs) // self.length)
        for first in range(0, len(order), count):
            yield self._stretches(order[first : first + count])

    def _stretches(self, chosen: np.ndarray) -> DictRolloutBufferSamples:
        part, row = np.divmod(chosen, self.n_envs)
        step = part[None] * self.length + np.arange(self.length)[:, None]  # step: (L, b)

        def take(values: np.ndarray) -> Tensor:
            picked = values[step, row[None]]  # (L, b, ...)
            return self.to_torch(picked.reshape(-1, *values.shape[2:]))

        observations = {key: take(value) for key, value in self.observations.items()}
        observations[STARTS] = take(self.episode_starts)
        for key in self.memories[0]:
            stacked = torch.stack([memory[key] for memory in self.memories])  # (parts, B, ...)
            observations[MEMORY + key] = stacked[torch.from_numpy(part), torch.from_numpy(row)]
        return DictRolloutBufferSamples(
            observations=observations,
            actions=take(self.actions),
            old_values=take(self.values).flatten(),
            old_log_prob=take(self.log_probs).flatten(),
            advantages=take(self.advantages).flatten(),
            returns=take(self.returns).flatten(),
        )


def forget(memory: dict[str, Tensor], start: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The memory with that of an episode's start in ``rows`` (B,) bool."""
    return {
        key: torch.where(rows.view(-1, *[1] * (value.ndim - 1)), start[key], value)
        for key, value in memory.items()
    }
