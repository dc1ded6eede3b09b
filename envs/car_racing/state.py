"""What a car and its track are, in numbers: for critics and teachers, which do not look at pictures."""

from __future__ import annotations

import math

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


class Track:
    """The middle line of an environment's track, and where on it the car is."""

    def __init__(self, env: Racing) -> None:
        track = np.array(env.track)  # (T, 4): angle around the field, heading, x, y
        self._headings, self._middles = track[:, 1], track[:, 2:4]
        self._nearest = 0

    def read(self, env: Racing, into: np.ndarray) -> None:
        """The present readings, written to ``into``, (S,) float32."""
        hull = env.car.hull
        x, y = hull.position.x, hull.position.y
        cos, sin = math.cos(hull.angle), math.sin(hull.angle)  # the car looks along (-sin, cos)
        velocity, wheels = hull.linearVelocity, env.car.wheels
        index = self._find(x, y)
        heading = self._headings[index]
        middle = self._middles[index]
        offset = -(math.cos(heading) * (x - middle[0]) + math.sin(heading) * (y - middle[1]))
        into[:12] = (
            -sin * velocity.x + cos * velocity.y,
            cos * velocity.x + sin * velocity.y,
            hull.angularVelocity,
            wheels[0].joint.angle,
            *(wheel.omega for wheel in wheels),
            wheels[2].gas,
            offset,
            math.sin(hull.angle - heading),
            math.cos(hull.angle - heading),
        )
        ahead = self._middles[np.add(index, AHEAD) % len(self._middles)] - (x, y)
        into[12:] = (ahead @ np.array([[cos, -sin], [sin, cos]])).ravel()

    def _find(self, x: float, y: float) -> int:
        """The tile whose middle is nearest."""
        around = (self._nearest + NEAR) % len(self._middles)
        distances = np.square(self._middles[around] - (x, y)).sum(1)
        best = int(distances.argmin())
        if distances[best] < (2 * TRACK_WIDTH) ** 2:
            self._nearest = int(around[best])
        else:  # far from where it was: anywhere
            self._nearest = int(np.square(self._middles - (x, y)).sum(1).argmin())
        return self._nearest
