"""``somite-benchmark car_racing``: frames per second beside Gymnasium's, and PPO of the patch agent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import gymnasium
import torch

from ...envs.car_racing import CarRacing
from ...envs.cores import available_cores
from ...envs.numbers import VALUES, checked
from .harness import ARGUMENTS, COUNT, ROUNDS_OR_NONE, SECONDS, Report, stepping
from .locomotion import ours, random_actions
from .setup import ppo_rivals

GYMNASIUM, OURS = "frames/gymnasium_1_core", "frames/somite_1_core"
_actions = partial(random_actions, low=(-0.3, -1.0, -1.0), high=(0.3, 0.0, -0.8))
"""Some steering and gas, hardly any brake."""


@checked("")
@dataclass
class CarRacingSpeed:
    """The section ``car_racing`` of ``conf/benchmark.yaml``, which says what its keys mean.

    Every step is a frame: physics, picture, reward, and a new track where an episode ends. The rows:

    * ``frames/gymnasium_1_core``: ``CarRacing-v3`` with its own picture;
    * ``frames/somite_1_core``, ``frames/somite_<n>_cores``: ours, which gives grey patches as tokens and the
      state beside them, in one process and in one worker process for each core;
    * ``state/somite_1_core``: without pictures;
    * ``ppo/...``: iterations of PPO, with their share of time per phase.
    """

    num_envs: Annotated[int, COUNT]
    seconds: Annotated[float, SECONDS]
    rounds: Annotated[int, ROUNDS_OR_NONE]
    iterations: Annotated[int, ROUNDS_OR_NONE]
    ppo: Annotated[Mapping[str, Sequence[str]], VALUES]
    train: Annotated[Sequence[str], ARGUMENTS]

    def run(self, report: Report) -> None:
        """Measure, keep rows, print tables."""
        ppo = ppo_rivals(self.ppo, self.train) if self.iterations else []
        if self.rounds:
            torch.set_num_threads(1)
            cores, rows = available_cores(), self.num_envs
            rivals = [stepping(GYMNASIUM, _gymnasium, 1, self.seconds)]
            for name, view, threads in (
                (OURS, "patches", 1),
                ("state/somite_1_core", "state", 1),
                (f"frames/somite_{cores}_cores", "patches", cores),
            ):
                make = partial(ours, CarRacing(view=view), rows, draw=_actions, stagger=True, threads=threads)
                against = [GYMNASIUM] if name == OURS else [GYMNASIUM, OURS]
                rivals.append(stepping(name, make, rows, self.seconds, against))
            rivals = rivals if cores > 1 else rivals[:-1]
            report.compare(f"CarRacing, frames/s of {rows}", rivals, self.rounds)
        if ppo:
            report.compare("PPO", ppo, self.iterations)


def _gymnasium(stack: ExitStack) -> Callable[[], None]:
    env = gymnasium.make("CarRacing-v3")
    stack.callback(env.close)
    env.reset(seed=0)
    low, high = env.action_space.low, env.action_space.high
    turn = itertools.cycle([low + (a + 1) * (high - low) / 2 for a in _actions((3,))])

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(next(turn))
        if terminated or truncated:
            env.reset()

    return step
