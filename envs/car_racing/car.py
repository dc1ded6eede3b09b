"""The car in the picture: it stands at the same place, upright, and only its wheels turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from gymnasium.envs.box2d.car_dynamics import (
    HULL_POLY1,
    HULL_POLY2,
    HULL_POLY3,
    HULL_POLY4,
    SIZE,
    WHEEL_R,
    WHEEL_W,
    WHEEL_WHITE,
    Car,
)

from .brush import FRACTION_BITS, for_opencv, halve, shade

CAR_ROWS, CAR_COLUMNS = slice(66, 78), slice(44, 52)
"""The part of the picture that the car never leaves."""

CENTRE = (48, 72)
"""Column and row of the middle of its body."""

CAR_SCALE = 8
"""Pixels of the drawing for one of the picture."""

BLACK, WHITE, RED = shade((0, 0, 0)), shade(WHEEL_WHITE), shade((204, 0, 0))
TREAD = 1.2
"""Length of the light part of a tyre, radians."""

TYRE = [(-WHEEL_W, WHEEL_R), (WHEEL_W, WHEEL_R), (WHEEL_W, -WHEEL_R), (-WHEEL_W, -WHEEL_R)]
WHEELS = np.tile(np.array([*TYRE, *TYRE]) * SIZE, (4, 1, 1))
"""(4, 8, 2) corners of each tyre, and of its light part."""

HULL = [np.array(part) * SIZE for part in (HULL_POLY1, HULL_POLY2, HULL_POLY3, HULL_POLY4)]


def place_wheels(cars: Sequence[Car], views: np.ndarray) -> tuple[np.ndarray, list[list[bool]]]:
    """Where the wheels of R cars are drawn.

    Args:
        cars: in their present states.
        views: (R, 2, 3), from each one's world to its picture.

    Returns:
        Corners (R, 4, 8, 2) as OpenCV takes them, of the drawing ``CAR_SCALE`` times the picture's size, and
        whether the light part of each tyre shows.
    """
    read = []
    for car in cars:
        for wheel in car.wheels:
            place = wheel.position
            read.append((wheel.phase, wheel.angle, place.x, place.y))
    states = np.array(read).reshape(-1, 4, 4)  # states: (R, 4, phase angle x y)
    ends, shown = _treads(states[..., 0])
    own = np.tile(WHEELS, (len(cars), 1, 1, 1))
    own[:, :, 4:, 1] = ends.repeat(2, -1)
    cos, sin = np.cos(states[..., 1]), np.sin(states[..., 1])
    rotations = np.stack((cos, sin, -sin, cos), -1).reshape(-1, 4, 2, 2)
    corners = own @ rotations + states[:, :, None, 2:]  # corners: (R, 4, 8, 2), in the world
    origins = (views[:, :, 2] - (CAR_COLUMNS.start, CAR_ROWS.start)) * CAR_SCALE
    corners = corners @ (views[:, None, :, :2].mT * CAR_SCALE) + origins[:, None, None]
    return for_opencv(corners), shown.tolist()


def draw_car(
    wheels: np.ndarray,
    treads: Sequence[bool],
    view: np.ndarray,
    ground: np.ndarray,
    ground_scale: int,
    picture: np.ndarray,
) -> None:
    """Draw over the ground.

    Args:
        wheels: (4, 8, 2), of `place_wheels`.
        treads: whether the light part of each tyre shows.
        view: (2, 3), from the world to the picture.
        ground: (96 s, 96 s, 3), what lies under it.
        ground_scale: s.
        picture: the part of rows ``CAR_ROWS`` and columns ``CAR_COLUMNS``, written to.
    """
    rows = slice(CAR_ROWS.start * ground_scale, CAR_ROWS.stop * ground_scale)
    columns = slice(CAR_COLUMNS.start * ground_scale, CAR_COLUMNS.stop * ground_scale)
    height, width = picture.shape[0] * CAR_SCALE, picture.shape[1] * CAR_SCALE
    canvas = cv2.resize(ground[rows, columns], (width, height), interpolation=cv2.INTER_NEAREST)
    draw = cv2.fillConvexPoly
    for corners, shows in zip(wheels, treads, strict=True):
        draw(canvas, corners[:4], BLACK, cv2.LINE_8, FRACTION_BITS)
        if shows:
            draw(canvas, corners[4:], WHITE, cv2.LINE_8, FRACTION_BITS)
    (a, b), (c, d) = (view[:, :2] * CAR_SCALE).tolist()
    for corners in _hull(round(math.hypot(a, b), 6), round(math.hypot(c, d), 6)):
        draw(canvas, corners, RED, cv2.LINE_8, FRACTION_BITS)
    halve(canvas, picture)


@lru_cache(maxsize=256)
def _hull(across: float, down: float) -> list[np.ndarray]:
    """Corners of the body's parts as OpenCV takes them: it looks up, and its middle stays where it is.

    Args:
        across: pixels of the drawing for a metre.
        down: likewise.
    """
    middle = np.array([CENTRE[0] - CAR_COLUMNS.start, CENTRE[1] - CAR_ROWS.start]) * CAR_SCALE
    return [for_opencv(part * (across, -down) + middle) for part in HULL]


def _treads(phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the light parts of tyres of phases (R, 4) begin and end along the wheel, and which show.

    Returns:
        Ends (R, 4, 2) in metres, and (R, 4) bool: those that are on the upper side.
    """
    angles = phases[..., None] + (0, TREAD)  # angles: (R, 4, 2)
    cos, sin = np.cos(angles), np.sin(angles)
    ends = WHEEL_R * SIZE * np.where(sin > 0, np.copysign(1.0, cos), cos)
    return ends, (sin <= 0).any(-1)
