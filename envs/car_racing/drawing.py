"""The 96 x 96 pictures of CarRacing, drawn small instead of large and shrunk.

Gymnasium draws 1000 x 800 pixels and averages them down to 96 x 96, which is nearly all of its time. Here
the ground is drawn at twice the size of the observation (at four times while the view comes nearer in the
first second, when the road is thin), the car at eight times within the little square that it never leaves,
and the indicators, which are rectangles, by the share of each pixel that they cover. What is arithmetic is
done for all pictures at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from gymnasium.envs.box2d import car_racing as original

from .brush import FRACTION_BITS, for_opencv, halve, shade
from .car import CAR_COLUMNS, CAR_ROWS, draw_car, place_wheels
from .indicators import INDICATOR_ROWS, draw_indicators
from .physics import Racing

SIZE = 96
SCALES = (2, 4)
"""Pixels of the ground's drawing for one of the picture, as a rule and in an episode's first second."""

BACKGROUND = shade((102, 204, 102))
GRASS = shade((102, 230, 102))

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


class Grounds:
    """What lies on the ground of each row's track, as quadrilaterals in the order in which they are drawn.

    Args:
        num_envs: B.

    Attributes:
        corners: (B, Q, 4, 2). centres: (B, 2, Q). reach: (B, Q), from a centre to its farthest corner; less
            than nothing where a row has fewer than Q.
        colors: of each row, a list.
    """

    def __init__(self, num_envs: int) -> None:
        self.corners = np.zeros((num_envs, 0, 4, 2))
        self.centres = np.zeros((num_envs, 2, 0))
        self.reach = np.zeros((num_envs, 0))
        self.colors: list[list[tuple[int, int, int]]] = [[] for _ in range(num_envs)]

    def set(self, index: int, env: Racing) -> None:
        """A row's track has been made."""
        corners = np.concatenate([SQUARES, [corners for corners, _ in env.road_poly]])
        count, missing = len(corners), len(corners) - self.reach.shape[1]
        if missing > 0:
            self.corners = np.pad(self.corners, [(0, 0), (0, missing), (0, 0), (0, 0)])
            self.centres = np.pad(self.centres, [(0, 0), (0, 0), (0, missing)])
            self.reach = np.pad(self.reach, [(0, 0), (0, missing)], constant_values=-np.inf)
        centres = corners.mean(1)
        self.corners[index, :count], self.centres[index, :, :count] = corners, centres.T
        self.reach[index] = -np.inf
        self.reach[index, :count] = np.linalg.norm(corners - centres[:, None], axis=2).max(1)
        self.colors[index] = [GRASS] * len(SQUARES) + [shade(color) for _, color in env.road_poly]


class Painter:
    """Draws the pictures of B rows.

    Args:
        num_envs: B.
    """

    def __init__(self, num_envs: int) -> None:
        self._grounds = Grounds(num_envs)
        self._plain = {s: np.full((SIZE * s, SIZE * s, 3), BACKGROUND, np.uint8) for s in SCALES}
        self._canvases = {scale: np.empty_like(plain) for scale, plain in self._plain.items()}

    def start(self, index: int, env: Racing) -> None:
        """A row has a new track."""
        self._grounds.set(index, env)

    def draw(self, rows: Sequence[int], envs: Sequence[Racing], pictures: np.ndarray) -> None:
        """The present pictures of some rows.

        Args:
            rows: their numbers.
            envs: of these rows; they have been reset.
            pictures: (B, 96, 96, 3) uint8, those of these rows are written to.
        """
        views = np.array([view_of(env) for env in envs])  # views: (R, 2, 3)
        scales = [SCALES[env.t < 1] for env in envs]
        enlarged = views * np.array(scales)[:, None, None]
        owners, quads, corners = self._in_sight(np.asarray(rows), enlarged, scales)
        bounds = np.searchsorted(owners, range(len(rows) + 1)).tolist()
        wheels, treads = place_wheels([env.car for env in envs], views)
        fill = cv2.fillConvexPoly
        for i, row in enumerate(rows):
            canvas, colors = self._canvases[scales[i]], self._grounds.colors[row]
            self._draw_field(canvas, enlarged[i], envs[i].car.hull.position)
            own = slice(bounds[i], bounds[i + 1])
            for corner, quad in zip(corners[own], quads[own], strict=True):
                fill(canvas, corner, colors[quad], cv2.LINE_8, FRACTION_BITS)
            picture = pictures[row]
            halve(canvas, picture)
            draw_car(wheels[i], treads[i], views[i], canvas, scales[i], picture[CAR_ROWS, CAR_COLUMNS])
        draw_indicators(envs, rows, pictures[:, INDICATOR_ROWS])

    def _in_sight(
        self, rows: np.ndarray, views: np.ndarray, scales: Sequence[int]
    ) -> tuple[np.ndarray, list[int], np.ndarray]:
        """Which of the rows, which of its quadrilaterals, and its corners (K, 4, 2) as OpenCV takes them."""
        grounds, turns, origins = self._grounds, views[:, :, :2], views[:, :, 2]
        half = np.array(scales) * SIZE / 2  # half: (R,)
        stretch = np.hypot(turns[:, 1, 0], turns[:, 1, 1])  # the vertical one, which is larger
        places = turns @ grounds.centres[rows] + (origins - half[:, None])[..., None]  # places: (R, 2, Q)
        distance = np.abs(places, out=places).max(1)  # distance: (R, Q)
        owners, quads = np.nonzero(distance < grounds.reach[rows] * stretch[:, None] + half[:, None])
        corners = grounds.corners[rows[owners], quads]  # corners: (K, 4, 2)
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
        cv2.fillConvexPoly(canvas, corners, BACKGROUND, cv2.LINE_8, FRACTION_BITS)


class OriginalPainter:
    """Gymnasium's own drawing, twenty times as slow, to compare with.

    Args:
        num_envs: of no meaning here.
    """

    def __init__(self, num_envs: int) -> None:
        pass

    def start(self, index: int, env: Racing) -> None:
        """Nothing is prepared."""

    def draw(self, rows: Sequence[int], envs: Sequence[Racing], pictures: np.ndarray) -> None:
        """As `Painter.draw`."""
        for row, env in zip(rows, envs, strict=True):
            pictures[row] = original.CarRacing._render(env, "state_pixels")


PAINTERS = {"somite": Painter, "gymnasium": OriginalPainter}
"""By the name of the renderer."""
