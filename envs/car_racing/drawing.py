"""The 96 x 96 pictures of CarRacing, drawn small instead of large and shrunk.

Gymnasium draws 1000 x 800 pixels and averages them down to 96 x 96, which is nearly all of its time. Here
the ground is drawn at twice the size of the observation (at four times in the first second, when the road is
thin), the car at eight times within the little square that it never leaves, and the indicators by the share
of each pixel that they cover. What is arithmetic is done for all pictures at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import pygame
from gymnasium.envs.box2d import car_dynamics as dynamics
from gymnasium.envs.box2d import car_racing as original

from .scenery import DARKER, FIELD_COLOR, SIZE, SQUARE_COLOR, shade
from .simulation import Racing

SCALES = (2, 4)
"""Pixels of the ground's drawing for one of the picture, as a rule and in an episode's first second."""

FRACTION_BITS = 4  # of the coordinates that OpenCV is given


def for_opencv(points: np.ndarray) -> np.ndarray:
    """Points as whole numbers with ``FRACTION_BITS``; OpenCV's whole pixels are their middles."""
    return np.rint((points - 0.5) * (1 << FRACTION_BITS)).astype(np.int32)


def halve(canvas: np.ndarray, picture: np.ndarray) -> None:
    """Average a canvas, larger by a power of two, down to ``picture``, which is written to."""
    height, width = picture.shape[:2]
    while canvas.shape[0] > 2 * height:  # halving is OpenCV's fast path
        size = canvas.shape[1] // 2, canvas.shape[0] // 2
        canvas = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
    cv2.resize(canvas, (width, height), dst=picture, interpolation=cv2.INTER_AREA)


_squares = [(x, y) for x in range(-20, 20, 2) for y in range(-20, 20, 2)]
_corners_of_a_square = np.array([(1, 0), (0, 0), (0, 1), (1, 1)])
SQUARES = original.GRASS_DIM * (np.array(_squares)[:, None] + _corners_of_a_square)
"""(400, 4, 2) corners of the lighter squares of grass."""

FIELD = original.PLAYFIELD * np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])


def view_of(env: Racing) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(2, 3): from the world's coordinates to those of the picture, of which a pixel is one."""
    hull, t = env.car.hull, env.t
    zoom = 0.1 * original.SCALE * max(1 - t, 0) + original.ZOOM * original.SCALE * min(t, 1)
    cos, sin = math.cos(hull.angle) * zoom, -math.sin(hull.angle) * zoom
    x, y = hull.position.x, hull.position.y
    across, down = SIZE / original.WINDOW_W, SIZE / original.WINDOW_H
    left = original.WINDOW_W / 2 - (cos * x - sin * y)
    bottom = original.WINDOW_H / 4 - (sin * x + cos * y)
    return (cos * across, -sin * across, left * across), (-sin * down, -cos * down, SIZE - bottom * down)


