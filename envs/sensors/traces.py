"""What each slot keeps of how it has gone so far: running statistics, and how it goes along with actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..in_place import clear
from ..snapshots import Kept

SMALLEST = 1e-4
"""Deviations below it are taken for it."""

OUTLIER = 3.0
WARM = 4.0
"""Once a trace weighs `WARM` steps, changes of a reading beyond `OUTLIER` of its deviations are shortened to
that: when another channel comes to a slot, its reading jumps, and one jump would outweigh a hundred steps."""


class Traces(Kept):
    """Exponentially weighted statistics of C values of each of B environments' N slots, for T lengths.

    Of a slot that shows numbers, C = 2: the reading and its change. They tell mean and deviation of the
    reading, the deviation of the change, and its correlation with each action, by which a slot is known long
    after a history of a few steps has forgotten. Of a patch, C = 3: its mean level, its contrast (deviation
    over its pixels) and its change (mean over them) since the step before; of each they tell mean, deviation
    and correlation. So it shows where a slot looks: the road's sides by what steering does to them.

    Weighted means m, variances v and covariances c go on as

        m += a (x - m),    v = (1 - a) (v + a (x - m)^2),    c = (1 - a) (c + a (x - m) (y - m_y))

    with a = 1 / (sum of weights), after West, "Updating mean and variance estimates: an improved method",
    Communications of the ACM 22, 1979: the first steps weigh as much as the later, and nothing cancels in
    single precision.

    Args:
        lengths: (T,) steps in which a weight falls to 1/e.
        num_envs, n_slots, n_actions: B, N, A.
        are_patches: whether slots show patches.
        device: of all tensors.
    """

    kept = ("_weight", "_mean", "_variance", "_action", "_action_variance", "_covariance")

    def __init__(
        self,
        lengths: Sequence[float],
        num_envs: int,
        n_slots: int,
        n_actions: int,
        are_patches: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        decay = np.exp(-1 / np.asarray(lengths, float)).astype(np.float32)  # decay: (T,)
        self._decay = torch.from_numpy(decay).to(device)
        self._are_patches, n_values = are_patches, 3 if are_patches else 2
        self._may_jump = torch.tensor([False, True], device=device)  # (C,)

        def zeros(*size: int) -> Tensor:
            return torch.zeros(num_envs, n_slots, len(lengths), *size, device=device)

        self._weight = zeros()
        self._mean, self._variance = zeros(n_values), zeros(n_values)
        self._action, self._action_variance = zeros(n_actions), zeros(n_actions)
        self._covariance = zeros(n_values, n_actions)

    @staticmethod
    def size(n_actions: int, are_patches: bool) -> int:
        """Numbers that are told of one length."""
        return 7 + 3 * n_actions if are_patches else 4 + n_actions

    @staticmethod
    def meaning(are_patches: bool) -> str:
        """Of these numbers."""
        # Saved policies are refused where it differs from what they were trained with: words must not change.
        if are_patches:
            told = "mean and deviation of level, contrast and change, age"
            return f"{told}; correlation of each with each action"
        return "mean, deviation, deviation of changes, age; correlation of changes with each action"

    def start(self, where: Tensor) -> None:
        """Begin anew in the environments that ``where`` (B,) names."""
        for name in self.kept:
            clear(getattr(self, name), where)

    def enter(self, now: Tensor, before: Tensor, actions: Tensor, goes: Tensor) -> None:
        """Take in a step.

        Args:
            now: readings (B, N) float32, or patches (B, N, D) uint8, after it.
            before: those before it.
            actions: (B, A) between them.
            goes: (B, N) bool, slots that take it in; the others wait.
        """
        if self._are_patches:
            now, before = now.float() / 255, before.float() / 255
            values = (now.mean(-1), now.std(-1, correction=0), (now - before).abs().mean(-1))
        else:
            values = (now, now - before)
        goes = goes.unsqueeze(-1)
        weight = self._weight * self._decay + 1  # weight: (B, N, T)
        rate = torch.where(goes, 1 / weight, 0.0).unsqueeze(-1)  # where 0, all stays as it is
        apart = torch.stack(values, -1).unsqueeze(2) - self._mean  # apart: (B, N, T, C)
        if not self._are_patches:
            bound = (OUTLIER * self._variance.sqrt()).clamp_(min=SMALLEST)
            bounded = self._may_jump & (self._weight >= WARM).unsqueeze(-1)
            apart = torch.where(bounded, apart.clamp(-bound, bound), apart)
        self._weight.copy_(torch.where(goes, weight, self._weight))
        keeps = 1 - rate
        step = rate * apart
        self._mean += step
        self._variance.addcmul_(step, apart).mul_(keeps)
        action = actions[:, None, None] - self._action  # action: (B, N, T, A)
        action_step = rate * action
        self._action += action_step
        self._action_variance.addcmul_(action_step, action).mul_(keeps)
        self._covariance.addcmul_(step.unsqueeze(-1), action.unsqueeze(-2)).mul_(keeps.unsqueeze(-1))

    def read(self) -> Tensor:
        """(B, N, T * size) float32."""
        deviations = self._variance.sqrt().clamp_(min=SMALLEST)  # deviations: (B, N, T, C)
        of_actions = self._action_variance.sqrt().clamp_(min=SMALLEST)
        ages = (self._weight * (1 - self._decay)).unsqueeze(-1)  # 1 once a trace is as long as it gets
        means, first = (self._mean, 0) if self._are_patches else (self._mean[..., :1], 1)
        scales = deviations[..., first:, None] * of_actions.unsqueeze(-2)
        correlations = (self._covariance[..., first:, :] / scales).flatten(3)
        return torch.cat((means, deviations.log(), ages, correlations), -1).flatten(2)
