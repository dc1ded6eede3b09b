"""Gymnasium's CarRacing without its pictures, and what a car and its track are in numbers.

The numbers are for critics and teachers, which do not look at pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium.envs.box2d.car_dynamics import ENGINE_POWER, FRICTION_LIMIT, SIZE, WHEEL_MOMENT_OF_INERTIA, Car
from gymnasium.envs.box2d.car_racing import TRACK_WIDTH, CarRacing

BRAKE_FORCE = 15.0  # rad/s in a step
SLIP = 205000 * SIZE * SIZE  # from a difference of speeds to a force, as in ``Car.step``


class Racing(CarRacing):
    """``CarRacing-v3`` whose ``step`` and ``reset`` draw nothing; their observation is None.

    The car's own step takes two thirds of the physics' time in NumPy's scalars. Ours computes the same
    numbers, to the last bit, with Python's floats; only the traces of skidding, which the observation never
    shows, are left out.
    """

    def reset(self, **arguments: Any) -> tuple[None, dict[str, Any]]:
        """A new track and a car at its start."""
        found = super().reset(**arguments)
        self.car.step = partial(step_car, self.car)
        self.car.gas = partial(give_gas, self.car)
        return found

    def _render(self, mode: str) -> None:
        return None


def give_gas(car: Car, gas: float) -> None:
    """What ``Car.gas`` does to the rear wheels."""
    gas = min(max(float(gas), 0.0), 1.0)
    for wheel in car.wheels[2:4]:
        wheel.gas += min(gas - wheel.gas, 0.1)


def step_car(car: Car, dt: float) -> None:
    """What ``Car.step`` does to the wheels in ``dt`` seconds."""
    for wheel in car.wheels:
        turn = float(wheel.steer) - wheel.joint.angle
        wheel.joint.motorSpeed = _sign(turn) * min(50.0 * abs(turn), 3.0)
        limit = FRICTION_LIMIT * 0.6
        for tile in wheel.tiles:
            limit = max(limit, FRICTION_LIMIT * tile.road_friction)
        side = wheel.GetWorldVector((1, 0))
        side_x, side_y = side.x, side.y  # forward is (-side_y, side_x)
        velocity = wheel.linearVelocity
        speed_x, speed_y = velocity.x, velocity.y
        forward = -side_y * speed_x + side_x * speed_y
        sideways = side_x * speed_x + side_y * speed_y

        omega, gas, brake = float(wheel.omega), float(wheel.gas), float(wheel.brake)
        omega += dt * ENGINE_POWER * gas / WHEEL_MOMENT_OF_INERTIA / (abs(omega) + 5.0)
        car.fuel_spent += dt * ENGINE_POWER * gas
        if brake >= 0.9:
            omega = 0.0
        elif brake > 0:
            omega -= _sign(omega) * min(BRAKE_FORCE * brake, abs(omega))
        wheel.phase += omega * dt

        along = (-forward + omega * wheel.wheel_rad) * SLIP
        across = -sideways * SLIP
        force = math.sqrt(along * along + across * across)
        if force > limit:
            along = along / force * limit
            across = across / force * limit
        wheel.omega = omega - dt * along * wheel.wheel_rad / WHEEL_MOMENT_OF_INERTIA
        wheel.ApplyForceToCenter((across * side_x - along * side_y, across * side_y + along * side_x), True)


def _sign(value: float) -> float:
    return (value > 0) - (value < 0)


AHEAD = (1, 3, 5, 7, 10, 13, 17, 21, 26, 32)  # tiles ahead whose middles are told, of about 3.5 m each
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


def read_cars(envs: Sequence[Racing]) -> np.ndarray:
    """(R, 12): place (2), angle, velocity (2), turning rate, steering angle, speeds of 4 wheels, gas."""
    read = []
    for env in envs:
        hull, wheels = env.car.hull, env.car.wheels
        place, velocity, omegas = hull.position, hull.linearVelocity, [wheel.omega for wheel in wheels]
        motion = place.x, place.y, hull.angle, velocity.x, velocity.y
        read.append((*motion, hull.angularVelocity, wheels[0].joint.angle, *omegas, wheels[2].gas))
    return np.array(read, float)


class Tracks:
    """The middle lines of B cars' tracks; ``nearest`` (B,) are the tiles they were nearest to at last."""

    def __init__(self, num_envs: int) -> None:
        self._middles = np.zeros((num_envs, 0, 2))
        self._headings = np.zeros((num_envs, 0))
        self._lengths = np.ones(num_envs, int)
        self.nearest = np.zeros(num_envs, int)

    def set(self, index: int, env: Racing) -> None:
        """A car's track has been made."""
        track = np.array(env.track)  # (T, 4): angle around the field, heading, x, y
        missing = len(track) - self._headings.shape[1]
        if missing > 0:
            self._middles = np.pad(self._middles, [(0, 0), (0, missing), (0, 0)])
            self._headings = np.pad(self._headings, [(0, 0), (0, missing)])
        self._headings[index, : len(track)] = track[:, 1]
        self._middles[index, : len(track)] = track[:, 2:4]
        self._lengths[index], self.nearest[index] = len(track), 0

    def read(self, rows: Sequence[int], cars: np.ndarray, states: np.ndarray) -> None:
        """Write what ``rows`` tell, of which ``cars`` was read, into ``states`` (B, S) float32."""
        rows = np.asarray(rows)
        place, angle, velocity, rest = cars[:, :2], cars[:, 2], cars[:, 3:5], cars[:, 5:]
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
