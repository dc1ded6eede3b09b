"""Running statistics of slots on a device: see `somite.envs.sensors.traces`, whose formulas these are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...in_place import clear
from ..traces import OUTLIER, SMALLEST, WARM
from .kept import KeptTensors


class TensorTraces(KeptTensors):
    """What `ReadingTraces` tells of B rows of N slots that show numbers.

    Two values are followed, C = 2: a reading and its change; outliers of the change are shortened.

    Args:
        lengths: (T,) steps in which a weight falls to 1/e.
        num_envs: B.
        n_slots: N.
        n_actions: A.
        device: of all tensors.
    """

    kept = ("_weight", "_mean", "_variance", "_action", "_action_variance", "_covariance")

    def __init__(
        self, lengths: Sequence[float], num_envs: int, n_slots: int, n_actions: int, device: torch.device
    ) -> None:
        decay = np.exp(-1 / np.asarray(lengths, float)).astype(np.float32)  # decay: (T,)
        self._decay = torch.from_numpy(decay).to(device)
        self._may_jump = torch.tensor([False, True], device=device)  # (C,)

        def zeros(*size: int) -> Tensor:
            return torch.zeros(num_envs, n_slots, len(lengths), *size, device=device)

        self._weight = zeros()
        self._mean, self._variance = zeros(2), zeros(2)
        self._action, self._action_variance = zeros(n_actions), zeros(n_actions)
        self._covariance = zeros(2, n_actions)

    def start(self, where: Tensor) -> None:
        """Begin anew in the rows that ``where`` (B,) names."""
        for name in self.kept:
            clear(getattr(self, name), where)

    def enter(self, now: Tensor, before: Tensor, actions: Tensor, goes: Tensor) -> None:
        """Take in a step.

        Args:
            now: readings (B, N) after the step.
            before: those before it.
            actions: (B, A) between them.
            goes: (B, N) bool, slots that take it in; the others wait.
        """
        values = torch.stack((now, now - before), -1)  # values: (B, N, C)
        goes = goes.unsqueeze(-1)
        weight = self._weight * self._decay + 1  # weight: (B, N, T)
        rate = torch.where(goes, 1 / weight, 0.0).unsqueeze(-1)  # where 0, all stays as it is
        apart = values.unsqueeze(2) - self._mean  # apart: (B, N, T, C)
        bound = (OUTLIER * self._variance.sqrt()).clamp(min=SMALLEST)
        bounded = self._may_jump & (self._weight >= WARM).unsqueeze(-1)
        apart = torch.where(bounded, apart.clamp(-bound, bound), apart)
        self._weight.copy_(torch.where(goes, weight, self._weight))
        keeps = 1 - rate
        self._mean += rate * apart
        self._variance.copy_(keeps * (self._variance + rate * apart.square()))
        action = actions[:, None, None] - self._action  # action: (B, N, T, A)
        self._action += rate * action
        self._action_variance.copy_(keeps * (self._action_variance + rate * action.square()))
        self._covariance += (rate * apart).unsqueeze(-1) * action.unsqueeze(-2)
        self._covariance *= keeps.unsqueeze(-1)

    def read(self) -> Tensor:
        """(B, N, T * (4 + A)) float32: see `ReadingTraces`."""
        deviations = self._variance.sqrt().clamp(min=SMALLEST)  # deviations: (B, N, T, C)
        of_actions = self._action_variance.sqrt().clamp(min=SMALLEST)
        correlations = self._covariance[..., 1, :] / (deviations[..., 1:] * of_actions)
        ages = self._weight * (1 - self._decay)
        told = (self._mean[..., :1], deviations.log(), ages.unsqueeze(-1), correlations)
        return torch.cat(told, -1).flatten(2)
