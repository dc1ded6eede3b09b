"""Episodes of a rollout, added up where the rows are simulated and read once at the rollout's end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...envs.snapshots import Kept


@dataclass(frozen=True)
class Episodes:
    """Whole episodes that have ended, in the order of steps, then of rows.

    Attributes:
        returns: (E,) float64, of raw rewards.
        lengths: (E,) int, steps.
        bodies: (E,) int, indices of the rows' bodies.
    """

    returns: np.ndarray
    lengths: np.ndarray
    bodies: np.ndarray


class EpisodeRecords(Kept):
    """Returns and lengths of episodes, and how many simulations have diverged.

    Between two readings nothing waits for the device.

    Args:
        body_of_row: (B,) int.
        device: of the rows.

    Attributes:
        diverged: (M,) int, simulations of each body that have diverged until the last reading.
    """

    kept = ("diverged", "_returns", "_lengths")

    def __init__(self, body_of_row: np.ndarray, device: torch.device) -> None:
        size = len(body_of_row)
        self.body_of_row = body_of_row
        self.diverged = np.zeros(int(body_of_row.max()) + 1, int)
        self._returns = torch.zeros(size, dtype=torch.float64, device=device)
        self._lengths = torch.zeros(size, dtype=torch.int64, device=device)
        self._bad_steps = torch.zeros(size, dtype=torch.float64, device=device)
        self._told: list[Tensor] = []

    def add(self, rewards: Tensor, ended: Tensor, whole: Tensor, diverged: Tensor) -> None:
        """A step of all rows.

        Args:
            rewards: (B,) raw.
            ended: (B,) bool.
            whole: (B,) bool, rows whose episode has ended and is one to be told of.
            diverged: (B,) bool.
        """
        self._returns += rewards
        self._lengths += 1
        self._bad_steps += diverged
        self._told.append(torch.stack((whole.double(), self._returns, self._lengths.double())))
        self.begin(ended)

    def begin(self, rows: Tensor) -> None:
        """New episodes begin in ``rows`` (B,) bool."""
        self._returns.masked_fill_(rows, 0.0)
        self._lengths.masked_fill_(rows, 0)

    def read(self) -> Episodes:
        """The whole episodes since the last reading. Waits for the device."""
        told = torch.stack([*self._told, self._bad_steps.expand(3, -1)]).cpu().numpy()  # (T + 1, 3, B)
        np.add.at(self.diverged, self.body_of_row, told[-1, 0].astype(int))
        self._told = []
        self._bad_steps.zero_()
        steps, rows = np.nonzero(told[:-1, 0])
        returns, lengths = told[steps, 1, rows], told[steps, 2, rows]
        return Episodes(returns, lengths.astype(int), self.body_of_row[rows])
