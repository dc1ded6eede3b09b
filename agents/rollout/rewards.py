"""What a learner makes of rewards: units of each body's returns, and what truncated episodes lead to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...envs.in_place import replace
from ...envs.snapshots import Misfit, put, take
from ..policies.base import Memory

REWARD_CLIP = 10.0
FIRST_COUNT = 1e-4
"""Weight of the mean 0 and the variance 1 that the statistics begin with."""
_KEPT = ("_returns",)


class RewardScaling:
    """Divides rewards by a running deviation of the discounted return, one for each body.

    This is what Stable-Baselines3's ``VecNormalize`` does with rewards, kept for each body apart: a body that
    returns 3000 and one that returns 300 ask the same of the critic, and their advantages weigh the same
    before they are normalised together. Only the learner sees scaled rewards; logs and evaluation stay raw.

    Args:
        body_of_row: (B,) int, from 0 on; M bodies.
        gamma: discount of the return.
        device: of the rewards.
    """

    def __init__(self, body_of_row: np.ndarray, gamma: float, device: torch.device) -> None:
        self.gamma = gamma
        rows = np.bincount(body_of_row)  # rows: (M,) of each body
        # A product with a matrix, and no sum by index: on a GPU that one adds in another order every time.
        shares = (np.arange(len(rows))[:, None] == body_of_row) / rows[:, None]
        self._shares = torch.from_numpy(shares).to(device)  # (M, B), of a row in its body's mean
        self._rows = torch.from_numpy(rows.astype(float)).to(device)
        self._body = torch.from_numpy(body_of_row.astype(np.int64)).to(device)
        # Of each body's discounted returns so far, (M,) float64.
        self.mean, self.var = torch.zeros_like(self._rows), torch.ones_like(self._rows)
        self.count = torch.full_like(self._rows, FIRST_COUNT)
        self._returns = torch.zeros(len(body_of_row), dtype=torch.float64, device=device)

    def __call__(self, rewards: Tensor, ended: Tensor) -> Tensor:
        """Scaled rewards (B,) float32 of raw ones (B,) of a step in which episodes (B,) bool have ended."""
        rewards = rewards.float()
        self._returns = self._returns * self.gamma + rewards
        self._update()
        scaled = (rewards / self.scale()).clamp(-REWARD_CLIP, REWARD_CLIP)
        self._returns.masked_fill_(ended, 0.0)
        return scaled.float()

    def _update(self) -> None:
        """Merge the present returns: Chan, Golub, LeVeque, "Updating formulae …", 1982."""
        new_mean = self._shares @ self._returns
        new_var = self._shares @ (self._returns - new_mean[self._body]).square()
        delta, count = new_mean - self.mean, self.count + self._rows
        squares = self.var * self.count + new_var * self._rows
        self.var = (squares + delta.square() * self.count * self._rows / count) / count
        self.mean = self.mean + delta * self._rows / count
        self.count = count

    def scale(self) -> Tensor:
        """(B,) float64, what each row's reward is divided by."""
        return (self.var + 1e-8).sqrt()[self._body]

    def begin_episodes(self) -> None:
        """All environments start new episodes."""
        self._returns.zero_()

    def snapshot(self) -> dict[str, Any]:
        """The scales of the rewards, and the discounted returns of the environments."""
        statistics = torch.stack((self.mean, self.var, self.count), 1).tolist()
        return {**take(self, _KEPT), "statistics": statistics}

    def restore(self, taken: Mapping[str, Any], begun_anew: Tensor) -> None:
        """Inverse of `snapshot`; environments (B,) that have ``begun_anew`` have no return yet.

        Raises:
            Misfit: of other environments.
        """
        put(self, _KEPT, {name: taken[name] for name in _KEPT})
        self._returns.masked_fill_(begun_anew.to(self._returns.device), 0.0)
        self.restore_statistics(taken)

    def restore_statistics(self, taken: Mapping[str, Any]) -> None:
        """The rewards' scales of a snapshot alone. Raises Misfit: of other bodies."""
        if len(taken["statistics"]) != len(self.mean):
            raise Misfit(f"rewards of {len(self.mean)} bodies, not of {len(taken['statistics'])}")
        kept = torch.tensor(taken["statistics"], dtype=torch.float64, device=self.mean.device)
        self.mean, self.var, self.count = kept.unbind(1)


Observation = dict[str, Tensor]
Predict = Callable[[Observation, Memory], Tensor]


class KnownCuts:
    """What a rollout cut of environments whose ends the host knows: it keeps these, and no others."""

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
            memory: (B, ...) each, after the policy has acted on the observations before those.
        """
        rows = cut.nonzero().flatten()
        if len(rows):
            found = {key: value.index_select(0, rows) for key, value in final.items()}
            rows = rows.to(next(iter(memory.values())).device) if memory else rows
            own = {key: value.index_select(0, rows) for key, value in memory.items()}
            self._kept.append((torch.full_like(rows, time), rows, found, own))

    def bootstrap(self, rewards: Tensor, gamma: float, predict: Predict) -> None:
        """Add to the rewards (T, B) of the last steps what they lead to, in place.

        ``predict`` gives values (n,) of observations and memories, which ``gamma`` discounts.
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
    """The same where only the device knows which were cut: each environment has room for ``slots`` cuts."""

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
