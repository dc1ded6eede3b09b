"""Any Gymnasium task of pictures: each patch of the picture is a sensor."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Annotated, Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..errors import UserError, check_installed
from ..numbers import EPISODE_STEPS, FLAG, NAMES, NULL, TEXT, VALUES, checked, listed, part, whole
from ..sensors.gymnasium_envs import make_env
from ..sensors.gymnasium_source import GymnasiumSource, NominalActions
from ..sensors.gymnasium_task import RenderedTask
from ..sensors.senses import Senses
from ..sensors.source import Source
from .patches import check_patch, cut, patch_names

logger = logging.getLogger(__name__)

CHANNELS = (1, 3, 4)
"""Numbers of channels that a picture may have."""

LARGEST_BOUND = 1e6
"""Of what a picture's numbers are declared to lie between: beyond it, no bounds are meant."""


_PIXELS = whole(1, 4096)
_SIZE = (listed(_PIXELS, 2, 2) | NULL).told("height and width from 1 to 4,096, such as [84,84], or null")


@checked("env")
class GymnasiumImage(RenderedTask):
    """The keys of ``conf/env/gymnasium_image.yaml``.

    Args:
        id: of a registered environment that observes a picture (see `PictureForm`) and acts by a bounded
            ``Box`` of one dimension, or by ``Discrete`` actions.
        kwargs: arguments of the environment's own.
        senses: what happens to the patches.
        size: height and width that pictures are shrunk to; None: as they are.
        patch_size: pixels of a patch's side.
        grey: grey levels, or colours.
        max_episode_steps: None: the task's own.
        imports: modules of the user's own that register environments; see `find_spec`.

    Raises:
        UserError: an environment that is not registered, cannot be made or shows no pictures, patches that
            do not divide them, or an invalid value.
    """

    kind = "patches"
    has_physics = False  # none that is known

    def __init__(
        self,
        id: Annotated[str | None, TEXT | NULL] = None,
        kwargs: Annotated[Mapping[str, Any] | None, VALUES | NULL] = None,
        senses: Annotated[Senses | None, part(Senses)] = None,
        size: Annotated[Sequence[int] | None, _SIZE] = None,
        patch_size: Annotated[int, _PIXELS] = 6,
        grey: Annotated[bool, FLAG] = True,
        max_episode_steps: Annotated[int | None, EPISODE_STEPS | NULL] = None,
        imports: Annotated[str | Sequence[str] | None, NAMES | NULL] = None,
    ) -> None:
        check_installed("gymnasium_image", {"cv2": "opencv-python-headless"}, "car_racing")
        super().__init__(id, kwargs, senses, max_episode_steps, imports)
        self.patch_size, self.grey = patch_size, grey
        with closing(make_env(self.name, self.kwargs)) as env:
            form = PictureForm(env)
            NominalActions(env)  # refuses those that do not fit
        own = form.height, form.width
        self.size = None if size is None else tuple(size)
        if self.size and (self.size[0] > own[0] or self.size[1] > own[1]):
            raise UserError(
                f"env.size=[{size[0]},{size[1]}] is larger than the picture, which is {own[0]} x {own[1]}: "
                "pictures are shrunk; leave env.size out to keep them as they are"
            )
        check_patch(*(self.size or own), self.patch_size, own)
        if form.notes:
            logger.info("%s: %s", self.name, "; ".join(form.notes))

    def for_filming(self) -> GymnasiumImage:
        """With what the environment draws of itself, where it does; else by what it observes alone."""
        try:
            return super().for_filming()
        except UserError as error:
            logger.info("filmed by what is observed: %s", error)
            return self

    def make_source(self, num_envs: int, threads: int = 0, device: torch.device | str = "cpu") -> Source:
        """So many environments, one after another."""
        return GymnasiumPictures(num_envs, self)


