"""CartPoleSwingUpHarder: swing a pole up from wild starts.

The task of Tang and Ha, "The sensory neuron as a transformer", NeurIPS 2021, section 4.1, with the dynamics
of the swing-up of Gal, McAllister and Rasmussen, "Improving PILCO with Bayesian neural network dynamics
models", 2016.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from torch import Tensor

from ..draws import RandomNumbers
from ..gym import SingleEnv
from ..in_place import replace
from ..numbers import EPISODE_STEPS, checked, one_of, part
from ..token_env import TokenEnv
from .env import SensorEnv
from .senses import Senses
from .source import Source
from .task import SCALES, SensorTask, checked_scales, vector_env_of

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


class CartPoles(Source):
    """B carts with poles, in float64.

    Args:
        num_envs: B.
        max_episode_steps: 1000 in the publication.
        starts: ``random``, each uniform: ±2.4 m, ±10 m/s, π ± π/2, ±10 rad/s; or ``fixed`` for those of the
            repository: cart i starts from i, then from i + B and so on, until it is seeded anew.
        device: of all tensors.

    Attributes:
        state: (4, B) float64: x, x_dot, theta (0 upright), theta_dot.
    """

    name = "cartpole_swingup"
    sensor_names = SENSORS
    step_duration = TIME_STEP
    can_be_captured = True
    kept = ("state", "_cos", "_sin", "_next_start")
    single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int = 1000,
        starts: str = "random",
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_envs, self.device, self.max_episode_steps = num_envs, torch.device(device), max_episode_steps

        def tensor(values: Any, kind: torch.dtype = torch.float64) -> Tensor:
            return torch.tensor(values, dtype=kind, device=device)

        self._fixed = tensor(fixed_starts()) if starts == "fixed" else None
        # Of uniform numbers of -1 to 1.
        self._wide = tensor([TRACK, START_SPEED, np.pi / 2, START_SPEED])
        self._middle = tensor([0.0, 0.0, np.pi, 0.0])
        self.state = tensor(np.zeros((4, num_envs)))
        self._parts, self._dt = self.state.unbind(), tensor(TIME_STEP)
        self._weight = tensor(4 * (CART_MASS + POLE_MASS))
        self._cos, self._sin = tensor(np.ones(num_envs)), tensor(np.zeros(num_envs))
        self._first_start = torch.arange(num_envs, device=device)
        self._next_start = self._first_start.clone()

    def start(self, where: Tensor, draws: RandomNumbers) -> None:
        """Draw a start, or take the next fixed one."""
        if self._fixed is None:
            self.place(where, self._middle + self._wide * (2 * draws.uniform(4) - 1))
            return
        if draws.is_first:
            replace(self._next_start, where, self._first_start)
        self.place(where, self._fixed[self._next_start % len(self._fixed)])
        self._next_start += self.num_envs * where

    def place(self, where: Tensor, states: Tensor) -> None:
        """Put the carts that ``where`` (B,) names into states (B, 4)."""
        replace(self.state.mT, where, states)
        replace(self._cos, where, states[:, 2].cos())
        replace(self._sin, where, states[:, 2].sin())

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, None]:
        """Advance by explicit Euler, positions with the old velocities; carts not ``running`` stand still."""
        x, x_dot, theta, theta_dot = self._parts
        cos, sin, mass, total = self._cos, self._sin, POLE_MASS * LENGTH, CART_MASS + POLE_MASS
        push = (actions[:, 0] * FORCE).sub_(x_dot, alpha=FRICTION)
        swing = theta_dot.square().mul_(sin)
        weight = torch.addcmul(self._weight, cos, cos, value=-3 * POLE_MASS)
        # m/s², (-2 m l swing + 3 m g sin cos + 4 push) / (4 M - 3 m cos²)
        of_cart = (push * 4).sub_(swing, alpha=2 * mass).addcmul_(sin, cos, value=3 * POLE_MASS * GRAVITY)
        of_cart.div_(weight)
        # m/s², l times rad/s², (-3 m l swing cos + 6 M g sin + 6 push cos) / (4 M - 3 m cos²)
        of_pole = push.mul_(6).sub_(swing, alpha=3 * mass).mul_(cos).add_(sin, alpha=6 * total * GRAVITY)
        of_pole.div_(weight)
        dt = running * self._dt
        x.addcmul_(dt, x_dot)
        theta.addcmul_(dt, theta_dot)
        x_dot.addcmul_(dt, of_cart)
        theta_dot.addcmul_(dt, of_pole, value=1 / LENGTH)
        torch.cos(theta, out=cos)
        torch.sin(theta, out=sin)
        # 1 where the pole stands upright in the middle of the track.
        rewards = (x * (BEND / TRACK)).cos_().mul_(0.5)
        rewards.addcmul_(rewards, cos)
        return rewards, x.abs() > TRACK, None

    def read(self) -> Tensor:
        """(B, 5) float32: x, x_dot, cos theta, sin theta, theta_dot."""
        x, x_dot, _, theta_dot = self._parts
        return torch.stack((x, x_dot, self._cos, self._sin, theta_dot)).mT.float()


@checked("env")
class CartPoleSwingUp(SensorTask):
    """The keys of ``conf/env/cartpole_swingup.yaml``.

    Args:
        senses: what happens to the readings.
        max_episode_steps: 1000 in the publication.
        starts: ``random``, or ``fixed`` for the 1000 of the repository.
        sensor_scales: factors of the five readings, which then stand beside every score; None: raw units.

    Raises:
        UserError: an invalid name or number.
    """

    name = CartPoles.name
    device_simulation = "torch"

    def __init__(
        self,
        senses: Annotated[Senses | None, part(Senses)] = None,
        max_episode_steps: Annotated[int, EPISODE_STEPS] = 1000,
        starts: Annotated[str, one_of(*STARTS)] = "random",
        sensor_scales: Annotated[Sequence[float] | None, SCALES] = None,
    ) -> None:
        super().__init__(senses, max_episode_steps)
        self.starts = starts
        self.sensor_scales = checked_scales(sensor_scales, SENSORS)

    def make_source(self, num_envs: int, threads: int = 0, device: torch.device | str = "cpu") -> CartPoles:
        """So many carts; they need no threads."""
        return CartPoles(num_envs, self.max_episode_steps, self.starts, device)


make_swingup_vec = functools.partial(vector_env_of, CartPoleSwingUp)
"""What ``gymnasium.make_vec`` calls."""


class SwingUpEnv(SingleEnv):
    """One cart, what ``gymnasium.make`` calls, with options of `vector_env_of`."""

    def __init__(self, render_mode: None = None, **options: Any) -> None:
        super().__init__(make_swingup_vec(1, autoreset_mode=AutoresetMode.DISABLED, **options), render_mode)


def is_plain_swingup(env: TokenEnv) -> bool:
    """Whether it is the task as published, on this processor, with nothing done to what is read."""
    of_carts = isinstance(env, SensorEnv) and type(env.source) is CartPoles and env.device.type == "cpu"
    return of_carts and env.knows_ends and env.senses == Senses() and env.sensor_scales is None
