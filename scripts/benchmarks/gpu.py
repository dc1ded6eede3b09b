"""``somite-benchmark gpu``: speed and memory of everything on a GPU, in one call of under ten minutes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from omegaconf import DictConfig

from ...agents.device import FLOAT32, WARP, resolve_device, resolve_simulation, set_threads, use_precision
from ...agents.policies import Policy
from ...agents.storage.policy import load_policy
from ...envs.cores import available_cores
from ...envs.numbers import EPISODE_STEPS, TEXT, VALUES, checked, listed, one_of, real
from ...envs.sensors import CartPoleSwingUp, Senses
from ...envs.task_set import TaskSet
from ..cli.values import DEVICE
from .gpu_device import (
    body_of,
    checked_bodies,
    compile_kernels,
    describe,
    graph_differences,
    memory_since,
    on_device,
    reward_differences,
    used_memory,
)
from .harness import ARGUMENTS, COUNT, ROUNDS, SECONDS, Report, Rival, Row, Turn, counted, stepping
from .population import CPU, draw, generations, initial_policy
from .scaling import AGENT, SIGMA
from .setup import PPOSpeed, compose, instantiate, ppo_rivals, task_set
from .speed import ours

CHECKS = {"graph": (graph_differences, 1e-4), "rewards": (reward_differences, 1e-3)}
"""What is compared, and how large differences may be."""
SHARES = {"check": 30, "simulation": 140, "ppo": 110, "population": 60, "memory": 80, "learning": 180}
"""Parts in their order; of what is left of the time a part has as much as its number is of those to come."""
MEMORY_STEPS = 16
"""Of an episode where only the memory of a population is looked at."""
SET_UP = 10
"""Seconds that making environments and learner may take."""


@checked("")
@dataclass
class GPU:
    """The section ``gpu`` of ``conf/benchmark.yaml``, which says what its keys mean."""

    device: Annotated[str, DEVICE]
    seconds: Annotated[float, SECONDS]
    parts: Annotated[Sequence[str], listed(one_of(*SHARES))]
    tasks: Annotated[Mapping[str, Sequence[str]], VALUES]
    worlds: Annotated[Sequence[int], listed(COUNT, 1)]
    turn: Annotated[float, SECONDS]
    rounds: Annotated[int, ROUNDS]
    num_envs: Annotated[Sequence[int], listed(COUNT)]
    on_device: Annotated[Sequence[str], ARGUMENTS]
    agent: Annotated[str, TEXT]
    target: Annotated[float, real(-1e12, 1e12)]
    seconds_to_return: Annotated[float, SECONDS]
    candidates: Annotated[int, COUNT]
    episodes: Annotated[int, COUNT]
    steps: Annotated[int, EPISODE_STEPS]
    limbs: Annotated[Sequence[str], ARGUMENTS]
    limb_candidates: Annotated[int, COUNT]
    limb_episodes: Annotated[int, COUNT]
    memory_bodies: Annotated[Sequence[str], ARGUMENTS]
    memory_populations: Annotated[Sequence[int], listed(COUNT)]
    compile_seconds: Annotated[float, SECONDS]
    train: Annotated[Sequence[str], ARGUMENTS]

    def run(self, report: Report) -> int:
        """Measure, keep rows, print tables. Returns the exit code: 1 if anything failed."""
        device = resolve_device(self.device)
        sets = {name: task_set(given) for name, given in self.tasks.items()}
        for bodies in sets.values():
            resolve_simulation(WARP, bodies, device)  # says how to install what is not there
        # Wrong names are refused before minutes are spent.
        limbs = compose(self.limbs)
        for name in self.memory_bodies:
            body_of(name)
        there = [*self.on_device, f"device={self.device}", f"simulation={WARP}"]
        ppo = {}
        for task, given in self.tasks.items():
            variants = {f"{task}/cpu": [*given, "device=cpu", "simulation=cpu"]} | {
                f"{task}/{count}": [*given, *there, f"algorithm.num_envs={count}"] for count in self.num_envs
            }
            ppo[task] = ppo_rivals(variants, [f"agent={self.agent}", *self.train])
        found = describe(device)
        report.machine |= found
        told = ", ".join(f"{name} {number}" for name, number in found["versions_of_simulation"].items())
        report.console.print(f"device: {found['device']}; {told}", highlight=False, soft_wrap=True)
        use_precision(FLOAT32, device)
        set_threads("auto")
        timed = Timed(report, device, self.seconds)
        self._compile(timed, sets)
        parts: dict[str, Callable[[], None]] = {
            "check": lambda: self._check(timed, sets),
            "simulation": lambda: self._simulation(timed, sets),
            "ppo": lambda: self._ppo(timed, ppo),
            "population": lambda: self._population(timed, limbs),
            "memory": lambda: self._memory(timed, next(iter(sets.values()))),
            "learning": lambda: self._learning(timed, ppo[list(ppo)[-1]]),
        }
        chosen = [part for part in SHARES if part in self.parts]
        for index, part in enumerate(chosen):
            timed.begin(part, SHARES[part] / sum(SHARES[other] for other in chosen[index:]))
            parts[part]()
        if timed.failures:
            report.console.print(f"failed: {', '.join(timed.failures)}", style="red", soft_wrap=True)
        return int(bool(timed.failures))

    def _compile(self, timed: Timed, sets: Mapping[str, TaskSet]) -> None:
        """Warp's kernels of all bodies, once for all parts."""
        needed = [name for bodies in sets.values() for name in bodies.seen]
        if "memory" in self.parts:  # large ones take long
            needed = [needed[0], *self.memory_bodies, *needed[1:]]
        if "check" in self.parts:
            needed += [name for bodies in sets.values() for name in checked_bodies(bodies)]
        names = list(dict.fromkeys(needed))

        def compiling() -> Row:
            start = time.perf_counter()
            workers = 1 if timed.device.type == "cpu" else available_cores()
            took, missing = compile_kernels(names, timed.device, workers, self.compile_seconds)
            seconds = time.perf_counter() - start
            say = partial(timed.console.print, highlight=False)
            say(f"  kernels of {len(names)} bodies: {seconds:.1f} s")
            if missing:
                say(f"  compiled when they are first used: {', '.join(missing)}")
            return {"seconds": seconds, "seconds_of_bodies": took, "not_in_time": missing}

        timed.begin("compile", min(1.0, self.compile_seconds / self.seconds))
        timed.keep("compile", compiling)

    def _check(self, timed: Timed, sets: Mapping[str, TaskSet]) -> None:
        """What differs by too much is a failure."""
        rows = []
        for task, bodies in sets.items():
            for what, (compare, allowed) in CHECKS.items():
                about = {"tolerance": allowed}
                found = timed.keep(
                    f"check/{what}/{task}", lambda c=compare, b=bodies, a=about: a | c(b, timed.device)
                )
                rows += found
                for row in found:
                    worst = row["largest_difference"]
                    if not worst <= allowed:  # it may be NaN
                        why = f"the largest difference is {worst:.3g}, allowed are {allowed:g}"
                        timed.fail(f"{row['name']}/too_large", why, {"differences": row["differences"]})
        timed.table("Differences after a few steps", rows, "largest_difference", "tolerance")

    def _simulation(self, timed: Timed, sets: Mapping[str, TaskSet]) -> None:
        """Random actions, with observation, reward and resets; then nothing but the simulation."""
        for task, bodies in sets.items():
            least = len(bodies.seen)
            on_cpu = -(-self.worlds[0] // least) * least
            cpu = f"simulation/{task}/cpu/{on_cpu}"
            rivals: list[Rival] = [stepping(cpu, partial(ours, bodies, on_cpu), on_cpu, self.turn)]
            for count in dict.fromkeys(max(number, least) for number in self.worlds):
                name = f"simulation/{task}/{count}"
                rivals += on_device(name, bodies, count, self.turn, timed.device, [cpu])
            timed.compare(f"Simulation, {task}", rivals, self.rounds)

    def _ppo(self, timed: Timed, ppo: Mapping[str, Sequence[PPOSpeed]]) -> None:
        for task, rivals in ppo.items():
            for rival in rivals[1:]:
                rival.against = [rivals[0].name]
            rows = timed.compare(f"PPO, {task}", rivals, self.rounds)
            timed.table("Memory", rows, "num_envs", "batch_size", "mib", "kib_each")

    def _population(self, timed: Timed, limbs: DictConfig) -> None:
        """Seconds of a generation on the CPU, on all cores, and on the device."""
        bodies: TaskSet = instantiate(limbs.env)
        for kind, policy, task, count, episodes, simulation in (
            ("swingup", *self._swingup(self.steps), self.candidates, self.episodes, "torch"),
            ("limbs", initial_policy(limbs, bodies), bodies, self.limb_candidates, self.limb_episodes, WARP),
        ):
            cpu, about = f"population/{kind}/cpu", {"candidates": count, "episodes": episodes}
            make = partial(around, policy, count, episodes)
            there = partial(make, task.simulated_by(simulation), timed.device)
            rivals = [
                counted(cpu, partial(make, task, CPU), **about),
                counted(f"population/{kind}/somite", there, 1, [cpu], **about),
            ]
            rows = timed.compare(f"Generations, {kind}", rivals, self.rounds)
            timed.table("Memory", rows, "candidates", "episodes", "mib", "kib_each")

    def _swingup(self, steps: int) -> tuple[Policy, TaskSet]:
        """The agent of 913 parameters, whose episodes last, and its task."""
        return load_policy(AGENT).policy, CartPoleSwingUp(Senses(), steps)

    def _memory(self, timed: Timed, bodies: TaskSet) -> None:
        """By limbs and by candidates. By worlds it stands beside the speed of simulation."""
        worlds, device = self.worlds[0], timed.device
        rivals = [
            on_device(f"memory/limbs/{body}/{worlds}", bodies, worlds, 0.1, device, [], [body_of(body)])[0]
            for body in self.memory_bodies
        ]
        policy, swingup = self._swingup(MEMORY_STEPS)
        for size in self.memory_populations:
            make = partial(around, policy, size, self.episodes, swingup.simulated_by("torch"), device)
            rivals.append(counted(f"memory/population/swingup/{size}", make, candidates=size))
        rows = timed.compare("Memory", rivals, 1)
        timed.table("Memory", rows, "limbs", "mib", "kib_each", "kib_of_arrays_each")

    def _learning(self, timed: Timed, ppo: Sequence[PPOSpeed]) -> None:
        """Seconds to a return, on the device with the most environments and then on the CPU."""
        limit = max(1.0, min(self.seconds_to_return, timed.left / 2 - SET_UP))
        rows = []
        for rival in (ppo[-1], ppo[0]):
            name = rival.name.replace("ppo", "learning", 1)
            rows += timed.keep(name, lambda r=rival: r.learn_until(self.target, limit))
        title = f"Until the mean return of all bodies is {self.target:g}, within {limit:.0f} s"
        timed.table(title, rows, "seconds_to_return", "return", "steps", "seconds", "seconds_of_setup")


def around(
    policy: Policy, candidates: int, episodes: int, task: TaskSet, device: torch.device, stack: ExitStack
) -> Callable[[int], int]:
    """A generation close around a policy: what candidates cost that have learnt as much as it has."""
    drawn = draw(policy, candidates, SIGMA, around=True)
    return generations(policy, task, drawn, episodes, available_cores(), stack, device)


class Timed(Report):
    """A report whose measurements share so many seconds of a device, and which tells its memory.

    A measurement that fails (``failures``), or that there is no time for, has a row that says so; the others
    go on. One that has begun has at least one round.
    """

    def __init__(
        self,
        report: Report,
        device: torch.device,
        seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(report.path, report.machine, report.console)
        self.rows, self.device, self._clock = report.rows, device, clock
        self._end = self._end_of_part = clock() + seconds
        self.failures: list[str] = []

    @property
    def left(self) -> float:  # noqa: D102
        return self._end_of_part - self._clock()

    def begin(self, part: str, share: float) -> None:
        """Begin a part that has this share of the seconds that are left."""
        now = self._clock()
        seconds = max(0.0, self._end - now) * share
        self._end_of_part = now + seconds
        self.console.print(f"{part} (at most about {seconds:.0f} s)", highlight=False)

    def attempt(self, name: str, do: Callable[[], Any], begun: bool = False) -> bool:  # noqa: D102
        if not begun and self.left <= 0:
            self.add({"name": name, "not_run": "no time left"})
            self.console.print(f"  {name}: not run: no time left", highlight=False)
            return False
        try:
            do()
        except Exception as error:  # one call measures all, and this is told at once, and at the end
            self.fail(name, f"{type(error).__name__}: {error}", {"traceback": traceback.format_exc()})
            return False
        return True

    def keep(self, name: str, do: Callable[[], Row]) -> list[Row]:
        """Attempt what gives the fields of one row. Returns the row, or nothing."""
        rows: list[Row] = []
        if self.attempt(name, lambda: rows.append({"name": name, **do()})):
            self.add(*rows)
        return rows

    def start(self, rival: Rival, stack: ExitStack) -> Turn:
        """Start a rival; its row tells the memory of the device that it takes."""
        before = used_memory(self.device)
        turn = rival.start(stack)
        count = rival.more.get("num_envs") or rival.more["candidates"]
        rival.more |= memory_since(before, count, self.device)
        return turn

    def fail(self, name: str, why: str, more: Mapping[str, Any]) -> None:
        """Keep and print a failure, with further fields of its row."""
        self.failures.append(name)
        self.add({"name": name, "failed": why, **more})
        self.console.print(f"  {name}: FAILED: {why}", style="red", highlight=False, soft_wrap=True)
