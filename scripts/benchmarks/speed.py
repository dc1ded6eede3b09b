"""``somite-benchmark locomotion``, ``bodies``, ``car_racing``: steps per second of simulation and of PPO."""

from __future__ import annotations

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
from .harness import ARGUMENTS, COUNT, ROUNDS, ROUNDS_OR_NONE, SECONDS, Report, Rival, Turn, stepping
from .process_rivals import ants_of_processes, by_turns, gymnasium_async, sb3_subproc
from .training import ppo_rivals, task_set

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
            ("ant", "ant", self.num_envs, (gymnasium_async, sb3_subproc)),
            ("cheetahs", "cheetah", self.rows_per_body, ()),
        ):
            bodies = task_set([f"env={env}"])
            rows = rows_per_body * len(bodies.seen)
            steps = {f"{name}/bare": partial(bare, bodies, rows_per_body)}
            for kind in others:
                steps[f"{name}/{kind.__name__}"] = partial(ants_of_processes, kind, random_actions((rows, 8)))
            rivals = [stepping(rival, make, rows, self.seconds) for rival, make in steps.items()]
            own = stepping(f"{name}/somite", partial(ours, bodies, rows), rows, self.seconds, list(steps))
            report.compare(f"Simulation, {name}", [*rivals, own], self.rounds)


@checked("")
@dataclass
class Bodies:
    """The section ``bodies`` of ``conf/benchmark.yaml``, which says what its keys mean.

    Of ants: one compiled body for all (``equal``), every parameter of every limb drawn anew for each episode
    (``varied``), and as many compiled bodies as environments (``different``). Of ``topologies``: all in one
    vector environment (``mixed``), and each ``alone`` in as many environments, steps of all by their time.
    """

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
        equal, alone, each = "ants/equal", "topologies/alone", self.seconds / len(several)

        def stepped(
            name: str, task: TaskSet, rows: int, bodies: Sequence[Any], *against: str, **options: Any
        ) -> Rival:
            # Staggered, so that episodes end all the time.
            make = partial(ours, task, rows, names=bodies, stagger=True, **options)
            return stepping(name, make, rows, each if name == alone else self.seconds, against)

        rows = self.rows_per_topology * len(several)
        rivals = [
            stepped(equal, ants, self.num_envs, ["ant"]),
            stepped("ants/varied", ants, self.num_envs, ["ant"], equal, variation=everything),
            stepped("ants/different", ants, len(compiled), [variant.body for variant in compiled], equal),
            stepped("topologies/mixed", planar, rows, several, alone),
            Rival(alone, partial(_in_a_row, [stepped(alone, planar, rows, [body]) for body in several])),
        ]
        report.compare("Bodies", rivals, self.rounds)


def _in_a_row(rivals: Sequence[Rival], stack: ExitStack) -> Turn:
    """Steps of all by the time of all; they have equally many environments."""
    turns = [rival.start(stack) for rival in rivals]
    return lambda: len(turns) / sum(1 / turn() for turn in turns)


@checked("")
@dataclass
class CarRacingSpeed(Speed):
    """The section ``car_racing`` of ``conf/benchmark.yaml``, which says what its keys mean.

    Every step is a frame: physics, picture, reward, and a new track where an episode ends. ``frames/...`` is
    Gymnasium's ``CarRacing-v3`` with its own picture and ours, which gives grey patches as tokens and the
    state beside them, in one process or in one for each core; ``state/...`` is ours without pictures.
    """

    def _simulations(self, report: Report) -> None:
        torch.set_num_threads(1)
        cores, against = available_cores(), ["frames/gymnasium_1_core"]
        rivals = [stepping(against[0], _gymnasium_racing, 1, self.seconds)]
        own = {"frames/somite_1_core": ("patches", 1), "state/somite_1_core": ("state", 1)}
        for name, (view, threads) in {**own, f"frames/somite_{cores}_cores": ("patches", cores)}.items():
            if cores > 1 or not name.endswith("_cores"):
                options = {"draw": _racing, "stagger": True, "threads": threads}
                make = partial(ours, CarRacing(view=view), self.num_envs, **options)
                rivals.append(stepping(name, make, self.num_envs, self.seconds, tuple(against)))
                against = [rival.name for rival in rivals[:2]]
        report.compare(f"CarRacing, frames/s of {self.num_envs}", rivals, self.rounds)


def random_actions(shape: tuple[int, ...], low: Any = -1, high: Any = 1) -> list[np.ndarray]:
    """Sets of actions uniform in [low, high], float32 of this shape."""
    rng = np.random.default_rng(0)
    return [rng.uniform(low, high, shape).astype(np.float32) for _ in range(ACTION_SETS)]


_racing = partial(random_actions, low=(-0.3, -1.0, -1.0), high=(0.3, 0.0, -0.8))
"""Some steering and gas, hardly any brake."""


def bare(bodies: BodySet, rows_per_body: int, stack: ExitStack) -> Callable[[], Any]:
    """One step of ``mujoco.batch.Batch`` on all cores, controls written and nothing else done.

    Nothing is reset or observed, and there are no rewards. Bodies of different layouts are batches of their
    own, stepped one after another. They start as episodes do.
    """
    steps = [_bare_body(body, rows_per_body, bodies) for body in map(build, bodies.seen)]
    return lambda: [step() for step in steps]


def _bare_body(body: Morphology, rows: int, bodies: BodySet) -> Callable[[], None]:
    model, own, rng = body.model, bodies.set_of(body), np.random.default_rng(0)
    task = own.task
    batch = mujoco.batch.Batch(model, nsim=rows, nthread=max(1, min(available_cores(), rows)))
    batch.reset()
    # State fields are views of the simulations, so binding them costs nothing.
    batch.bind("qpos")[:] = body.initial_qpos + task.reset_noise * rng.uniform(-1, 1, (rows, model.nq))
    batch.bind("qvel")[:] = task.reset_speed_noise * rng.standard_normal((rows, model.nv))
    batch.forward()
    controls, (low, high) = batch.bind("ctrl"), model.actuator_ctrlrange.T

    def step(actions: np.ndarray) -> None:
        controls[:] = actions
        batch.step(nstep=own.frame_skip)

    drawn = random_actions((rows, model.nu))
    return by_turns(step, [low + (high - low) * (actions + 1) / 2 for actions in drawn])


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
    return by_turns(env.step, map(torch.from_numpy, draw((num_envs, *env.single_action_space.shape))))


def _gymnasium_racing(stack: ExitStack) -> Callable[[], None]:
    env = gymnasium.make("CarRacing-v3")
    stack.callback(env.close)
    env.reset(seed=0)
    low, high = env.action_space.low, env.action_space.high

    def step(action: np.ndarray) -> None:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()

    return by_turns(step, [low + (action + 1) * (high - low) / 2 for action in _racing((3,))])
