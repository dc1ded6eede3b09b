"""What ``gymnasium.make`` and ``gymnasium.make_vec`` call for tasks of sensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import AutoresetMode

from ..gym import SingleEnv
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


class SwingUpEnv(SingleEnv):
    """One cart as an ordinary Gymnasium environment.

    Args:
        options: of :func:`make_swingup_vec`.
    """

    def __init__(self, render_mode: None = None, **options: Any) -> None:
        super().__init__(make_swingup_vec(1, autoreset_mode=AutoresetMode.DISABLED, **options), render_mode)
