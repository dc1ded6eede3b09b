"""What a task of sensors gives: readings in its own order, rewards and ends, for many rows at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces

from ..snapshots import put, take


class Source(Protocol):
    """A batch of B simulations, each read by the same S sensors.

    Attributes:
        name: of the task.
        num_envs: B.
        sensor_names: of the S sensors, in the task's own (canonical) order.
        single_action_space: ``Box`` in [-1, 1] of shape (A,) (nominal), ``Discrete``, or ``MultiDiscrete`` of
            one dimension.
        max_episode_steps: steps after which an episode is cut.
        reading_shape: of one sensor's reading: () for a number, (D,) for a patch of D grey levels, uint8.
        step_duration: simulated seconds of a step, for those who look on; a guess where a task has no time.
        kept: attributes that the future depends on, where they can be copied; see `snapshot`.
    """

    name: str
    num_envs: int
    sensor_names: tuple[str, ...]
    single_action_space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete
    max_episode_steps: int
    reading_shape: tuple[int, ...] = ()
    step_duration: float = 0.02
    kept: tuple[str, ...]

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of what `read_state` tells."""
        return self.sensor_names

    def start(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Start an episode in each of ``rows``, drawn from the generator of the same place."""
        ...

    def step(self, actions: np.ndarray, running: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Advance the rows that are ``running`` (B,).

        Args:
            actions: (B, A), clipped to [-1, 1], or whole numbers (B,) or (B, K).
            running: rows whose episode goes on; what is told of the others has no meaning.

        Returns:
            rewards (B,) float64, terminated (B,) bool, and (B,) bool where the task itself cut the episode.
        """
        ...

    def step_begin(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Begin what `step` does; until `step_finish` nothing else may be asked.

        Where other processes simulate they do so from now on. Elsewhere all of it waits for `step_finish`.
        """
        self._begun = actions, running

    def step_finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Finish it; what `step` returns."""
        return self.step(*self._begun)

    def read(self) -> np.ndarray:
        """(B, S, *reading_shape) readings of the present states: float32 in raw units, or uint8."""
        ...

    @property
    def diverged(self) -> np.ndarray:
        """(B,) bool, rows whose state the last step broke, though what can be read of it may be a number."""
        return np.zeros(self.num_envs, bool)

    def read_state(self, readings: np.ndarray) -> np.ndarray:
        """(B, P) float32, what critics and teachers may see: the readings, or what stands behind pictures.

        Args:
            readings: what `read` gave last.
        """
        return readings

    def snapshot(self) -> dict[str, Any]:
        """What the present episodes go on from, as plain values and tensors."""
        return take(self, self.kept)

    def restore(self, taken: Mapping[str, Any]) -> np.ndarray:
        """Inverse of `snapshot`, for a source that was made in the same way.

        Returns:
            Indices of the rows that could not be brought back; they are to start anew.

        Raises:
            Misfit: the snapshot is of another source.
        """
        put(self, self.kept, taken)
        return np.zeros(0, int)

    def close(self) -> None:
        """Let the simulations go."""
        ...
