"""What ``gymnasium.make`` gives: a vector environment with one row as an ordinary environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv


class SingleEnv(gymnasium.Env):
    """One row.

    Args:
        vector: with one row, autoreset off.
        render_mode: as Gymnasium says; what is drawn is a subclass's.
    """

    metadata = {"render_modes": []}

    def __init__(self, vector: VectorEnv, render_mode: str | None = None) -> None:
        self.vector, self.render_mode = vector, render_mode
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        observation, info = self.vector.reset(seed=seed)
        return _row(observation), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance; ``action`` is nominal."""
        observation, reward, terminated, truncated, info = self.vector.step(np.asarray(action)[None])
        return _row(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), _row(info)

    def close(self) -> None:
        """Let the simulation go."""
        self.vector.close()


def _row(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value[0] for key, value in values.items()}