class Painter:
    """Draws the pictures of B cars; on the ground lie Q quadrilaterals, in the order of their drawing."""

    def __init__(self, num_envs: int) -> None:
        self._corners, self._centres = np.zeros((num_envs, 0, 4, 2)), np.zeros((num_envs, 2, 0))
        self._reach = np.zeros((num_envs, 0))  # from a centre to its farthest corner, -inf without corners
        self._colors: list[list[tuple[int, int, int]]] = [[] for _ in range(num_envs)]
        self._plain = {s: np.full((SIZE * s, SIZE * s, 3), FIELD_COLOR, np.uint8) for s in SCALES}
        self._canvases = {scale: np.empty_like(plain) for scale, plain in self._plain.items()}

    def start(self, index: int, env: Racing) -> None:
        """A car has a new track."""
        corners = np.concatenate([SQUARES, [corners for corners, _ in env.road_poly]])
        count, missing = len(corners), len(corners) - self._reach.shape[1]
        if missing > 0:
            self._corners = np.pad(self._corners, [(0, 0), (0, missing), (0, 0), (0, 0)])
            self._centres = np.pad(self._centres, [(0, 0), (0, 0), (0, missing)])
            self._reach = np.pad(self._reach, [(0, 0), (0, missing)], constant_values=-np.inf)
        centres = corners.mean(1)
        self._corners[index, :count], self._centres[index, :, :count] = corners, centres.T
        self._reach[index] = -np.inf
        self._reach[index, :count] = np.linalg.norm(corners - centres[:, None], axis=2).max(1)
        self._colors[index] = [SQUARE_COLOR] * len(SQUARES) + [shade(color) for _, color in env.road_poly]

    def draw(
        self, rows: Sequence[int], envs: Sequence[Racing], cars: np.ndarray, pictures: np.ndarray
    ) -> None:
        """Draw ``rows``, whose ``envs`` these are and ``cars`` was read, into ``pictures`` (B, 96, 96, 3)."""
        views = np.array([view_of(env) for env in envs])  # views: (R, 2, 3)
        scales = [SCALES[env.t < 1] for env in envs]
        enlarged = views * np.array(scales)[:, None, None]
        owners, quads, corners = self._in_sight(np.asarray(rows), enlarged, scales)
        bounds = np.searchsorted(owners, range(len(rows) + 1)).tolist()
        wheels, treads = place_wheels([env.car for env in envs], views)
        fill = cv2.fillConvexPoly
        for i, row in enumerate(rows):
            canvas, colors = self._canvases[scales[i]], self._colors[row]
            self._draw_field(canvas, enlarged[i], envs[i].car.hull.position)
            own = slice(bounds[i], bounds[i + 1])
            for corner, quad in zip(corners[own], quads[own], strict=True):
                fill(canvas, corner, colors[quad], cv2.LINE_8, FRACTION_BITS)
            picture = pictures[row]
            halve(canvas, picture)
            draw_car(wheels[i], treads[i], views[i], canvas, scales[i], picture[CAR_ROWS, CAR_COLUMNS])
        draw_indicators(rows, cars, [env.reward for env in envs], pictures[:, INDICATOR_ROWS])

    def _in_sight(
        self, rows: np.ndarray, views: np.ndarray, scales: Sequence[int]
    ) -> tuple[np.ndarray, list[int], np.ndarray]:
        """Whose, which of its quadrilaterals, and its corners (K, 4, 2) as OpenCV takes them."""
        turns, origins = views[:, :, :2], views[:, :, 2]
        half = np.array(scales) * SIZE / 2  # half: (R,)
        stretch = np.hypot(turns[:, 1, 0], turns[:, 1, 1])  # the vertical one, which is larger
        places = turns @ self._centres[rows] + (origins - half[:, None])[..., None]  # places: (R, 2, Q)
        distance = np.abs(places, out=places).max(1)  # distance: (R, Q)
        owners, quads = np.nonzero(distance < self._reach[rows] * stretch[:, None] + half[:, None])
        corners = self._corners[rows[owners], quads]  # corners: (K, 4, 2)
        corners = corners @ turns[owners].mT + origins[owners][:, None]
        return owners, quads.tolist(), for_opencv(corners)

    def _draw_field(self, canvas: np.ndarray, view: np.ndarray, car: object) -> None:
        """The grass, and nothing beyond its edge."""
        farthest = max(abs(car.x), abs(car.y)) + 1.5 * len(canvas) / math.hypot(view[1, 0], view[1, 1])
        if farthest < original.PLAYFIELD:  # the edge is out of sight
            np.copyto(canvas, self._plain[len(canvas) // SIZE])
            return
        canvas.fill(0)
        corners = for_opencv(FIELD @ view[:, :2].T + view[:, 2])
        cv2.fillConvexPoly(canvas, corners, FIELD_COLOR, cv2.LINE_8, FRACTION_BITS)


class OriginalPainter(Painter):
    """Gymnasium's own drawing, twenty times as slow, to compare with."""

    def draw(
        self, rows: Sequence[int], envs: Sequence[Racing], cars: np.ndarray, pictures: np.ndarray
    ) -> None:
        """See `Painter`."""
        for row, env in zip(rows, envs, strict=True):
            pictures[row] = original.CarRacing._render(env, "state_pixels")


PAINTERS = {"somite": Painter, "gymnasium": OriginalPainter}  # by the name of the renderer


CAR_ROWS, CAR_COLUMNS = slice(66, 78), slice(44, 52)  # the part of the picture that the car never leaves
CENTRE = (48, 72)  # column and row of the middle of its body
CAR_SCALE = 8  # pixels of the drawing for one of the picture
BLACK, WHITE, RED = shade((0, 0, 0)), shade(dynamics.WHEEL_WHITE), shade((204, 0, 0))
TREAD = 1.2  # length of the light part of a tyre, radians
_tyre = np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)]) * (dynamics.WHEEL_W, dynamics.WHEEL_R)
WHEELS = np.tile(np.concatenate([_tyre, _tyre]) * dynamics.SIZE, (4, 1, 1))
"""(4, 8, 2) corners of each tyre, and of its light part."""

