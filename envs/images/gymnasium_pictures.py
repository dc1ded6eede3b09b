"""Any registered Gymnasium environment that observes pictures, as a source of patches, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ..errors import UserError
from ..sensors.gymnasium_source import GymnasiumSource
from .patches import check_patch, cut, patch_names


def picture_shape(env: gymnasium.Env) -> tuple[int, int, int]:
    """Height, width and colours. Raises UserError for observations that are no pictures."""
    space = env.observation_space
    shape = space.shape if isinstance(space, spaces.Box) else None
    if shape is None or space.dtype != np.uint8 or len(shape) not in (2, 3) or (*shape, 1)[2] not in (1, 3):
        raise UserError(
            f"{env.spec.id} observes {space}, which is no picture; patches are cut from a Box of uint8 of "
            "two or three dimensions, the third of 1 or 3 colours; numbers are read by env=gymnasium"
        )
    return shape[0], shape[1], (*shape, 1)[2]


class GymnasiumPictures(GymnasiumSource):
    """B environments, each stepped by itself; a :class:`~somite.envs.sensors.source.Source`.

    Args:
        num_envs: B.
        env_id: of a registered environment.
        kwargs: its own arguments.
        max_episode_steps: steps after which an episode is cut.
        size: height and width that pictures are shrunk to; None: as they are.
        patch_size: pixels of a patch's side.
        grey: grey levels, or colours.

    Attributes:
        pictures: (B, H, W, 3) uint8, what the environments show.

    Raises:
        UserError: an environment that cannot be made, or whose spaces do not fit.
    """

    def __init__(
        self,
        num_envs: int,
        env_id: str,
        kwargs: Mapping[str, Any],
        max_episode_steps: int,
        size: tuple[int, int] | None,
        patch_size: int,
        grey: bool,
    ) -> None:
        self._size, self._patch, self._grey = size, patch_size, grey
        super().__init__(num_envs, env_id, kwargs, max_episode_steps)

    def _make_room(self) -> None:
        height, width, colors = picture_shape(self._envs[0])
        height, width = self._size or (height, width)
        check_patch(height, width, self._patch)
        colors = 1 if self._grey else colors
        grid = (height // self._patch, width // self._patch)
        self.sensor_names = patch_names(*grid)
        self.reading_shape = (self._patch * self._patch * colors,)
        self.sizes = {"grid": grid, "patch_size": self._patch}
        self.pictures = np.zeros((self.num_envs, height, width, 3), np.uint8)
        self._shown = np.zeros((self.num_envs, height, width, colors), np.uint8)

    def _keep(self, row: int, observation: np.ndarray) -> None:
        import cv2

        height, width = self.pictures.shape[1:3]
        if observation.shape[:2] != (height, width):
            observation = cv2.resize(observation, (width, height), interpolation=cv2.INTER_AREA)
        observation = observation.reshape(height, width, -1)
        self.pictures[row] = observation
        if self._grey and observation.shape[2] == 3:
            observation = cv2.cvtColor(observation, cv2.COLOR_RGB2GRAY)[..., None]
        self._shown[row] = observation

    @property
    def state_names(self) -> tuple[str, ...]:
        """None: there is nothing but the picture."""
        return ()

    def read(self) -> np.ndarray:
        """(B, patches, pixels) uint8."""
        return cut(self._shown, self._patch)

    def read_state(self, readings: np.ndarray) -> np.ndarray:
        """(B, 0)."""
        return np.zeros((self.num_envs, 0), np.float32)
