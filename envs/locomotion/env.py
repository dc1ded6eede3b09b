"""One body as an ordinary Gymnasium environment: the vector environment with one row."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from ..errors import UserError
from ..gym import SingleEnv
from .pictures.rendering import BodyRenderer
from .vector_env import LocomotionVectorEnv


class LocomotionEnv(SingleEnv):
    """A single body.

    Args:
        body: name of a family member, or a morphology.
        render_mode: None or ``rgb_array``.
        width, height: of the pictures, in pixels.
        options: of :class:`LocomotionVectorEnv`: ``task``, ``frame_skip`` and so on.

    Raises:
        UserError: unknown body or render mode, or no way to draw on this machine.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        body: Any = "cheetah_7_full",
        render_mode: str | None = None,
        width: int = 480,
        height: int = 320,
        **options: Any,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode {render_mode!r} is not offered; choices: None, rgb_array")
        vector = LocomotionVectorEnv([body], 1, autoreset_mode=AutoresetMode.DISABLED, threads=1, **options)
        super().__init__(vector, render_mode)
        dt = self.vector.step_duration
        self.metadata = {**self.metadata, "render_fps": round(1 / dt)}
        self._renderer = BodyRenderer(self.vector, width, height) if render_mode == "rgb_array" else None

    def render(self) -> np.ndarray | None:
        """(height, width, 3) uint8 picture from the side, following the body."""
        return None if self._renderer is None else self._renderer.picture(0)

    def close(self) -> None:
        """Release the renderer and the simulation."""
        if self._renderer is not None:
            self._renderer.close()
        super().close()
