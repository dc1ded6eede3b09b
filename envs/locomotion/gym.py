"""Bodies as Gymnasium's environments: what ``gymnasium.make`` and ``make_vec`` give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..gym import SingleEnv, TokenVectorEnv
from .bodies.morphology import Morphology
from .env import LocomotionEnv
from .pictures.rendering import BodyRenderer
from .task import LocomotionTask


class BodyEnv(SingleEnv):
    """A single ``body``: name of a family member, or a morphology; ``options`` are those of `LocomotionEnv`.

    Raises:
        UserError: unknown body or render mode, or no way to draw on this machine.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        body: str | Morphology = "cheetah_7_full",
        render_mode: str | None = None,
        width: int = 480,
        height: int = 320,
        **options: Any,
    ) -> None:
        env = LocomotionEnv([body], 1, autoreset=False, threads=1, **options)
        super().__init__(TokenVectorEnv(env), render_mode)
        self.metadata = {**self.metadata, "render_fps": round(1 / env.step_duration)}
        self._renderer = BodyRenderer(env, width, height) if render_mode == "rgb_array" else None

    def render(self) -> np.ndarray | None:
        """(height, width, 3) uint8 picture from the side, following the body."""
        return None if self._renderer is None else self._renderer.picture(0)

    def close(self) -> None:
        """Release the renderer and the simulation."""
        if self._renderer is not None:
            self._renderer.close()
        super().close()


def make_vec(
    bodies: Sequence[str | Morphology] | None = None,
    num_envs: int | None = None,
    task: LocomotionTask | None = None,
    *,
    body: str | Morphology = "cheetah_7_full",
    **options: Any,
) -> TokenVectorEnv:
    """Rows of one ``body``, or spread over several ``bodies``; ``options`` are those of `LocomotionEnv`."""
    return TokenVectorEnv(LocomotionEnv([body] if bodies is None else bodies, num_envs, task, **options))