class PictureForm:
    """How an environment's pictures are stored, and how they become grey levels or colours of 8 bits.

    Taken is a ``Box`` of two dimensions (rows, columns), or of three with the channels last or, where these
    can be no channels, first: one (grey), three (colours) or four (colours and an alpha, which is left out).
    Numbers of any type are brought from the bounds that the ``Box`` declares to 0 to 255; those from 0 to
    255 stay as they are.

    Args:
        env: gives the ``observation_space``.

    Attributes:
        height, width: in pixels.
        colors: 1 or 3.
        notes: what has been taken for granted, for the user.

    Raises:
        UserError: observations that are no pictures, or that have no bounds.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        space, self._name = env.observation_space, env.spec.id
        shape = space.shape if isinstance(space, spaces.Box) else ()
        self._first = len(shape) == 3 and shape[2] not in CHANNELS
        if self._first:
            shape = (shape[1], shape[2], shape[0])
        self.height, self.width, channels = (*shape, 1)[:3] if len(shape) in (2, 3) else (0, 0, 0)
        if channels not in CHANNELS:
            raise UserError(
                f"{self._name} observes {space}, which is no picture; patches are cut from a Box (height, "
                "width), (height, width, channels) or (channels, height, width) with 1, 3 or 4 channels; "
                "numbers are read by env=gymnasium"
            )
        self.colors = min(channels, 3)
        self._low, self._high = float(space.low.min()), float(space.high.max())
        if not -LARGEST_BOUND <= self._low < self._high <= LARGEST_BOUND:
            raise UserError(
                f"{self._name} observes {space}, whose numbers lie between {self._low:g} and {self._high:g}: "
                "pictures need bounds, such as 0 and 1, from which they are brought to 0 to 255"
            )
        self._is_ready = space.dtype == np.uint8 and (self._low, self._high) == (0, 255)
        told = {
            "the channels come first": self._first,
            "four channels are red, green, blue and alpha, which is left out": channels == 4,
            f"numbers from {self._low:g} to {self._high:g} become 0 to 255": not self._is_ready,
        }
        self.notes = tuple(note for note, holds in told.items() if holds)

    def check(self, observation: np.ndarray) -> None:
        """Compare an episode's first picture with the declared bounds. Raises UserError: it is beyond."""
        if self._is_ready:
            return
        slack = 0.01 * (self._high - self._low)
        least, most = np.nanmin(observation, initial=self._high), np.nanmax(observation, initial=self._low)
        if least < self._low - slack or most > self._high + slack:
            raise UserError(
                f"{self._name} declares pictures of {self._low:g} to {self._high:g}, and shows numbers from "
                f"{least:g} to {most:g}: its observation_space must say what it shows"
            )

    def convert(self, observation: np.ndarray) -> np.ndarray:
        """(height, width, colors) uint8, from an observation of the declared shape; NaN becomes 0."""
        if self._first:
            observation = np.moveaxis(observation, 0, -1)
        picture = observation.reshape(self.height, self.width, -1)[..., : self.colors]
        if self._is_ready:
            return np.ascontiguousarray(picture)
        levels = (picture.astype(np.float64) - self._low) * (255 / (self._high - self._low))
        return np.rint(np.nan_to_num(levels).clip(0, 255)).astype(np.uint8)


class GymnasiumPictures(GymnasiumSource):
    """B environments, each stepped by itself; a `Source`.

    Args:
        num_envs: B.
        task: whose.

    Attributes:
        pictures: (B, H, W, 3) uint8, what the environments show.

    Raises:
        UserError: an environment that cannot be made, or whose spaces do not fit.
    """

    def __init__(self, num_envs: int, task: GymnasiumImage) -> None:
        self._size, self._patch, self._grey = task.size, task.patch_size, task.grey
        super().__init__(num_envs, task.name, task.kwargs, task.max_episode_steps)

    def _make_room(self) -> None:
        self._form = form = PictureForm(self._envs[0])
        height, width = self._size or (form.height, form.width)
        colors = 1 if self._grey else form.colors
        grid = (height // self._patch, width // self._patch)
        self.sensor_names = patch_names(*grid)
        self.reading_shape = (self._patch * self._patch * colors,)
        self.sizes = {"grid": grid, "patch_size": self._patch}
        self._broken = np.zeros(self.num_envs, bool)
        self.pictures = np.zeros((self.num_envs, height, width, 3), np.uint8)
        self._shown = torch.zeros(self.num_envs, height, width, colors, dtype=torch.uint8)

    def _begin(self, row: int, seed: int) -> np.ndarray:
        observation = super()._begin(row, seed)
        self._form.check(observation)
        return observation

    def _keep(self, row: int, observation: np.ndarray) -> None:
        import cv2

        cv2.setNumThreads(1)  # pictures are small: threads within a call only wait for each other
        self._broken[row] = observation.dtype.kind == "f" and not np.isfinite(observation).all()
        picture = self._form.convert(observation)
        height, width = self.pictures.shape[1:3]
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        picture = picture.reshape(height, width, -1)
        self.pictures[row] = picture
        if self._grey and picture.shape[2] == 3:
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
        self._shown[row] = torch.from_numpy(picture)

    @property
    def diverged(self) -> Tensor:
        """(B,) bool, whose picture holds what is not finite."""
        return torch.from_numpy(self._broken)

    state_names = ()  # there is nothing but the picture

    def read(self) -> Tensor:
        """(B, patches, pixels) uint8."""
        return torch.from_numpy(cut(self._shown.numpy(), self._patch))

    def read_state(self, readings: Tensor) -> Tensor:
        """(B, 0)."""
        return torch.zeros(self.num_envs, 0)
