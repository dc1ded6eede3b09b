"""What a task of scalar sensors gives: readings in its own order, rewards and ends, for many rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from gymnasium import spaces


class Source(Protocol):
    """A batch of B simulations, each read by the same S sensors.

    Attributes:
        name: of the task.
        num_envs: B.
        sensor_names: of the S sensors, in the task's own (canonical) order.
        single_action_space: ``Box`` in [-1, 1] of shape (A,) (nominal), or ``Discrete``.
        max_episode_steps: steps after which an episode is cut.
    """

    name: str
    num_envs: int
    sensor_names: tuple[str, ...]
    single_action_space: spaces.Box | spaces.Discrete
    max_episode_steps: int

    def start(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Start an episode in each of ``rows``, drawn from the generator of the same place."""
        ...

    def step(self, actions: np.ndarray, running: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Advance the rows that are ``running`` (B,).

        Args:
            actions: (B, A), clipped to [-1, 1], or (B,) whole numbers.
            running: rows whose episode goes on; what is told of the others has no meaning.

        Returns:
            rewards (B,) float64, terminated (B,) bool, and (B,) bool where the task itself cut the episode.
        """
        ...

    def read(self) -> np.ndarray:
        """(B, S) float32 readings of the present states, in raw units."""
        ...

    def close(self) -> None:
        """Let the simulations go."""
        ...
