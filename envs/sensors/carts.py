"""Carts with poles: the equations of the swing-up, and thousands of carts at once on the host.

The task of Tang and Ha, "The sensory neuron as a transformer", NeurIPS 2021, section 4.1, with the dynamics
of the swing-up of Gal, McAllister and Rasmussen, "Improving PILCO with Bayesian neural network dynamics
models", 2016.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from gymnasium import spaces

from .source import Source

GRAVITY, CART_MASS, POLE_MASS, LENGTH, FRICTION = 9.82, 0.5, 0.5, 0.6, 0.1  # m/s², kg, kg, m, N s/m
TIME_STEP, FORCE, TRACK = 0.01, 10.0, 2.4  # s, N of the action 1, m to each side
START_SPEED = 10.0  # m/s and rad/s to each side
BEND = np.pi / 2  # rad, at the track's end
SENSORS = ("x", "x_dot", "cos_theta", "sin_theta", "theta_dot")
STARTS = ("random", "fixed")
_STARTS_FILE = Path(__file__).with_name("swingup_starts.csv")


@functools.cache
def fixed_starts() -> np.ndarray:
    """(1000, 4) float64, starts (x, x_dot, theta, theta_dot) that scores are compared on."""
    starts = np.loadtxt(_STARTS_FILE, delimiter=",", skiprows=1)
    starts.flags.writeable = False
    return starts


def draw_start(rng: np.random.Generator) -> np.ndarray:
    """(4,) x, x_dot, theta, theta_dot, each uniform: ±2.4, ±10, π ± π/2, ±10."""
    x, speed, angle, turning = rng.uniform(-1.0, 1.0, 4)
    return np.array([TRACK * x, START_SPEED * speed, np.pi + np.pi / 2 * angle, START_SPEED * turning])


Numbers = TypeVar("Numbers", np.ndarray, torch.Tensor)


def accelerations(
    x_dot: Numbers, theta_dot: Numbers, cos: Numbers, sin: Numbers, action: Numbers
) -> tuple[Numbers, Numbers]:
    """Of carts (m/s²) and poles (rad/s²), by arrays or tensors (B,) of float64.

    Args:
        x_dot: m/s.
        theta_dot: rad/s.
        cos: of the angle from upright.
        sin: likewise.
        action: -1 to 1.
    """
    mass, total = POLE_MASS * LENGTH, CART_MASS + POLE_MASS
    push = FORCE * action - FRICTION * x_dot
    swing = mass * theta_dot * theta_dot * sin
    x_acceleration = (-2 * swing + 3 * POLE_MASS * GRAVITY * sin * cos + 4 * push) / (
        4 * total - 3 * POLE_MASS * cos * cos
    )
    theta_acceleration = (-3 * swing * cos + 6 * total * GRAVITY * sin + 6 * push * cos) / (
        4 * LENGTH * total - 3 * mass * cos * cos
    )
    return x_acceleration, theta_acceleration


def reward(cos: Numbers, cos_of_place: Numbers) -> Numbers:
    """(B,), 1 where the pole stands upright in the middle of the track.

    Args:
        cos: of the pole's angle.
        cos_of_place: of `BEND` times the share of the track's half that the cart is away from its middle.
    """
    return (cos + 1) / 2 * cos_of_place


class CartPoles(Source):
    """B carts; a :class:`~somite.envs.sensors.source.Source`.

    Args:
        num_envs: B.
        max_episode_steps: 1000 in the publication.
        starts: ``random``, or ``fixed`` for those of the repository: row i starts from i, then from i + B
            and so on, until it is seeded anew.
        sensor_scales: (5,) factors of the readings; None: raw units.
    """

    name = "cartpole_swingup"
    sensor_names = SENSORS
    step_duration = TIME_STEP
    # Which generators drew the starts needs no keeping: they are restored in place.
    kept = ("state", "_cos", "_sin", "_next_start")
    single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int = 1000,
        starts: str = "random",
        sensor_scales: Sequence[float] | None = None,
    ) -> None:
        self.num_envs, self.max_episode_steps, self.starts = num_envs, max_episode_steps, starts
        self.scales = None if sensor_scales is None else np.asarray(sensor_scales, np.float32)
        self.state = np.zeros((4, num_envs))  # x, x_dot, theta, theta_dot
        self._cos, self._sin = np.ones(num_envs), np.zeros(num_envs)
        self._next_start = np.arange(num_envs)
        self._seeded_by: list[np.random.Generator | None] = [None] * num_envs

    def start(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Draw a start for each of ``rows``, or take its next fixed one."""
        if self.starts == "fixed":
            for row, rng in zip(rows, rngs, strict=True):
                if self._seeded_by[row] is not rng:  # seeded anew: it begins with its first start again
                    self._seeded_by[row], self._next_start[row] = rng, row
            starts = fixed_starts()[self._next_start[rows] % len(fixed_starts())]
            self._next_start[rows] += self.num_envs
        else:
            starts = np.array([draw_start(rng) for rng in rngs])
        self.place(rows, starts)

    def place(self, rows: np.ndarray, states: np.ndarray) -> None:
        """Put ``rows`` into states (n, 4)."""
        self.state[:, rows] = states.T
        self._cos[rows], self._sin[rows] = np.cos(states[:, 2]), np.sin(states[:, 2])

    def step(self, actions: np.ndarray, running: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Advance by explicit Euler, positions with the old velocities; carts not ``running`` stand still."""
        # Carts that stand still are left out where they are many, as late in an evaluation: picking costs.
        few = 4 * np.count_nonzero(running) < self.num_envs
        rows = np.flatnonzero(running) if few else slice(None)
        x, x_dot, theta, theta_dot = self.state[:, rows]
        x_acceleration, theta_acceleration = accelerations(
            x_dot, theta_dot, self._cos[rows], self._sin[rows], actions[rows, 0]
        )
        dt = TIME_STEP * running[rows]
        x, theta = x + dt * x_dot, theta + dt * theta_dot
        x_dot, theta_dot = x_dot + dt * x_acceleration, theta_dot + dt * theta_acceleration
        self.state[:, rows] = x, x_dot, theta, theta_dot
        self._cos[rows], self._sin[rows] = np.cos(theta), np.sin(theta)
        rewards = np.zeros(self.num_envs)
        rewards[rows] = reward(self._cos[rows], np.cos(BEND * x / TRACK))
        return rewards, np.abs(self.state[0]) > TRACK, np.zeros(self.num_envs, bool)

    def read(self) -> np.ndarray:
        """(B, 5) float32: x, x_dot, cos theta, sin theta, theta_dot."""
        x, x_dot, _, theta_dot = self.state
        readings = np.stack((x, x_dot, self._cos, self._sin, theta_dot), 1).astype(np.float32)
        return readings if self.scales is None else readings * self.scales

    def close(self) -> None:
        """Nothing is held."""
