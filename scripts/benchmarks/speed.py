"""``somite-benchmark locomotion``, ``bodies``, ``car_racing``: steps per second of simulation and of PPO."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import gymnasium
import mujoco.batch
import numpy as np
import torch

from ...agents.device import set_threads
from ...envs.car_racing import CarRacing
from ...envs.cores import available_cores
from ...envs.locomotion import BodySet, BodyVariation, Morphology, build
from ...envs.locomotion.varied.variants import compile_variants
from ...envs.locomotion.varied.variation import QUANTITIES
from ...envs.numbers import TEXT, VALUES, between, checked, listed, real
from ...envs.task_set import TaskSet
from . import process_rivals
from .harness import ARGUMENTS, COUNT, ROUNDS, ROUNDS_OR_NONE, SECONDS, Report, Rival, Turn, stepping
from .setup import ppo_rivals, task_set

GYMNASIUM, OURS = "frames/gymnasium_1_core", "frames/somite_1_core"
ACTION_SETS = 64
"""Random actions are drawn beforehand and used in turn: drawing them is nobody's simulation."""


@dataclass
class Speed:
    """Simulation beside its rivals, and PPO with its share of time per phase."""

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
            self._simulations(report)
        if ppo:
            report.compare("PPO", ppo, self.iterations)


@checked("")
@dataclass(kw_only=True)
class Locomotion(Speed):
    """The section ``locomotion`` of ``conf/benchmark.yaml``, which says what its keys mean."""

    rows_per_body: Annotated[int, COUNT]

    def _simulations(self, report: Report) -> None:
        set_threads("auto")
        for name, env, rows_per_body, others in (
            ("ant", "ant", self.num_envs, (process_rivals.gymnasium_async, process_rivals.sb3_subproc)),
            ("cheetahs", "cheetah", self.rows_per_body, ()),
        ):
            bodies = task_set([f"env={env}"])
            rows = rows_per_body * len(bodies.seen)
            actions = random_actions((rows, 8))
            steps = {f"{name}/bare": partial(bare, bodies, rows_per_body)}
            steps |= {f"{name}/{other.__name__}": partial(other, actions) for other in others}
            rivals = [stepping(rival, make, rows, self.seconds) for rival, make in steps.items()]
            own = stepping(f"{name}/somite", partial(ours, bodies, rows), rows, self.seconds, list(steps))
            report.compare(f"Simulation, {name}", [*rivals, own], self.rounds)


@checked("")
@dataclass
class Bodies:
    """The section ``bodies`` of ``conf/benchmark.yaml``, which says what its keys mean. The rows are

    * ``ants/equal``: one compiled body, a batch for all;
    * ``ants/varied``: every parameter of every limb drawn anew at the start of each episode;
    * ``ants/different``: as many compiled bodies as environments, which share a layout;
    * ``topologies/alone``: the mean speed of all ``topologies``, each alone in as many environments as the
      mixed ones are, steps of all divided by the time of all;
    * ``topologies/mixed``: all of them in one environment.
    """  # noqa: D205, D400, D415

    num_envs: Annotated[int, COUNT]
    rows_per_topology: Annotated[int, COUNT]
    topologies: Annotated[Sequence[str], listed(TEXT, 1)]
    factors: Annotated[Sequence[float], between(real(0, 1000, above=True))]
    seconds: Annotated[float, SECONDS]
    rounds: Annotated[int, ROUNDS]
    train: Annotated[Sequence[str], ARGUMENTS]

    def run(self, report: Report) -> None:
        """Measure, keep rows, print tables."""
        ants, planar = (task_set([f"env={env}", *self.train]) for env in ("ant", "cheetah"))
        set_threads("auto")
        everything = BodyVariation(**{name: list(self.factors) for name in QUANTITIES})
        lengths = BodyVariation(length=list(self.factors), variants=self.num_envs)
        compiled = compile_variants(ants.morphology("ant"), lengths, None, (1.0, 0.0))
        several = [build(name) for name in self.topologies]
        rivals: list[Rival] = []
        for name, task, per_body, bodies, options in (
            ("ants/equal", ants, self.num_envs, ["ant"], {}),
            ("ants/varied", ants, self.num_envs, ["ant"], {"variation": everything}),
            ("ants/different", ants, 1, [variant.body for variant in compiled], {}),
            ("topologies/mixed", planar, self.rows_per_topology, several, {}),
        ):
            rows = per_body * len(bodies)
            # Staggered, so that episodes end all the time.
            make = partial(ours, task, rows, names=bodies, stagger=True, **options)
            against = {"ants/equal": [], "topologies/mixed": ["topologies/alone"]}.get(name, ["ants/equal"])
            rivals.append(stepping(name, make, rows, self.seconds, against))
        make_alone = [partial(ours, planar, rows, names=[body], stagger=True) for body in several]
        each = self.seconds / len(several)
        alone = partial(_one_after_another, [stepping("", make, rows, each) for make in make_alone])
        report.compare("Bodies", [*rivals, Rival("topologies/alone", alone)], self.rounds)


