"""What episodes that were cut would have gone on to: the values of their last observations.

They are asked for all at once when the rollout ends, each with the memory that the policy had then
(Pardo et al., "Time limits in reinforcement learning", 2018).
"""

from __future__ import annotations

import abc
from collections.abc import Callable

import torch
from torch import Tensor

from ...envs.in_place import replace
from ..policies.base import Memory
from .training_rows import RowsStep, TrainingRows

Observation = dict[str, Tensor]
Predict = Callable[[Observation, Memory], Tensor]


class CutEpisodes(abc.ABC):
    """The cut episodes of a rollout."""

    @abc.abstractmethod
    def clear(self) -> None:
        """A rollout begins."""

    @abc.abstractmethod
    def add(self, time: int, step: RowsStep, memory: Memory) -> None:
        """Keep what a step has cut.

        Args:
            time: of the step in the rollout.
            step: what it gave.
            memory: (B, ...) each, of the policy after it has acted on the last observations but those.
        """

    @abc.abstractmethod
    def bootstrap(self, rewards: Tensor, gamma: float, predict: Predict) -> None:
        """Add to the rewards of the last steps what they lead to.

        Args:
            rewards: (T, B), changed in place.
            gamma: discount of the values.
            predict: values (n, 1) of observations and memories.
        """


def cut_episodes(rows: TrainingRows, n_steps: int) -> CutEpisodes:
    """For these rows and rollouts of ``n_steps``."""
    if rows.knows_ends:
        return KnownCuts()
    return UnknownCuts(rows.num_envs, -(-n_steps // rows.env.max_episode_steps))


class KnownCuts(CutEpisodes):
    """Of rows that the host knows: those that were cut are kept, and no others."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor, Observation, Memory]] = []

    def clear(self) -> None:  # noqa: D102
        self._kept = []

    def add(self, time: int, step: RowsStep, memory: Memory) -> None:  # noqa: D102
        if step.cut is not None:
            own = {key: value.index_select(0, step.cut) for key, value in memory.items()}
            self._kept.append((torch.full_like(step.cut, time), step.cut, step.final, own))

    def bootstrap(self, rewards: Tensor, gamma: float, predict: Predict) -> None:  # noqa: D102
        if not self._kept:
            return
        times, rows, finals, memories = zip(*self._kept, strict=True)
        values = predict(_joined(finals), _joined(memories)).flatten()
        rewards.index_put_((torch.cat(times), torch.cat(rows)), gamma * values, accumulate=True)


class UnknownCuts(CutEpisodes):
    """Of rows on a device, where only it knows which were cut: every row has room for some.

    Args:
        num_envs: B.
        slots: cuts of a row that a rollout has room for.
    """

    def __init__(self, num_envs: int, slots: int) -> None:
        self._size, self._slots = num_envs, slots
        self._kept: list[Observation] = []
        self._memories: list[Memory] = []

    def clear(self) -> None:  # noqa: D102
        self._count: Tensor | None = None

    def add(self, time: int, step: RowsStep, memory: Memory) -> None:  # noqa: D102
        if step.cut is None:
            return
        if self._count is None:
            self._begin(step, memory)
        for slot in range(self._slots):
            here = step.cut & (self._count == slot)  # here: (B,)
            self._times[slot].masked_fill_(here, time)
            for kept, new in ((self._kept[slot], step.final), (self._memories[slot], memory)):
                for key, value in kept.items():
                    replace(value, here, new[key])
        self._count += step.cut

    def _begin(self, step: RowsStep, memory: Memory) -> None:
        """Room, filled with observations that are whole, though none of these is used."""
        self._count = torch.zeros(self._size, dtype=torch.int64, device=step.cut.device)
        self._times = self._count.repeat(self._slots, 1)  # (slots, B)
        if not self._kept:
            self._kept = [_copy(step.final) for _ in range(self._slots)]
            self._memories = [_copy(memory) for _ in range(self._slots)]

    def bootstrap(self, rewards: Tensor, gamma: float, predict: Predict) -> None:
        """As said above. Waits for the device.

        Raises:
            RuntimeError: a row was cut more often than its time limit lets it.
        """
        if self._count is None:
            return
        most = int(self._count.max())
        if most > self._slots:
            raise RuntimeError(f"a row was cut {most} times in {len(rewards)} steps, not {self._slots}")
        values = predict(_joined(self._kept), _joined(self._memories)).view(self._slots, self._size)
        used = torch.arange(self._slots, device=values.device)[:, None] < self._count  # (slots, B)
        rewards.scatter_add_(0, self._times, torch.where(used, gamma * values, 0.0))


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in tensors.items()}


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
