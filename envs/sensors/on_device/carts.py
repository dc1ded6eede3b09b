"""Carts of the swing-up on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...in_place import replace
from ..carts import (
    BEND,
    START_SPEED,
    TIME_STEP,
    TRACK,
    CartPoles,
    accelerations,
    draw_start,
    fixed_starts,
    reward,
)
from .chance import Chance
from .source import TensorSource


class TensorCarts(TensorSource):
    """B carts with the equations of `CartPoles`, in float64 as there.

    Args:
        num_envs: B.
        device: of all tensors.
        max_episode_steps, starts, sensor_scales: as of `CartPoles`.

    Attributes:
        state: (4, B) float64, x, x_dot, theta, theta_dot.
    """

    name = CartPoles.name
    sensor_names = CartPoles.sensor_names
    single_action_space = CartPoles.single_action_space
    kept = ("state", "_cos", "_sin", "_next_start")

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        max_episode_steps: int = 1000,
        starts: str = "random",
        sensor_scales: Sequence[float] | None = None,
    ) -> None:
        self.num_envs, self.device, self.max_episode_steps = num_envs, device, max_episode_steps

        def float64(values: object) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        self._scales = None if sensor_scales is None else float64(sensor_scales).float()
        self.state = float64(np.zeros((4, num_envs)))
        self._cos, self._sin = float64(np.ones(num_envs)), float64(np.zeros(num_envs))
        self._next_start = torch.arange(num_envs, device=device)
        self._fixed = float64(fixed_starts()) if starts == "fixed" else None
        # Of a uniform number of -1 to 1; see `draw_start`.
        self._wide = float64([TRACK, START_SPEED, np.pi / 2, START_SPEED])
        self._middle = float64([0.0, 0.0, np.pi, 0.0])

    def seed(self, rngs: Sequence[np.random.Generator], stream: np.ndarray) -> None:
        """Draw a start for every row, or take the first of its fixed ones."""
        everywhere = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        if self._fixed is not None:
            self._next_start.copy_(torch.arange(self.num_envs))
            self._take_next(everywhere)
        else:
            starts = np.array([draw_start(rng) for rng in rngs])[stream]
            self.place(everywhere, torch.from_numpy(starts).to(self.device))

    def start(self, where: Tensor, chance: Chance) -> None:
        """Draw starts of some rows, or take their next fixed ones."""
        if self._fixed is not None:
            self._take_next(where)
        else:
            drawn = 2 * chance.uniform(4, dtype=torch.float64) - 1
            self.place(where, self._middle + self._wide * drawn)

    def _take_next(self, where: Tensor) -> None:
        self.place(where, self._fixed[self._next_start % len(self._fixed)])
        self._next_start += self.num_envs * where

    def place(self, where: Tensor, states: Tensor) -> None:
        """Put the rows that ``where`` (B,) names into states (B, 4)."""
        replace(self.state.mT, where, states)
        replace(self._cos, where, states[:, 2].cos())
        replace(self._sin, where, states[:, 2].sin())

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance by explicit Euler, positions with the old velocities; carts not ``running`` stand still."""
        _, x_dot, theta, theta_dot = self.state
        changes = accelerations(x_dot, theta_dot, self._cos, self._sin, actions[:, 0])
        dt = TIME_STEP * running.double()
        self.state += dt * torch.stack((x_dot, changes[0], theta_dot, changes[1]))
        torch.cos(theta, out=self._cos)
        torch.sin(theta, out=self._sin)
        x = self.state[0]
        rewards = reward(self._cos, torch.cos(BEND * x / TRACK))
        return rewards, x.abs() > TRACK, torch.zeros_like(running)

    def read(self) -> Tensor:
        """(B, 5) float32: x, x_dot, cos theta, sin theta, theta_dot."""
        x, x_dot, _, theta_dot = self.state
        readings = torch.stack((x, x_dot, self._cos, self._sin, theta_dot), 1).float()
        return readings if self._scales is None else readings * self._scales
