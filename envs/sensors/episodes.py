"""How the present episodes came about, for simulations that can be replayed but not saved."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..snapshots import Misfit

logger = logging.getLogger(__name__)

FIRST = 64
"""Steps that there is room for at first; it doubles whenever an episode is longer."""


class Episodes:
    """Of each of B rows, the seeds that its episode began with, and all actions since.

    Args:
        num_envs: B.
        n_seeds: of an episode.
        action: shape of an action.
        dtype: of an action.
    """

    def __init__(self, num_envs: int, n_seeds: int, action: tuple[int, ...], dtype: Any) -> None:
        self._seeds = np.zeros((num_envs, n_seeds), np.int64)
        self._steps = np.full(num_envs, -1)  # -1: no episode has begun
        self._actions = np.zeros((num_envs, FIRST, *action), dtype)

    def start(self, rows: Sequence[int] | np.ndarray, seeds: Any) -> None:
        """Episodes begin in ``rows`` (n,) with ``seeds`` (n, seeds)."""
        self._seeds[rows], self._steps[rows] = seeds, 0

    def enter(self, actions: np.ndarray, running: np.ndarray) -> None:
        """The rows that are ``running`` (B,) bool do ``actions`` (B, ...)."""
        rows = np.flatnonzero(running)
        if len(rows) and self._steps[rows].max() == self._actions.shape[1]:
            self._actions = np.concatenate((self._actions, np.zeros_like(self._actions)), 1)
        self._actions[rows, self._steps[rows]] = actions[rows]
        self._steps[rows] += 1

    def begun(self, row: int) -> bool:
        """Whether a row has an episode."""
        return bool(self._steps[row] >= 0)

    def of(self, row: int) -> tuple[tuple[int, ...], np.ndarray]:
        """Seeds, and a copy of the actions (steps, ...) of a row's episode."""
        return tuple(self._seeds[row].tolist()), self._actions[row, : self._steps[row]].copy()

    def snapshot(self) -> dict[str, torch.Tensor]:
        """All of it, no longer than the longest episode."""
        length = max(int(self._steps.max()), 0)
        parts = {"seeds": self._seeds, "steps": self._steps, "actions": self._actions[:, :length]}
        return {name: torch.from_numpy(values.copy()) for name, values in parts.items()}

    def restore(self, taken: Mapping[str, Any]) -> None:
        """Inverse of `snapshot`. Raises Misfit: other rows, seeds or actions; nothing is changed then."""
        seeds, steps, actions = (taken[name].numpy() for name in ("seeds", "steps", "actions"))
        for name, own, other in (
            ("seeds", self._seeds.shape, seeds.shape),
            ("steps", self._steps.shape, steps.shape),
            ("an action", self._actions[:, 0].shape, (len(actions), *actions.shape[2:])),
        ):
            if own != other:
                raise Misfit(f"episodes have {name} of {own}, the snapshot of {other}")
        if actions.dtype != self._actions.dtype:
            raise Misfit(f"actions are {self._actions.dtype}, those of the snapshot {actions.dtype}")
        if steps.max() > actions.shape[1]:
            raise Misfit(f"an episode of the snapshot has {steps.max()} steps and {actions.shape[1]} actions")
        self._seeds[:], self._steps[:] = seeds, steps
        room = max(FIRST, actions.shape[1])
        self._actions = np.zeros((len(actions), room, *actions.shape[2:]), actions.dtype)
        self._actions[:, : actions.shape[1]] = actions


def tell_lost(task: str, lost: int, num_envs: int) -> None:
    """Say that of so many rows so many came to another place when they were replayed."""
    if lost:
        which = f"{lost} of {num_envs} rows begin anew"
        logger.warning("episodes of %s cannot be replayed; %s, so the run is no longer exact", task, which)