HULL = [np.array(getattr(dynamics, f"HULL_POLY{number}")) * dynamics.SIZE for number in (1, 2, 3, 4)]


def place_wheels(cars: Sequence[dynamics.Car], views: np.ndarray) -> tuple[np.ndarray, list[list[bool]]]:
    """Corners (R, 4, 8, 2) of wheels as OpenCV takes them, and whether the light part of each tyre shows.

    ``views`` (R, 2, 3) are from each car's world to its picture.
    """
    wheels = [wheel for car in cars for wheel in car.wheels]
    read = [(wheel.phase, wheel.angle, (place := wheel.position).x, place.y) for wheel in wheels]
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
    """Draw a car into ``picture``, the part of rows ``CAR_ROWS`` and columns ``CAR_COLUMNS``.

    ``wheels`` and ``treads`` are what `place_wheels` told, ``ground`` (96 s, 96 s, 3) is what lies under it.
    """
    s = ground_scale
    rows, columns = (slice(part.start * s, part.stop * s) for part in (CAR_ROWS, CAR_COLUMNS))
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
    """Corners of the body's parts as OpenCV takes them; ``across`` and ``down`` are pixels for a metre."""
    middle = np.array([CENTRE[0] - CAR_COLUMNS.start, CENTRE[1] - CAR_ROWS.start]) * CAR_SCALE
    return [for_opencv(part * (across, -down) + middle) for part in HULL]


