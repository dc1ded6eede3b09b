"""What each slot keeps of how it has gone so far: running statistics, and how it goes along with actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SMALLEST = 1e-4
"""Deviations below it are taken for it."""

OUTLIER = 3.0
WARM = 4.0
"""Once a trace weighs `WARM` steps, changes beyond `OUTLIER` of its deviations are shortened to that: when
another channel comes to a slot, its reading jumps, and one jump would outweigh a hundred steps."""

STATISTICS = ("mean", "deviation", "deviation of changes", "age")
"""What a trace tells before the correlations with the actions."""


def trace_size(n_actions: int) -> int:
    """Numbers that one trace of a slot tells."""
    return len(STATISTICS) + n_actions


class Traces:
    """Exponentially weighted statistics of B rows of N slots, for each of T lengths.

    Of the readings, mean and deviation; of their changes from step to step, the deviation and the
    correlation with each of the actions that led to them, by which a slot is known long after a history of
    a few steps has forgotten. Weighted means m, variances v and covariances c go on as

        m += a (x - m),    v = (1 - a) (v + a (x - m)^2),    c = (1 - a) (c + a (x - m) (y - m_y))

    with a = 1 / (sum of weights), after West, "Updating mean and variance estimates: an improved method",
    Communications of the ACM 22, 1979: the first steps weigh as much as the later, and nothing cancels in
    single precision.

    Args:
        lengths: (T,) steps in which a weight falls to 1/e.
        num_envs: B.
        n_slots: N.
        n_actions: A.
    """

    def __init__(self, lengths: Sequence[float], num_envs: int, n_slots: int, n_actions: int) -> None:
        self._decay = np.exp(-1 / np.asarray(lengths, float)).astype(np.float32)  # (T,)

        def zeros(*size: int) -> np.ndarray:
            return np.zeros((num_envs, n_slots, len(lengths), *size), np.float32)

        self._weight, self._mean, self._variance = zeros(), zeros(), zeros()
        self._change, self._change_variance = zeros(), zeros()
        self._action, self._action_variance = zeros(n_actions), zeros(n_actions)
        self._covariance = zeros(n_actions)

    def start(self, rows: np.ndarray) -> None:
        """Begin anew in ``rows``."""
        for values in (self._weight, self._mean, self._variance, self._change, self._change_variance):
            values[rows] = 0
        for values in (self._action, self._action_variance, self._covariance):
            values[rows] = 0

    def enter(self, readings: np.ndarray, changes: np.ndarray, actions: np.ndarray, goes: np.ndarray) -> None:
        """Take in a step.

        Args:
            readings: (B, N), the newest.
            changes: (B, N) from the reading before.
            actions: (B, A) that led to them.
            goes: (B, N) bool, slots that have a reading now and had one before; the others wait.
        """
        goes = goes[..., None]  # goes: (B, N, 1)
        weight = self._weight * self._decay + 1  # weight: (B, N, T)
        rate = np.where(goes, 1 / weight, 0).astype(np.float32)  # where it is 0, all stays as it is
        keeps = 1 - rate
        apart = readings[..., None] - self._mean
        self._mean += rate * apart
        self._variance = keeps * (self._variance + rate * apart**2)
        bound = np.maximum(OUTLIER * np.sqrt(self._change_variance), SMALLEST)
        bound[self._weight < WARM] = np.inf
        apart = np.clip(changes[..., None] - self._change, -bound, bound)
        self._change += rate * apart
        self._change_variance = keeps * (self._change_variance + rate * apart**2)
        np.copyto(self._weight, weight, where=goes)
        rate, keeps, apart = rate[..., None], keeps[..., None], apart[..., None]
        action = actions[:, None, None] - self._action  # action: (B, N, T, A)
        self._action += rate * action
        self._action_variance = keeps * (self._action_variance + rate * action**2)
        self._covariance = keeps * (self._covariance + rate * apart * action)

    def read(self) -> np.ndarray:
        """(B, N, T * (4 + A)), of each length `STATISTICS`, deviations as logarithms, and correlations."""
        deviations = np.sqrt(np.stack((self._variance, self._change_variance), -1)).clip(SMALLEST)
        age = self._weight * (1 - self._decay)
        products = deviations[..., 1:] * np.sqrt(self._action_variance).clip(SMALLEST)
        told = (self._mean[..., None], np.log(deviations), age[..., None], self._covariance / products)
        return np.concatenate(told, -1).reshape(*self._weight.shape[:2], -1)
