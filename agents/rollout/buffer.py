"""A rollout as tensors of the learner's device, and its minibatches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ...envs.cores import check_memory
from ...envs.errors import UserError
from ..device import free_memory_of


@dataclass
class Batch:
    """Samples (n, ...), of stretches step by step: observations by key, and what else was kept by name.

    Of b stretches of L steps ``starts`` (L, b) says where episodes begin, and ``memory`` is that of their
    beginnings, (b, ...) each; None: samples are single steps.
    """

    observation: dict[str, Tensor]
    columns: dict[str, Tensor]
    starts: Tensor | None = None
    memory: dict[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]


class RolloutBuffer:
    """T steps of B environments, in tensors (T, B, ...).

    For a policy with memory, minibatches are whole stretches of steps, each with the memory that it began
    with, which older parameters made: back-propagation through time is cut there (Werbos, "Backpropagation
    through time", 1990).

    Args:
        n_steps: T.
        num_envs: B.
        observation_space: of one environment; observations keep its dtypes.
        columns: shapes of what else a step has, by name; float32.
        device: of the learner.
        length: L of a stretch, which divides T; None: minibatches are of single steps.

    Raises:
        UserError: it does not fit into the memory of the device, or the length does not divide T.
    """

    def __init__(
        self,
        n_steps: int,
        num_envs: int,
        observation_space: spaces.Dict,
        columns: Mapping[str, tuple[int, ...]],
        device: torch.device | str = "cpu",
        length: int | None = None,
    ) -> None:
        self.n_steps, self.num_envs, self.length = n_steps, num_envs, length
        self.device = torch.device(device)
        if length is not None and n_steps % length:
            raise UserError(
                f"algorithm.n_steps is {n_steps}, not a multiple of algorithm.sequence_length={length}: a "
                "rollout is cut into sequences"
            )
        size = rollout_bytes(n_steps, num_envs, observation_space, columns)
        free = free_memory_of(self.device)
        fits = free * num_envs // size
        check_memory(
            size,
            f"a rollout of {n_steps} steps of {num_envs} environments",
            f"algorithm.num_envs={fits} would fit" if fits else "lower algorithm.n_steps",
            free or None,
        )
        self.observations = {
            key: self._zeros(space.shape, torch.from_numpy(np.empty(0, space.dtype)).dtype)
            for key, space in observation_space.items()
        }
        self.columns = {name: self._zeros(shape) for name, shape in columns.items()}
        self.starts = self._zeros((), torch.bool)
        self.reset()

    def _zeros(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros((self.n_steps, self.num_envs, *shape), dtype=dtype, device=self.device)

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def reset(self) -> None:
        """Begin again; the next steps take the place of those that are here."""
        self.pos = 0
        self._memories: list[dict[str, Tensor]] = []

    def add(
        self,
        observation: Mapping[str, Tensor],
        starts: Tensor,
        columns: Mapping[str, Tensor],
        memory: Mapping[str, Tensor] | None = None,
    ) -> None:
        """One step of all environments, copied.

        Args:
            observation: (B, ...) each, acted on.
            starts: (B,) bool, whether it is the first of its episode.
            columns: (B, ...) each, those that are known; others may be written later.
            memory: (B, ...) each, that the policy had when it acted.
        """
        if self.length is not None and self.pos % self.length == 0:
            self._memories.append({key: value.clone() for key, value in memory.items()})
        for key, kept in self.observations.items():
            kept[self.pos].copy_(observation[key], non_blocking=True)
        self.starts[self.pos].copy_(starts, non_blocking=True)
        for name, value in columns.items():
            kept = self.columns[name][self.pos]
            kept.copy_(value.reshape(kept.shape), non_blocking=True)
        self.pos += 1

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All samples once, in a random order of NumPy's global stream, about ``batch_size`` at a time."""
        if self.pos < self.n_steps:
            raise RuntimeError(f"the rollout has {self.pos} of {self.n_steps} steps")
        if self.length is not None:
            yield from self._stretches(max(1, batch_size // self.length))
            return
        # As Stable-Baselines3, which counts an environment's steps first.
        row, step = np.divmod(np.random.permutation(self.n_steps * self.num_envs), self.n_steps)
        places = torch.from_numpy(step * self.num_envs + row).to(self.device)
        for chosen in places.split(batch_size):
            yield self._samples(chosen)

    def _stretches(self, count: int) -> Iterator[Batch]:
        # Number of a stretch: part * num_envs + row.
        order = np.random.permutation(self.n_steps // self.length * self.num_envs)
        memories = {k: torch.cat([memory[k] for memory in self._memories]) for k in self._memories[0]}
        for chosen in torch.from_numpy(order).to(self.device).split(count):
            part, row = chosen // self.num_envs, chosen % self.num_envs
            steps = part * self.length + torch.arange(self.length, device=self.device)[:, None]  # (L, b)
            batch = self._samples((steps * self.num_envs + row).flatten())
            batch.starts = self.starts[steps, row]
            batch.memory = {key: values.index_select(0, chosen) for key, values in memories.items()}
            yield batch

    def _samples(self, places: Tensor) -> Batch:
        """Those at ``places`` (n,), counted step by step."""
        parts = [
            {name: value.flatten(0, 1).index_select(0, places) for name, value in held.items()}
            for held in (self.observations, self.columns)
        ]
        return Batch(*parts)


def rollout_bytes(
    n_steps: int, num_envs: int, observation_space: spaces.Dict, columns: Mapping[str, tuple[int, ...]]
) -> int:
    """What a `RolloutBuffer` of these takes."""
    observed = sum(int(np.prod(space.shape)) * space.dtype.itemsize for space in observation_space.values())
    return n_steps * num_envs * (observed + 1 + 4 * sum(int(np.prod(shape)) for shape in columns.values()))
