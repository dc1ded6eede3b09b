"""Gymnasium's CarRacing without its pictures: the same track, car, reward and end for the same seed."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from gymnasium.envs.box2d.car_dynamics import ENGINE_POWER, FRICTION_LIMIT, SIZE, WHEEL_MOMENT_OF_INERTIA, Car
from gymnasium.envs.box2d.car_racing import CarRacing

BRAKE_FORCE = 15.0  # rad/s in a step
SLIP = 205000 * SIZE * SIZE
"""From a difference of speeds to a force, as in ``Car.step``."""


class Racing(CarRacing):
    """``CarRacing-v3`` whose ``step`` and ``reset`` draw nothing; their observation is None.

    The car's own step takes two thirds of the physics' time in NumPy's scalars. Ours computes the same
    numbers, to the last bit, with Python's floats; only the traces of skidding are left out, which the
    observation never shows.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[None, dict[str, Any]]:
        """A new track and a car at its start."""
        found = super().reset(seed=seed, options=options)
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
