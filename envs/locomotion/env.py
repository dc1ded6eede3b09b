"""One body as an ordinary Gymnasium environment: the vector environment with one row."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from ..errors import UserError
from .pictures.rendering import BodyRenderer
from .vector_env import LocomotionVectorEnv


class LocomotionEnv(gymnasium.Env):
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
        self.vector = LocomotionVectorEnv(
            [body], 1, autoreset_mode=AutoresetMode.DISABLED, threads=1, **options
        )
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space
        self.render_mode = render_mode
        dt = self.vector.step_duration
        self.metadata = {**self.metadata, "render_fps": round(1 / dt)}
        self._renderer = BodyRenderer(self.vector, width, height) if render_mode == "rgb_array" else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        observation, info = self.vector.reset(seed=seed)
        return {key: value[0] for key, value in observation.items()}, info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance; ``action`` is (N, J), nominal."""
        observation, reward, terminated, truncated, info = self.vector.step(np.asarray(action)[None])
        return (
            {key: value[0] for key, value in observation.items()},
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {key: value[0] for key, value in info.items()},
        )

    def render(self) -> np.ndarray | None:
        """(height, width, 3) uint8 picture from the side, following the body."""
        return None if self._renderer is None else self._renderer.picture(0)

    def close(self) -> None:
        """Release the renderer and the simulation."""
        if self._renderer is not None:
            self._renderer.close()
        self.vector.close()
