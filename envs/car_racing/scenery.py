"""How the world of CarRacing looks: what changes between training and test.

After Tang, Nguyen and Ha, "Neuroevolution of self-interpretable agents", GECCO 2020, section 4.3 (colours,
bars, a red blob), and Tang and Ha, "The sensory neuron as a transformer", NeurIPS 2021, section 4.4
(pictures in place of the grass).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from ..numbers import FLAG, NAMES, SHARE, checked, real
from .backgrounds import GRASS, check_background, make_background

BAR_WIDTH = 7
"""Columns of the black bar at each side, of 96."""

BLOB_CENTRE, BLOB_RADIUS, BLOB_COLOR = (24, 30), 7, (255, 0, 0)
"""Of the red blob: column and row, and pixels, of 96."""


@checked("env.scenery")
@dataclass(frozen=True)
class Scenery:
    """What is drawn otherwise than in the original; the keys of ``env.scenery``.

    Args:
        background: in place of the grass: ``grass`` (as it is), a picture's file, ``plain:r,g,b``, or, drawn
            for each episode, ``plain``, ``noise``, ``stripes``, ``checkers``, ``gradient``, ``blobs``,
            ``clouds``, ``rings``, ``mosaic``; or a list, of which each episode has one.
        motion: pixels that the background moves in a frame, in a direction drawn for each episode.
        color_shift: largest share by which each colour of the world is made brighter or darker in an
            episode, in [0, 1].
        bars: black vertical bars at both sides.
        blob: a red disc that stays where it is.

    Raises:
        UserError: a background that is none, or a number that cannot be meant.
    """

    background: Annotated[str | tuple[str, ...], NAMES] = GRASS
    motion: Annotated[float, real(0)] = 0.0
    color_shift: Annotated[float, SHARE] = 0.0
    bars: Annotated[bool, FLAG] = False
    blob: Annotated[bool, FLAG] = False

    def __post_init__(self) -> None:
        for name in [self.background] if isinstance(self.background, str) else self.background:
            check_background(name)

    @property
    def is_original(self) -> bool:
        """Whether nothing is changed."""
        return self == Scenery()

    def draw(self, rng: np.random.Generator) -> Look:
        """How one episode looks."""
        names = [self.background] if isinstance(self.background, str) else self.background
        background = make_background(names[int(rng.integers(len(names)))], rng)
        angle = rng.uniform(0, 2 * np.pi)
        velocity = self.motion * np.array([math.cos(angle), math.sin(angle)])
        factors = 1.0 + rng.uniform(-self.color_shift, self.color_shift, 3)
        return Look(self, background, velocity, factors if self.color_shift else None)


class Look:
    """How the pictures of one episode are changed.

    Args:
        scenery: bars and blob.
        background: (96, 96, 3) in place of the grass, or None.
        velocity: (2,) columns and rows that it moves in a frame.
        factors: (3,) on the colours, or None.
    """

    def __init__(
        self, scenery: Scenery, background: Any, velocity: np.ndarray, factors: np.ndarray | None
    ) -> None:
        self._scenery, self._background, self._velocity = scenery, background, velocity
        self._table = None
        if factors is not None:
            levels = np.arange(256)[:, None] * factors
            self._table = np.clip(levels, 0, 255).astype(np.uint8).reshape(1, 256, 3)

    def apply(self, picture: np.ndarray, frame: int, rows: int) -> None:
        """Change a picture.

        Args:
            picture: (96, 96, 3) uint8, written to.
            frame: of the episode, for what moves.
            rows: of the world; below them are the indicators.
        """
        import cv2

        from .drawing import BACKGROUND as DARK
        from .drawing import GRASS as LIGHT

        world = picture[:rows]
        if self._background is not None:
            background = self._background
            if self._velocity.any():
                across, down = (self._velocity * frame).astype(int)
                background = np.roll(background, (down, across), (0, 1))
            grass = cv2.inRange(world, DARK, DARK) | cv2.inRange(world, LIGHT, LIGHT)
            cv2.copyTo(background[:rows], grass, world)
        if self._table is not None:
            world[:] = cv2.LUT(world, self._table)
        if self._scenery.bars:
            world[:, :BAR_WIDTH] = world[:, -BAR_WIDTH:] = 0
        if self._scenery.blob:
            cv2.circle(world, BLOB_CENTRE, BLOB_RADIUS, BLOB_COLOR, -1)
