"""What ``gymnasium.make`` and ``gymnasium.make_vec`` call for CarRacing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from ..errors import UserError
from ..gym import SingleEnv
from ..sensors import Senses, SensorVectorEnv
from .scenery import Scenery
from .task import CarRacing


def make_vec(
    num_envs: int = 1,
    senses: Senses | Mapping[str, Any] | None = None,
    scenery: Scenery | Mapping[str, Any] | None = None,
    threads: int = 0,
    view: str = "patches",
    patch_size: int = 6,
    grey: bool = True,
    indicators: bool = False,
    renderer: str = "somite",
    action_repeat: int = 1,
    max_episode_steps: int = 1000,
    patience: int = 0,
    slips: float = 0.0,
    **options: Any,
) -> SensorVectorEnv:
    """``num_envs`` cars; a token is a patch in the last four frames, unless ``senses`` says otherwise.

    Args:
        num_envs: rows.
        senses: what happens to the patches, or its arguments.
        scenery: how the world looks, or its arguments.
        threads: worker processes; 0 for one per core, where there are rows enough.
        view: as in `CarRacing`.
        patch_size: likewise.
        grey: likewise.
        indicators: likewise.
        renderer: likewise.
        action_repeat: likewise.
        max_episode_steps: likewise.
        patience: likewise.
        slips: likewise.
        options: of `SensorVectorEnv`.
    """
    senses = Senses(**{"history": 4, **(senses or {})}) if not isinstance(senses, Senses) else senses
    scenery = Scenery(**scenery) if isinstance(scenery, Mapping) else scenery
    task = CarRacing(
        senses,
        scenery,
        view,
        patch_size,
        grey,
        indicators,
        renderer,
        action_repeat,
        max_episode_steps,
        patience,
        slips,
    )
    return SensorVectorEnv(task.make_source(num_envs, threads), task.senses, **options)


class RacingEnv(SingleEnv):
    """One car as an ordinary Gymnasium environment.

    Args:
        render_mode: None or ``rgb_array``, the picture of 96 x 96 in colours.
        options: of :func:`make_vec`.

    Raises:
        UserError: another render mode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode {render_mode!r} is not offered; choices: None, rgb_array")
        super().__init__(make_vec(1, autoreset_mode=AutoresetMode.DISABLED, **options), render_mode)

    def render(self) -> np.ndarray | None:
        """(96, 96, 3) uint8, what the world looks like."""
        return self.vector.source.pictures[0].copy() if self.render_mode else None
