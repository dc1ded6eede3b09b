"""Rewards in units of each body's own returns, so that one critic fits bodies whose returns differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...envs.snapshots import Misfit, put, take

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

    Attributes:
        mean, var, count: (M,) float64, of each body's discounted returns so far.
    """

    def __init__(self, body_of_row: np.ndarray, gamma: float, device: torch.device) -> None:
        self.gamma = gamma
        rows = np.bincount(body_of_row)  # rows: (M,) of each body
        # A product with a matrix, and no sum by index: on a GPU that one adds in another order every time.
        shares = (np.arange(len(rows))[:, None] == body_of_row) / rows[:, None]
        self._shares = torch.from_numpy(shares).to(device)  # (M, B), of a row in its body's mean
        self._rows = torch.from_numpy(rows.astype(float)).to(device)
        self._body = torch.from_numpy(body_of_row.astype(np.int64)).to(device)
        self.mean, self.var = torch.zeros_like(self._rows), torch.ones_like(self._rows)
        self.count = torch.full_like(self._rows, FIRST_COUNT)
        self._returns = torch.zeros(len(body_of_row), dtype=torch.float64, device=device)

    def __call__(self, rewards: Tensor, ended: Tensor) -> Tensor:
        """Scaled rewards (B,) float32 of a step.

        Args:
            rewards: (B,) raw.
            ended: (B,) bool.
        """
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
        """All rows start new episodes."""
        self._returns.zero_()

    def snapshot(self) -> dict[str, Any]:
        """The rewards' scales and the rows' discounted returns."""
        statistics = torch.stack((self.mean, self.var, self.count), 1).tolist()
        return {**take(self, _KEPT), "statistics": statistics}

    def restore(self, taken: Mapping[str, Any], begun_anew: Tensor) -> None:
        """Inverse of `snapshot`.

        Args:
            taken: of `snapshot`.
            begun_anew: (B,) bool, environments that are at the beginning of an episode instead.

        Raises:
            Misfit: of other rows.
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
