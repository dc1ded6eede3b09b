"""``somite-benchmark car_racing``: frames per second beside Gymnasium's, and PPO of the patch agent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated

import gymnasium
import numpy as np
import torch
from rich.console import Console

from ...envs.car_racing import CarRacing
from ...envs.cores import available_cores
from ...envs.numbers import VALUES, checked
from .arguments import ARGUMENTS, COUNT, ROUNDS_OR_NONE, SECONDS
from .ppo_speed import ppo_configs, ppo_rows
from .rates import interleave, make_rows, stepping
from .results import Results
from .simulation import ACTION_SETS
from .tables import keep

GYMNASIUM = "frames/gymnasium_1_core"
LOW, HIGH = (-0.3, -1.0, -1.0), (0.3, 0.0, -0.8)
"""Of random nominal actions: some steering and gas, hardly any brake."""


@checked("")
@dataclass
class CarRacingSpeed:
    """Keys of the section ``car_racing`` of ``conf/benchmark.yaml``.

    Every step is a frame: physics, picture, reward, and a new track where an episode ends. The rows:

    * ``frames/gymnasium_1_core``: ``CarRacing-v3`` with its own picture;
    * ``frames/somite_1_core``, ``frames/somite_<n>_cores``: ours, which gives grey patches as tokens and the
      state beside them, in one process and in one worker process for each core;
    * ``state/somite_1_core``: without pictures;
    * ``ppo/...``: iterations of PPO, with their share of time per phase.

    Args:
        num_envs: rows of ours.
        seconds: of each rival's turn in a round.
        rounds: the rivals in turn; 0 leaves them out.
        iterations: of each PPO variant, after one that is not counted; 0 leaves PPO out.
        ppo: arguments of ``somite-train`` for each variant by name.
        train: further arguments for all variants.

    Raises:
        UserError: an invalid value.
    """

    num_envs: Annotated[int, COUNT] = 16
    seconds: Annotated[float, SECONDS] = 3.0
    rounds: Annotated[int, ROUNDS_OR_NONE] = 5
    iterations: Annotated[int, ROUNDS_OR_NONE] = 2
    ppo: Annotated[Mapping[str, Sequence[str]], VALUES] = field(default_factory=dict)
    train: Annotated[Sequence[str], ARGUMENTS] = ()

    def run(self, results: Results, console: Console) -> None:
        """Measure, keep rows, print tables."""
        configs = ppo_configs(self.ppo, self.train) if self.iterations else {}
        with console.status("starting") as status, ExitStack() as stack:
            if self.rounds:
                rows = self._frames(status.update, stack)
                title = f"CarRacing, frames/s of {self.num_envs} rows, median of {self.rounds} rounds"
                keep(rows, title, results, console)
            if configs:
                rows = ppo_rows(configs, self.iterations, status.update)
                keep(rows, f"PPO, median of {self.iterations} iterations", results, console)

    def _frames(self, announce: Callable[[str], None], stack: ExitStack) -> list[dict]:
        torch.set_num_threads(1)
        rows, steps = self.num_envs, {GYMNASIUM: (_gymnasium(stack), 1)}
        steps["frames/somite_1_core"] = _ours(CarRacing(), rows, 1, stack), rows
        cores = available_cores()
        if cores > 1:
            steps[f"frames/somite_{cores}_cores"] = _ours(CarRacing(), rows, cores, stack), rows
        steps["state/somite_1_core"] = _ours(CarRacing(view="state"), rows, 1, stack), rows
        measures = {name: stepping(step, count, self.seconds) for name, (step, count) in steps.items()}
        rates = interleave(measures, self.rounds, announce)
        more = {name: {"num_envs": count} for name, (_, count) in steps.items()}
        found = make_rows(rates, [GYMNASIUM, "frames/somite_1_core"], more)
        for row in found:
            if row["name"] == GYMNASIUM:
                row["ratios"] = {}
        return found


def _ours(task: CarRacing, rows: int, threads: int, stack: ExitStack) -> Callable[[], None]:
    env = task.make_vec(num_envs=rows, stagger=True, threads=threads)
    stack.callback(env.close)
    env.reset(seed=0)
    actions = itertools.cycle(_actions((rows, 3)))
    return lambda: env.step(next(actions))


def _gymnasium(stack: ExitStack) -> Callable[[], None]:
    env = gymnasium.make("CarRacing-v3")
    stack.callback(env.close)
    env.reset(seed=0)
    low, high = env.action_space.low, env.action_space.high
    actions = itertools.cycle([(low + (a + 1) * (high - low) / 2).astype(np.float32) for a in _actions((3,))])

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(next(actions))
        if terminated or truncated:
            env.reset()

    return step


def _actions(shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(LOW, HIGH, shape) for _ in range(ACTION_SETS)]
