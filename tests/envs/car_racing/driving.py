"""A driver that follows the middle of the road, and Gymnasium's car without its pictures."""

from __future__ import annotations

import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing

from somite.envs.car_racing.simulation import STATE_NAMES, Racing, Tracks, read_cars

RIGHT, FORWARD = STATE_NAMES.index("ahead_right_5"), STATE_NAMES.index("ahead_forward_5")


class Unseen(CarRacing):
    """Gymnasium's own physics; it draws nothing."""

    def _render(self, mode: str) -> None:
        return None


class Driver:
    """Steers towards the road ahead, at a modest speed, with some noise.

    Args:
        env: whose car it drives.
        seed: of the noise.
    """

    def __init__(self, env: Racing, seed: int = 0, noise: float = 0.1) -> None:
        self._env, self._tracks = env, Tracks(1)
        self._tracks.set(0, env)
        self._states = np.zeros((1, len(STATE_NAMES)), np.float32)
        self._rng, self._noise = np.random.default_rng(seed), noise

    def act(self) -> np.ndarray:
        """(3,) steering, gas, brake."""
        self._tracks.read([0], read_cars([self._env]), self._states)
        (state,) = self._states
        steering = np.arctan2(state[RIGHT], state[FORWARD]) + self._noise * self._rng.normal()
        slow = state[0] < 35.0
        return np.array([np.clip(steering, -1, 1), 0.4 * slow, 0.1 * (not slow) + 0.05 * self._rng.random()])