def _treads(phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where (R, 4, 2) m the light parts of tyres of phases (R, 4) begin and end, and which are on top."""
    angles = phases[..., None] + (0, TREAD)  # angles: (R, 4, 2)
    cos, sin = np.cos(angles), np.sin(angles)
    ends = dynamics.WHEEL_R * dynamics.SIZE * np.where(sin > 0, np.copysign(1.0, cos), cos)
    return ends, (sin <= 0).any(-1)


INDICATOR_ROWS = slice(84, 96)
BAR_ROWS, BAR_COLUMNS = 12, 96
ACROSS, DOWN = original.WINDOW_W / BAR_COLUMNS, original.WINDOW_H / 96  # of the window, for one pixel
UNIT, HEIGHT = original.WINDOW_W / 40, original.WINDOW_H / 40
TOP = original.WINDOW_H - 5 * HEIGHT
FAINT = 1e-4  # smaller values are not shown
UPRIGHT = ((5, (255, 255, 255)), (7, (0, 0, 255)), (8, (0, 0, 255)), (9, (51, 0, 255)), (10, (51, 0, 255)))
"""Place and colour of speed and the four wheels."""

LYING = ((20, (0, 255, 0)), (30, (255, 0, 0)))  # place and colour of the steering angle and the turning rate
GAINS = np.array([0.02, 0.01, 0.01, 0.01, 0.01, -10.0, -0.8])
"""From speed, wheels, steering and turning to lengths in units of the bar."""


def _shares(pixel: float, count: int) -> np.ndarray:
    """(edges, count): the share of each pixel of the picture that lies before each pixel of the window."""
    edges = np.arange(round(pixel * count) + 1)[:, None]
    return np.clip(edges - np.arange(count) * pixel, 0, pixel) / pixel


_before_row = _shares(DOWN, BAR_ROWS)
_before_column = _shares(ACROSS, BAR_COLUMNS)


BASE = original.WINDOW_H - HEIGHT - TOP
_ends = (np.array([[place, place + 1] for place, _ in UPRIGHT]) * UNIT).astype(int).T  # (2, 5)
_upright_columns = _before_column[_ends[1] + 1] - _before_column[_ends[0]]  # (5, 96)
_upright_colors = _upright_columns[..., None] * np.array([[shade(color)] for _, color in UPRIGHT])
_upright_colors = _upright_colors.reshape(len(UPRIGHT), -1)  # (5, 288)
_lying_places = np.array([place * UNIT for place, _ in LYING])  # (2,)
_lying_colors = np.array([shade(color) for _, color in LYING], float)[:, None]  # (2, 1, 3)
_lying_shares = _before_row[int(BASE - HEIGHT) + 1] - _before_row[int(BASE - 3 * HEIGHT)]  # (12,)
_lying_rows = slice(*(np.flatnonzero(_lying_shares)[[0, -1]] + (0, 1)))


def draw_indicators(
    rows: Sequence[int], cars: np.ndarray, rewards: Sequence[float], bars: np.ndarray
) -> None:
    """Draw the bottoms of pictures, of R ``cars`` as they were read, into ``bars`` (B, 12, 96, 3) uint8."""
    speeds = np.sqrt(cars[:, 3] * cars[:, 3] + cars[:, 4] * cars[:, 4])
    shown = np.column_stack([speeds, cars[:, 7:11], cars[:, 6], cars[:, 5]])  # shown: (R, 7)
    shown = np.where(np.abs(shown) > FAINT, shown, 0.0) * GAINS
    tops = BASE - HEIGHT * shown[:, : len(UPRIGHT)]
    ends = _lying_places + UNIT * shown[:, len(UPRIGHT) :]
    covered = _between(_before_row, np.full_like(tops, BASE), tops)  # covered: (R, 5, 12)
    columns = _between(_before_column, np.tile(_lying_places, (len(cars), 1)), ends)  # columns: (R, 2, 96)
    lying = (columns[..., None] * _lying_colors).sum(1).reshape(len(cars), 1, -1)  # (R, 1, 288)
    pixels = covered.mT @ _upright_colors  # (R, 12, 288)
    pixels[:, _lying_rows] += _lying_shares[_lying_rows, None] * lying
    np.minimum(pixels, 255 - DARKER, out=pixels)  # neighbours share columns
    bars[rows] = pixels.reshape(-1, BAR_ROWS, BAR_COLUMNS, 3)
    for row, reward in zip(rows, rewards, strict=True):
        digits = _score(f"{reward:04.0f}")
        bars[row, :, : digits.shape[1]] = digits


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
    surface = pygame.Surface((int(12 * ACROSS), int(original.WINDOW_H - TOP)))
    place = written.get_rect()
    place.center = (60, original.WINDOW_H - original.WINDOW_H * 2.5 / 40.0 - TOP)
    surface.blit(written, place)
    pixels = pygame.surfarray.array3d(surface).swapaxes(0, 1)
    small = cv2.resize(pixels, (12, BAR_ROWS), interpolation=cv2.INTER_AREA)
    return cv2.subtract(small, np.full_like(small, DARKER))
