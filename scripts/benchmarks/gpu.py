"""``somite-benchmark gpu``: speed and memory of everything on a GPU, in one call of under ten minutes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import hydra
import torch
from rich.console import Console

from ...agents.device import FLOAT32, WARP, resolve_device, resolve_simulation, set_threads, use_precision
from ...envs.cores import available_cores
from ...envs.errors import UserError, nearest
from ...envs.locomotion import BodySet
from ...envs.numbers import EPISODE_STEPS, NULL, TEXT, VALUES, checked, listed, one_of, real, whole
from ..cli.values import DEVICE
from .arguments import ARGUMENTS, COUNT, ROUNDS, SECONDS
from .gpu_check import check, checked_bodies
from .gpu_device import body_of, compile_kernels, describe
from .gpu_memory import measure_memory
from .gpu_population import limbs, measure_populations, swingup
from .gpu_ppo import measure_learning, measure_ppo
from .gpu_report import Report
from .gpu_simulation import measure_simulation
from .results import Results
from .training_setup import compose

SHARES = {"check": 30, "simulation": 140, "ppo": 110, "population": 60, "memory": 80, "learning": 180}
"""Parts in their order; of what is left of the time a part has as much as its number is of those to come."""

MEMORY_STEPS = 16
"""Of an episode where only the memory of a population is looked at."""


@checked("")
@dataclass
class GPU:
    """Keys of the section ``gpu`` of ``conf/benchmark.yaml``.

    Args:
        device: that is measured; ``cpu`` runs the same code there, slowly.
        seconds: of all parts; what does not fit is told as not run.
        parts: which are run, of `SHARES`.
        tasks: arguments of ``somite-train`` for each task of bodies by name.
        worlds: of simulations, at least one for each body.
        cpu_rows: of the CPU's simulation.
        turn: seconds of each rival's turn. rounds: how many turns, and generations on the device.
        num_envs: rows of PPO on the device.
        on_device: further arguments of ``somite-train`` for PPO there.
        iterations: of PPO that are counted.
        agent: that PPO trains.
        target_task: that is learnt until ``target``, the mean return of all bodies, is reached, or for
            ``seconds_to_return``.
        candidates, episodes, steps: of a generation of the swing-up.
        limbs: arguments of ``somite-train`` for a generation of a limb policy; the next two are of it.
        limb_candidates, limb_episodes: how many, and of each.
        memory_bodies: whose memory is told beside each other, with ``memory_worlds`` each. A centipede may
            have more legs than its family has.
        memory_populations: candidates.
        compile_seconds: that the kernels of all bodies may take to compile, of ``seconds``.
        workers: processes that compile kernels; null: one for each core.
        train: further arguments of ``somite-train`` for PPO.

    Raises:
        UserError: an invalid value.
    """

    device: Annotated[str, DEVICE] = "cuda"
    seconds: Annotated[float, SECONDS] = 540.0
    parts: Annotated[Sequence[str], listed(one_of(*SHARES))] = tuple(SHARES)
    tasks: Annotated[Mapping[str, Sequence[str]], VALUES] = field(
        default_factory=lambda: {"ant": ["env=ant"], "cheetah": ["env=cheetah"]}
    )
    worlds: Annotated[Sequence[int], listed(COUNT)] = (1024, 4096, 16384)
    cpu_rows: Annotated[int, COUNT] = 1024
    turn: Annotated[float, SECONDS] = 1.5
    rounds: Annotated[int, ROUNDS] = 2
    num_envs: Annotated[Sequence[int], listed(COUNT)] = (1024, 4096)
    on_device: Annotated[Sequence[str], ARGUMENTS] = ("algorithm.batch_size=16384",)
    iterations: Annotated[int, ROUNDS] = 2
    agent: Annotated[str, TEXT] = "limb_transformer"
    target_task: Annotated[str, TEXT] = "cheetah"
    target: Annotated[float, real(-1e12, 1e12)] = 1500.0
    seconds_to_return: Annotated[float, SECONDS] = 90.0
    candidates: Annotated[int, COUNT] = 256
    episodes: Annotated[int, COUNT] = 16
    steps: Annotated[int, EPISODE_STEPS] = 1000
    limbs: Annotated[Sequence[str], ARGUMENTS] = (
        "env=cheetah",
        "env.bodies=[cheetah_7_full]",
        "env.task.max_episode_steps=200",
        "agent=smp",
    )
    limb_candidates: Annotated[int, COUNT] = 64
    limb_episodes: Annotated[int, COUNT] = 4
    memory_bodies: Annotated[Sequence[str], ARGUMENTS] = (
        "centipede_26",
        "centipede_12",
        "centipede_2",
        "quadruped_0",
    )
    memory_worlds: Annotated[int, COUNT] = 1024
    memory_populations: Annotated[Sequence[int], listed(COUNT)] = (64, 256, 1024)
    compile_seconds: Annotated[float, SECONDS] = 180.0
    workers: Annotated[int | None, whole(1, 4096) | NULL] = None
    train: Annotated[Sequence[str], ARGUMENTS] = ()

    def __post_init__(self) -> None:
        if self.target_task not in self.tasks:
            raise UserError(
                f"target_task is {self.target_task!r}; {nearest(self.target_task, tuple(self.tasks))}"
            )
        self.workers = self.workers or available_cores()

    def run(self, results: Results, console: Console) -> int:
        """Measure, keep rows, print tables. Returns the exit code: 1 if anything failed."""
        device = resolve_device(self.device)
        sets = {name: _bodies(given) for name, given in self.tasks.items()}
        for bodies in sets.values():
            resolve_simulation(WARP, bodies, device)  # says how to install what is not there
        # Wrong names are refused before minutes are spent.
        generation = limbs(self.limbs, self.limb_candidates, self.limb_episodes)
        for name in self.memory_bodies:
            body_of(name)
        for given in self._ppo.values():
            compose([*given, *self._on_device])
        found = describe(device)
        results.machine |= found
        told = ", ".join(f"{name} {number}" for name, number in found["versions_of_simulation"].items())
        console.print(f"device: {found['device']}; {told}", highlight=False, soft_wrap=True)
        use_precision(FLOAT32, device)
        set_threads("auto")
        report = Report(results, console, self.seconds)
        self._compile(report, sets, device)
        populations = {"swingup": swingup(self.candidates, self.episodes, self.steps), "limbs": generation}
        parts: dict[str, Callable[[], None]] = {
            "check": lambda: check(report, sets, device),
            "simulation": lambda: measure_simulation(
                report, sets, self.worlds, self.cpu_rows, self.turn, self.rounds, device
            ),
            "ppo": lambda: measure_ppo(
                report, self._ppo, self.num_envs, self._on_device, self.iterations, device
            ),
            "population": lambda: measure_populations(report, populations, self.rounds, device),
            "memory": lambda: measure_memory(
                report,
                sets,
                self.worlds,
                self.memory_bodies,
                self.memory_worlds,
                {"swingup": functools.partial(swingup, episodes=self.episodes, steps=MEMORY_STEPS)},
                self.memory_populations,
                device,
            ),
            "learning": lambda: measure_learning(
                report,
                self.target_task,
                self._ppo[self.target_task],
                max(self.num_envs),
                self._on_device,
                self.target,
                self.seconds_to_return,
            ),
        }
        chosen = [part for part in SHARES if part in self.parts]
        for index, part in enumerate(chosen):
            report.begin(part, SHARES[part] / sum(SHARES[other] for other in chosen[index:]))
            parts[part]()
        if report.failures:
            console.print(f"failed: {', '.join(report.failures)}", style="red", soft_wrap=True)
        return int(bool(report.failures))

    @property
    def _ppo(self) -> dict[str, list[str]]:
        return {name: [*given, f"agent={self.agent}", *self.train] for name, given in self.tasks.items()}

    @property
    def _on_device(self) -> list[str]:
        return [*self.on_device, f"device={self.device}", f"simulation={WARP}"]

    def _compile(self, report: Report, sets: Mapping[str, BodySet], device: torch.device) -> None:
        """Warp's kernels of all bodies, once for all parts."""
        needed = [name for bodies in sets.values() for name in bodies.seen]
        if "memory" in self.parts:  # large ones take long
            needed = [needed[0], *self.memory_bodies, *needed[1:]]
        if "check" in self.parts:
            needed += [name for bodies in sets.values() for name in checked_bodies(bodies)]
        names = list(dict.fromkeys(needed))

        def compiling() -> list[dict[str, object]]:
            start = time.perf_counter()
            took, missing = compile_kernels(names, device, self.workers, self.compile_seconds)
            seconds = time.perf_counter() - start
            more = {"seconds_of_bodies": took, "not_in_time": missing}
            return [{"name": "compile", "seconds": seconds, **more}]

        report.begin("compile", min(1.0, self.compile_seconds / self.seconds))
        for row in report.measure("compile", compiling):
            report.console.print(f"  kernels of {len(names)} bodies: {row['seconds']:.1f} s", highlight=False)
            if row["not_in_time"]:
                late = ", ".join(row["not_in_time"])
                report.console.print(f"  compiled when they are first used: {late}", highlight=False)


def _bodies(arguments: Sequence[str]) -> BodySet:
    return hydra.utils.instantiate(compose(arguments).env, _convert_="all")
