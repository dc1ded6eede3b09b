"""What truncated episodes would have gone on to: the values of their last observations.

They are asked for all at once when the rollout ends, each with the memory that the policy had then (Pardo et
al., "Time limits in reinforcement learning", 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...envs.in_place import replace
from ..policies.base import Memory

Observation = dict[str, Tensor]
Predict = Callable[[Observation, Memory], Tensor]


class KnownCuts:
    """Of environments whose ends the host knows: those that were cut are kept, and no others."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor, Observation, Memory]] = []

    def clear(self) -> None:
        """A rollout begins."""
        self._kept = []

    def add(self, time: int, cut: Tensor, final: Observation, memory: Memory) -> None:
        """Keep what a step has cut.

        Args:
            time: of the step in the rollout.
            cut: (B,) bool, episodes that time has ended, and nothing else.
            final: their last observations, (B, ...) each.
            memory: (B, ...) each, of the policy after it has acted on the observations before those.
        """
        rows = cut.nonzero().flatten()
        if len(rows):
            found = {key: value.index_select(0, rows) for key, value in final.items()}
            rows = rows.to(next(iter(memory.values())).device) if memory else rows
            own = {key: value.index_select(0, rows) for key, value in memory.items()}
            self._kept.append((torch.full_like(rows, time), rows, found, own))

    def bootstrap(self, rewards: Tensor, gamma: float, predict: Predict) -> None:
        """Add to the rewards (T, B) of the last steps what they lead to.

        Args:
            rewards: changed in place.
            gamma: discount of the values.
            predict: values (n,) of observations and memories.
        """
        if not self._kept:
            return
        times, rows, finals, memories = zip(*self._kept, strict=True)
        device = rewards.device
        finals = {key: value.to(device) for key, value in _joined(finals).items()}
        values = predict(finals, _joined(memories))
        places = torch.cat(times).to(device), torch.cat(rows).to(device)
        rewards.index_put_(places, gamma * values, accumulate=True)


class UnknownCuts:
    """The same where only the device knows which were cut: each environment has room for some.

    Args:
        num_envs: B.
        slots: cuts of an environment that a rollout has room for.
    """

    def __init__(self, num_envs: int, slots: int) -> None:
        self._size, self._slots = num_envs, slots
        self._kept: list[Observation] = []
        self._memories: list[Memory] = []

    def clear(self) -> None:
        """A rollout begins."""
        self._count: Tensor | None = None

    def add(self, time: int, cut: Tensor, final: Observation, memory: Memory) -> None:
        """As of `KnownCuts`."""
        if self._count is None:
            # Room, filled with observations that are whole, though none of these is used.
            self._count = torch.zeros(self._size, dtype=torch.int64, device=cut.device)
            self._times = self._count.repeat(self._slots, 1)  # (slots, B)
            if not self._kept:
                self._kept = [_copy(final) for _ in range(self._slots)]
                self._memories = [_copy(memory) for _ in range(self._slots)]
        for slot in range(self._slots):
            here = cut & (self._count == slot)  # here: (B,)
            self._times[slot].masked_fill_(here, time)
            for kept, new in ((self._kept[slot], final), (self._memories[slot], memory)):
                for key, value in kept.items():
                    replace(value, here, new[key])
        self._count += cut

    def bootstrap(self, rewards: Tensor, gamma: float, predict: Predict) -> None:
        """As of `KnownCuts`; waits for the device.

        Raises:
            RuntimeError: an environment was cut more often than its time limit lets it.
        """
        if self._count is None:
            return
        most = int(self._count.max())
        if most > self._slots:
            raise RuntimeError(
                f"an environment was cut {most} times in {len(rewards)} steps, not {self._slots}"
            )
        values = predict(_joined(self._kept), _joined(self._memories)).view(self._slots, self._size)
        used = torch.arange(self._slots, device=values.device)[:, None] < self._count  # (slots, B)
        rewards.scatter_add_(0, self._times, torch.where(used, gamma * values, 0.0))


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in tensors.items()}


def _joined(parts: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
