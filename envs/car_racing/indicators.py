"""The black bar at the bottom of the picture: speed, wheels, steering, turning, and the score in digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import pygame
from gymnasium.envs.box2d.car_dynamics import Car
from gymnasium.envs.box2d.car_racing import WINDOW_H, WINDOW_W

from .brush import DARKER, shade
from .physics import Racing

INDICATOR_ROWS = slice(84, 96)
ROWS, COLUMNS = 12, 96
ACROSS, DOWN = WINDOW_W / COLUMNS, WINDOW_H / 96  # of the window, for one pixel
UNIT, HEIGHT = WINDOW_W / 40, WINDOW_H / 40
TOP = WINDOW_H - 5 * HEIGHT
FAINT = 1e-4
"""Smaller values are not shown."""

UPRIGHT = ((5, (255, 255, 255)), (7, (0, 0, 255)), (8, (0, 0, 255)), (9, (51, 0, 255)), (10, (51, 0, 255)))
"""Place and colour of speed and the four wheels."""

LYING = ((20, (0, 255, 0)), (30, (255, 0, 0)))
"""Place and colour of the steering angle and the turning rate."""

GAINS = np.array([0.02, 0.01, 0.01, 0.01, 0.01, -10.0, -0.8])
"""From speed, wheels, steering and turning to lengths in units of the bar."""


def _shares(pixel: float, count: int) -> np.ndarray:
    """(edges, count): the share of each pixel of the picture that lies before each pixel of the window."""
    edges = np.arange(round(pixel * count) + 1)[:, None]
    return np.clip(edges - np.arange(count) * pixel, 0, pixel) / pixel


_before_row = _shares(DOWN, ROWS)
_before_column = _shares(ACROSS, COLUMNS)


def _columns_of(first: float, last: float) -> np.ndarray:
    return _before_column[int(last) + 1] - _before_column[int(first)]


BASE = WINDOW_H - HEIGHT - TOP
_upright_colors = np.array(
    [_columns_of(place * UNIT, (place + 1) * UNIT)[:, None] * shade(color) for place, color in UPRIGHT]
).reshape(len(UPRIGHT), -1)  # (5, 288)
_lying_places = np.array([place * UNIT for place, _ in LYING])  # (2,)
_lying_colors = np.array([shade(color) for _, color in LYING], float)[:, None]  # (2, 1, 3)
_lying_rows = _before_row[int(BASE - HEIGHT) + 1] - _before_row[int(BASE - 3 * HEIGHT)]  # (12,)


def draw_indicators(envs: Sequence[Racing], rows: Sequence[int], bars: np.ndarray) -> None:
    """The bottom of some pictures.

    Args:
        envs: R environments.
        rows: the numbers of their pictures.
        bars: (B, 12, 96, 3) uint8, those of these rows are written to.
    """
    shown = np.array([_read(env.car) for env in envs])  # shown: (R, 7)
    shown = np.where(np.abs(shown) > FAINT, shown, 0.0) * GAINS
    tops = BASE - HEIGHT * shown[:, : len(UPRIGHT)]
    ends = _lying_places + UNIT * shown[:, len(UPRIGHT) :]
    covered = _between(_before_row, np.full_like(tops, BASE), tops)  # covered: (R, 5, 12)
    columns = _between(_before_column, np.tile(_lying_places, (len(envs), 1)), ends)  # columns: (R, 2, 96)
    lying = (columns[..., None] * _lying_colors).sum(1).reshape(len(envs), 1, -1)  # (R, 1, 288)
    pixels = covered.mT @ _upright_colors + _lying_rows[:, None] * lying  # (R, 12, 288)
    np.minimum(pixels, 255 - DARKER, out=pixels)
    bars[rows] = pixels.reshape(-1, ROWS, COLUMNS, 3)
    for row, env in zip(rows, envs, strict=True):
        digits = _score(f"{env.reward:04.0f}")
        bars[row, :, : digits.shape[1]] = digits


def _read(car: Car) -> tuple[float, ...]:
    """Speed, turning of the four wheels, steering angle and turning rate."""
    velocity, wheels = car.hull.linearVelocity, car.wheels
    speed = math.sqrt(velocity.x * velocity.x + velocity.y * velocity.y)
    return (speed, *[wheel.omega for wheel in wheels], wheels[0].joint.angle, car.hull.angularVelocity)


def _between(before: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Shares of the picture's pixels between two places in the window, of which all touched pixels count."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    most = len(before) - 1
    first = np.clip(low.astype(int), 0, most)
    last = np.clip(high.astype(int) + (low != high), 0, most)
    return before[last] - before[first]


@lru_cache(maxsize=4096)
def _score(text: str) -> np.ndarray:
    """The left of the bar, (12, columns, 3), with the score's digits."""
    pygame.font.init()
    font = pygame.font.Font(pygame.font.get_default_font(), 42)
    written = font.render(text, True, (255, 255, 255), (0, 0, 0))
    surface = pygame.Surface((int(12 * ACROSS), int(WINDOW_H - TOP)))
    place = written.get_rect()
    place.center = (60, WINDOW_H - WINDOW_H * 2.5 / 40.0 - TOP)
    surface.blit(written, place)
    pixels = pygame.surfarray.array3d(surface).swapaxes(0, 1)
    small = cv2.resize(pixels, (12, ROWS), interpolation=cv2.INTER_AREA)
    return cv2.subtract(small, np.full_like(small, DARKER))