def _one_after_another(rivals: Sequence[Rival], stack: ExitStack) -> Turn:
    """Steps of all by the time of all; they have equally many environments."""
    turns = [rival.start(stack) for rival in rivals]
    return lambda: len(turns) / sum(1 / turn() for turn in turns)


@checked("")
@dataclass
class CarRacingSpeed(Speed):
    """The section ``car_racing`` of ``conf/benchmark.yaml``, which says what its keys mean.

    Every step is a frame: physics, picture, reward, and a new track where an episode ends. The rows:

    * ``frames/gymnasium_1_core``: ``CarRacing-v3`` with its own picture;
    * ``frames/somite_1_core``, ``frames/somite_<n>_cores``: ours, which gives grey patches as tokens and the
      state beside them, in one process and in one worker process for each core;
    * ``state/somite_1_core``: without pictures;
    * ``ppo/...``: iterations of PPO, with their share of time per phase.
    """

    def _simulations(self, report: Report) -> None:
        torch.set_num_threads(1)
        cores, rows = available_cores(), self.num_envs
        rivals = [stepping(GYMNASIUM, _gymnasium_racing, 1, self.seconds)]
        for name, view, threads in (
            (OURS, "patches", 1),
            ("state/somite_1_core", "state", 1),
            (f"frames/somite_{cores}_cores", "patches", cores),
        ):
            make = partial(ours, CarRacing(view=view), rows, draw=racing, stagger=True, threads=threads)
            against = [GYMNASIUM] if name == OURS else [GYMNASIUM, OURS]
            rivals.append(stepping(name, make, rows, self.seconds, against))
        rivals = rivals if cores > 1 else rivals[:-1]
        report.compare(f"CarRacing, frames/s of {rows}", rivals, self.rounds)


def random_actions(shape: tuple[int, ...], low: Any = -1, high: Any = 1) -> list[np.ndarray]:
    """Sets of actions uniform in [low, high], float32 of this shape."""
    rng = np.random.default_rng(0)
    return [rng.uniform(low, high, shape).astype(np.float32) for _ in range(ACTION_SETS)]


racing = partial(random_actions, low=(-0.3, -1.0, -1.0), high=(0.3, 0.0, -0.8))
"""Some steering and gas, hardly any brake."""


def bare(bodies: BodySet, rows_per_body: int, stack: ExitStack) -> Callable[[], Any]:
    """One step of ``mujoco.batch.Batch`` on all cores, controls written and nothing else done.

    Nothing is reset, observed or judged. Bodies of different layouts are batches of their own, stepped one
    after another. They start as episodes do.
    """
    steps = [_bare_body(body, rows_per_body, bodies) for body in map(build, bodies.seen)]
    return lambda: [step() for step in steps]


def _bare_body(body: Morphology, rows: int, bodies: BodySet) -> Callable[[], None]:
    model, task = body.model, bodies.task
    batch = mujoco.batch.Batch(model, nsim=rows, nthread=max(1, min(available_cores(), rows)))
    rng = np.random.default_rng(0)
    batch.reset()
    # State fields are views of the simulations, so binding them costs nothing.
    batch.bind("qpos")[:] = body.initial_qpos + task.reset_noise * rng.uniform(-1, 1, (rows, model.nq))
    batch.bind("qvel")[:] = task.reset_speed_noise * rng.standard_normal((rows, model.nv))
    batch.forward()
    controls = batch.bind("ctrl")
    low, high = model.actuator_ctrlrange.T
    actions = [low + (high - low) * (action + 1) / 2 for action in random_actions((rows, model.nu))]
    turn = itertools.cycle(actions)

    def step() -> None:
        controls[:] = next(turn)
        batch.step(nstep=bodies.frame_skip)

    return step


def ours(
    task: TaskSet,
    num_envs: int,
    stack: ExitStack,
    names: Sequence[str | Morphology] | None = None,
    draw: Callable[[tuple[int, ...]], list[np.ndarray]] = random_actions,
    **options: Any,
) -> Callable[[], Any]:
    """One step of our environment on the CPU, with observation, reward and resets.

    ``names`` and ``options`` are those of `TaskSet.make_env`; ``draw`` gives sets of actions of a shape.
    """
    env = task.make_env(names, num_envs, **options)
    stack.callback(env.close)
    env.reset(seed=0)
    shape = (num_envs, *env.single_action_space.shape)
    turn = itertools.cycle([torch.from_numpy(actions) for actions in draw(shape)])
    return lambda: env.step(next(turn))


def _gymnasium_racing(stack: ExitStack) -> Callable[[], None]:
    env = gymnasium.make("CarRacing-v3")
    stack.callback(env.close)
    env.reset(seed=0)
    low, high = env.action_space.low, env.action_space.high
    turn = itertools.cycle([low + (a + 1) * (high - low) / 2 for a in racing((3,))])

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(next(turn))
        if terminated or truncated:
            env.reset()

    return step
