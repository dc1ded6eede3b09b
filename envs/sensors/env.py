"""What ``gymnasium.make`` and ``gymnasium.make_vec`` call for tasks of sensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from .cartpole_swingup import CartPoleSwingUp
from .senses import Senses
from .vector_env import SensorVectorEnv


def make_swingup_vec(
    num_envs: int = 1,
    senses: Senses | Mapping[str, Any] | None = None,
    max_episode_steps: int = 1000,
    starts: str = "random",
    **options: Any,
) -> SensorVectorEnv:
    """``num_envs`` rows of the swing-up.

    Args:
        num_envs: rows.
        senses: what happens to the readings, or its arguments.
        max_episode_steps: as in `CartPoleSwingUp`.
        starts: likewise.
        options: of `SensorVectorEnv`.
    """
    senses = Senses(**senses) if isinstance(senses, Mapping) else senses
    task = CartPoleSwingUp(senses, max_episode_steps, starts)
    return SensorVectorEnv(task.make_source(num_envs), task.senses, **options)


class SwingUpEnv(gymnasium.Env):
    """One cart as an ordinary Gymnasium environment: the vector environment with one row.

    Args:
        options: of :func:`make_swingup_vec`.
    """

    metadata = {"render_modes": []}

    def __init__(self, render_mode: None = None, **options: Any) -> None:
        self.render_mode = render_mode
        self.vector = make_swingup_vec(1, autoreset_mode=AutoresetMode.DISABLED, **options)
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        observation, info = self.vector.reset(seed=seed)
        return {key: value[0] for key, value in observation.items()}, info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance; ``action`` is (1,), in [-1, 1]."""
        observation, reward, terminated, truncated, _ = self.vector.step(np.asarray(action)[None])
        row = {key: value[0] for key, value in observation.items()}
        return row, float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def close(self) -> None:
        """Let the simulation go."""
        self.vector.close()
