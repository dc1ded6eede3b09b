"""What a car and its track are, in numbers: for critics and teachers, which do not look at pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gymnasium.envs.box2d.car_racing import TRACK_WIDTH

from .physics import Racing

AHEAD = (1, 3, 5, 7, 10, 13, 17, 21, 26, 32)
"""Tiles ahead whose middles are told, of about 3.5 m each."""

NEAR = np.arange(-8, 16)
"""Tiles around the last one among which the nearest is looked for: tracks may pass close to themselves."""

STATE_NAMES = (
    "forward_speed",
    "sideways_speed",
    "turning_rate",
    "steering_angle",
    *(f"wheel_speed_{wheel}" for wheel in range(4)),
    "gas",
    "offset",
    "sin_heading",
    "cos_heading",
    *(f"ahead_{axis}_{tiles}" for tiles in AHEAD for axis in ("right", "forward")),
)
"""Names of the readings: m/s, rad/s, rad; places in the car's frame, m; ``offset`` from the middle of the
road to its left, m; the heading against the road's."""


class Tracks:
    """The middle lines of B rows' tracks, and where on them the cars are.

    Args:
        num_envs: B.

    Attributes:
        nearest: (B,), the tile that each car was nearest to when it was read last.
    """

    def __init__(self, num_envs: int) -> None:
        self._middles = np.zeros((num_envs, 0, 2))
        self._headings = np.zeros((num_envs, 0))
        self._lengths = np.ones(num_envs, int)
        self.nearest = np.zeros(num_envs, int)

    def set(self, index: int, env: Racing) -> None:
        """A row's track has been made."""
        track = np.array(env.track)  # (T, 4): angle around the field, heading, x, y
        missing = len(track) - self._headings.shape[1]
        if missing > 0:
            self._middles = np.pad(self._middles, [(0, 0), (0, missing), (0, 0)])
            self._headings = np.pad(self._headings, [(0, 0), (0, missing)])
        self._headings[index, : len(track)] = track[:, 1]
        self._middles[index, : len(track)] = track[:, 2:4]
        self._lengths[index], self.nearest[index] = len(track), 0

    def read(self, rows: Sequence[int], envs: Sequence[Racing], states: np.ndarray) -> None:
        """The present readings of some rows.

        Args:
            rows: their numbers.
            envs: of these rows.
            states: (B, S) float32, those of these rows are written to.
        """
        rows = np.asarray(rows)
        place, angle, velocity, rest = _raw(envs)
        cos, sin = np.cos(angle), np.sin(angle)  # a car looks along (-sin, cos)
        index = self._find(rows, place)
        heading = self._headings[rows, index]
        aside = place - self._middles[rows, index]
        ahead = (index[:, None] + AHEAD) % self._lengths[rows, None]
        ahead = self._middles[rows[:, None], ahead] - place[:, None]  # ahead: (R, tiles, 2)
        right_and_forward = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
        parts = (
            -sin * velocity[:, 0] + cos * velocity[:, 1],
            cos * velocity[:, 0] + sin * velocity[:, 1],
            *rest.T,
            -(np.cos(heading) * aside[:, 0] + np.sin(heading) * aside[:, 1]),
            np.sin(angle - heading),
            np.cos(angle - heading),
        )
        states[rows, :12] = np.stack(parts, 1)
        states[rows, 12:] = (ahead @ right_and_forward).reshape(len(rows), -1)

    def _find(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The tiles whose middles are nearest, (R,)."""
        around = (self.nearest[rows, None] + NEAR) % self._lengths[rows, None]  # around: (R, near)
        apart = self._middles[rows[:, None], around] - places[:, None]  # apart: (R, near, 2)
        distances = np.einsum("rnd,rnd->rn", apart, apart)
        each = np.arange(len(rows))
        best = distances.argmin(1)
        found = around[each, best]
        lost = np.flatnonzero(distances[each, best] >= (2 * TRACK_WIDTH) ** 2)
        if len(lost):  # far from where it was: anywhere
            apart = self._middles[rows[lost]] - places[lost, None]  # apart: (lost, tiles, 2)
            distances = np.einsum("rnd,rnd->rn", apart, apart)
            distances[np.arange(distances.shape[1]) >= self._lengths[rows[lost], None]] = np.inf
            found[lost] = distances.argmin(1)
        self.nearest[rows] = found
        return found


def _raw(envs: Sequence[Racing]) -> tuple[np.ndarray, ...]:
    """Places (R, 2), angles (R,), velocities (R, 2), and the rest of what the cars tell, (R, 7)."""
    places, angles, velocities, rest = [], [], [], []
    for env in envs:
        hull, wheels = env.car.hull, env.car.wheels
        place, velocity = hull.position, hull.linearVelocity
        places.append((place.x, place.y))
        angles.append(hull.angle)
        velocities.append((velocity.x, velocity.y))
        omegas = [wheel.omega for wheel in wheels]
        rest.append((hull.angularVelocity, wheels[0].joint.angle, *omegas, wheels[2].gas))
    return np.array(places), np.array(angles), np.array(velocities), np.array(rest, float)
