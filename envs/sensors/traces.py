"""What each slot keeps of how it has gone so far: running statistics, and how it goes along with actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..snapshots import Kept

SMALLEST = 1e-4
"""Deviations below it are taken for it."""

OUTLIER = 3.0
WARM = 4.0
"""Once a trace weighs `WARM` steps, changes of a reading beyond `OUTLIER` of its deviations are shortened to
that: when another channel comes to a slot, its reading jumps, and one jump would outweigh a hundred steps."""


class Traces(Kept):
    """Exponentially weighted statistics of C values of each of B rows of N slots, for each of T lengths.

    Mean and deviation of every value, and its correlation with each of the actions that led to it. Weighted
    means m, variances v and covariances c go on as

        m += a (x - m),    v = (1 - a) (v + a (x - m)^2),    c = (1 - a) (c + a (x - m) (y - m_y))

    with a = 1 / (sum of weights), after West, "Updating mean and variance estimates: an improved method",
    Communications of the ACM 22, 1979: the first steps weigh as much as the later, and nothing cancels in
    single precision.

    Args:
        lengths: (T,) steps in which a weight falls to 1/e.
        num_envs: B.
        n_slots: N.
        n_values: C.
        n_actions: A.
    """

    kept = ("_weight", "_mean", "_variance", "_action", "_action_variance", "_covariance")

    def __init__(
        self, lengths: Sequence[float], num_envs: int, n_slots: int, n_values: int, n_actions: int
    ) -> None:
        self._decay = np.exp(-1 / np.asarray(lengths, float)).astype(np.float32)  # (T,)

        def zeros(*size: int) -> np.ndarray:
            return np.zeros((num_envs, n_slots, len(lengths), *size), np.float32)

        self._weight = zeros()
        self._mean, self._variance = zeros(n_values), zeros(n_values)
        self._action, self._action_variance = zeros(n_actions), zeros(n_actions)
        self._covariance = zeros(n_values, n_actions)

    def start(self, rows: np.ndarray) -> None:
        """Begin anew in ``rows``."""
        for kept in (self._weight, self._mean, self._variance, self._action, self._action_variance):
            kept[rows] = 0
        self._covariance[rows] = 0

    def enter(
        self, values: np.ndarray, actions: np.ndarray, goes: np.ndarray, jumps: np.ndarray | None = None
    ) -> None:
        """Take in a step.

        Args:
            values: (B, N, C).
            actions: (B, A) that led to them.
            goes: (B, N) bool, slots that take it in; the others wait.
            jumps: (C,) bool, values that are shortened where they are outliers; None: none are.
        """
        values, actions = values.astype(np.float32, copy=False), actions.astype(np.float32, copy=False)
        weight = self._weight * self._decay + 1  # weight: (B, N, T)
        rate = np.where(goes[..., None], 1 / weight, 0).astype(np.float32)  # where 0, all stays as it is
        apart = values[:, :, None] - self._mean  # apart: (B, N, T, C)
        if jumps is not None:
            bound = np.maximum(OUTLIER * np.sqrt(self._variance), SMALLEST)
            bound[self._weight < WARM] = np.inf
            bound[..., ~jumps] = np.inf
            apart = np.clip(apart, -bound, bound)
        np.copyto(self._weight, weight, where=goes[..., None])
        rate = rate[..., None]
        keeps = 1 - rate
        self._mean += rate * apart
        self._variance = keeps * (self._variance + rate * apart**2)
        action = actions[:, None, None] - self._action  # action: (B, N, T, A)
        self._action += rate * action
        self._action_variance = keeps * (self._action_variance + rate * action**2)
        self._covariance += (rate * apart)[..., None] * action[..., None, :]
        self._covariance *= keeps[..., None]

    @property
    def means(self) -> np.ndarray:
        """(B, N, T, C)."""
        return self._mean

    @property
    def deviations(self) -> np.ndarray:
        """(B, N, T, C), logarithms."""
        return np.log(np.sqrt(self._variance).clip(SMALLEST))

    @property
    def ages(self) -> np.ndarray:
        """(B, N, T): 0 at the start, 1 once the trace is as long as it gets."""
        return self._weight * (1 - self._decay)

    @property
    def correlations(self) -> np.ndarray:
        """(B, N, T, C, A)."""
        action = np.sqrt(self._action_variance).clip(SMALLEST)[..., None, :]
        return self._covariance / (np.sqrt(self._variance).clip(SMALLEST)[..., None] * action)


class ReadingTraces(Kept):
    """Traces of slots that show numbers, B rows of N slots.

    Of a reading they tell mean and deviation; of its changes from step to step the deviation and the
    correlation with each action, by which a slot is known long after a history of a few steps has forgotten.

    Args:
        lengths: T, as of `Traces`, with ``num_envs``, ``n_slots`` and ``n_actions``.
    """

    kept = ("_traces",)
    told = "mean, deviation, deviation of changes, age; correlation of changes with each action"

    def __init__(self, lengths: Sequence[float], num_envs: int, n_slots: int, n_actions: int) -> None:
        self._traces = Traces(lengths, num_envs, n_slots, 2, n_actions)
        self.start = self._traces.start

    @staticmethod
    def size(n_actions: int) -> int:
        """Numbers that are told of one length."""
        return 4 + n_actions

    def enter(self, now: np.ndarray, before: np.ndarray, actions: np.ndarray, goes: np.ndarray) -> None:
        """Take in a step: readings (B, N) now and before, actions (B, A) between, what goes (B, N) bool."""
        values = np.stack((now, now - before), -1)
        self._traces.enter(values, actions, goes, jumps=np.array([False, True]))

    def read(self) -> np.ndarray:
        """(B, N, T * (4 + A)) float32."""
        t = self._traces
        told = (t.means[..., :1], t.deviations, t.ages[..., None], t.correlations[..., 1, :])
        return np.concatenate(told, -1).reshape(*t.ages.shape[:2], -1)


class PatchTraces(Kept):
    """Traces of slots that show patches, B rows of N slots.

    Of a patch's mean level, its contrast (deviation over its pixels) and its change (mean over its pixels)
    since the step before, they tell mean, deviation and the correlation with each action. So it shows where a
    slot looks: the road's sides by what steering does to them, the far end by how much it moves.

    Args:
        lengths: T, as of `Traces`, with ``num_envs``, ``n_slots`` and ``n_actions``.
    """

    kept = ("_traces",)
    told = "mean and deviation of level, contrast and change, age; correlation of each with each action"

    def __init__(self, lengths: Sequence[float], num_envs: int, n_slots: int, n_actions: int) -> None:
        self._traces = Traces(lengths, num_envs, n_slots, 3, n_actions)
        self.start = self._traces.start

    @staticmethod
    def size(n_actions: int) -> int:
        """Numbers that are told of one length."""
        return 7 + 3 * n_actions

    def enter(self, now: np.ndarray, before: np.ndarray, actions: np.ndarray, goes: np.ndarray) -> None:
        """Take in a step: patches (B, N, D) uint8 now and before, actions (B, A), what goes (B, N) bool."""
        now, before = now.astype(np.float32) / 255, before.astype(np.float32) / 255
        values = (now.mean(-1), now.std(-1), np.abs(now - before).mean(-1))
        self._traces.enter(np.stack(values, -1), actions, goes)

    def read(self) -> np.ndarray:
        """(B, N, T * (7 + 3 A)) float32."""
        t = self._traces
        correlations = t.correlations.reshape(*t.ages.shape, -1)
        told = (t.means, t.deviations, t.ages[..., None], correlations)
        return np.concatenate(told, -1).reshape(*t.ages.shape[:2], -1)
