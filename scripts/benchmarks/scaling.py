"""``somite-benchmark scaling``: what a generation of CMA-ES costs, part by part, and on how many workers.

The parts are measured here, on one machine; what they add up to on more workers is computed by the model of
``docs/scaling.md``.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch

from ...agents.algorithms import CMAES
from ...agents.algorithms.cma_es import Search
from ...agents.device import threads_for_numpy
from ...agents.rollout.candidates import SEED_BYTES
from ...agents.rollout.compute import Work
from ...agents.rollout.stacked import get_parameters
from ...agents.storage.policy import load_policy
from ...agents.training.loop import make_algorithm, make_setup
from ...envs.cores import available_cores
from ...envs.errors import UserError
from ...envs.numbers import EPISODE_STEPS, checked, listed, real, whole
from ...envs.sensors import CartPoleSwingUp, Senses
from .harness import COUNT, ROUNDS, Report, Row, counted
from .population import CPU, SEED, draw, generations
from .setup import compose

SIGMA = 0.001
"""Deviation of the parameters, around those of the bundled agent."""
WORKERS_OF_A_MACHINE = 4
"""In what is computed."""
AGENT = "bundled/cartpole_swingup-attention_neuron"
PARTS = ("search", "tasks", "wire", "episodes")


@checked("")
@dataclass
class Scaling:
    """The section ``scaling`` of ``conf/benchmark.yaml``, which says what its keys mean.

    The task is the swing-up with the published agent of 913 parameters. Candidates lie close around the
    bundled one: what those cost that have learnt.

    Raises:
        UserError: an invalid number, or Ray is not installed.
    """

    candidates: Annotated[int, COUNT]
    episodes: Annotated[int, COUNT]
    steps: Annotated[int, EPISODE_STEPS]
    shard_sizes: Annotated[Sequence[int], listed(COUNT, 1)]
    ray_workers: Annotated[int, whole(0, 4096)]
    ray_shard_size: Annotated[int, COUNT]
    populations: Annotated[Sequence[int], listed(COUNT, 1)]
    workers: Annotated[Sequence[int], listed(COUNT, 1)]
    bandwidth: Annotated[float, real(0, 1e15, above=True)]
    rounds: Annotated[int, ROUNDS]

    def __post_init__(self) -> None:
        if len(set(self.shard_sizes)) < 2:
            raise UserError(
                f"shard_sizes must be two or more, to tell what each costs; got {self.shard_sizes}"
            )
        if self.ray_workers and importlib.util.find_spec("ray") is None:
            raise UserError("Ray is not installed: pip install -e '.[ray]', or say ray_workers=0")

    def run(self, report: Report) -> None:
        """Measure, keep rows, print what generations cost."""
        torch.set_num_threads(1)
        threads_for_numpy(1)
        self._task = CartPoleSwingUp(Senses(), self.steps)
        self._policy = load_policy(AGENT).policy
        n = len(get_parameters(self._policy))
        self._drawn = draw(self._policy, self.candidates, SIGMA, around=True)
        with ExitStack() as stack:
            parts = self._shards(stack) + self._searches(n)
            if self.ray_workers:
                parts += self._ray(report, stack)
        costs = self._costs({row["name"]: row["seconds"] for row in parts}, n)
        report.add(*parts, *costs)
        report.table("Measured here", parts, "seconds", "longest")
        report.table("A generation, computed", costs)

    def _generation(
        self, drawn: np.ndarray, threads: int, shard_size: int | None, stack: ExitStack
    ) -> Callable[[int], int]:
        given = (self._policy, self._task, drawn, self.episodes, threads, stack)
        return generations(*given, shard_size=shard_size)

    def _shards(self, stack: ExitStack) -> list[Row]:
        """A shard in one process, and what a shard and a candidate cost."""
        rows = []
        for size in self.shard_sizes:
            parts = [self._drawn[i : i + size] for i in range(0, self.candidates - size + 1, size)]
            seconds = []
            for part in parts[: max(1, 64 // size)]:  # candidates differ in how long they stay
                shard = self._generation(part, 1, size, stack)
                seconds.append(_seconds(lambda s=shard: s(0)))
            found = {"seconds": statistics.mean(seconds), "longest": max(seconds), "shards": len(seconds)}
            rows.append({"name": f"shard/{size}", **found})
        slope, fixed = np.polyfit(self.shard_sizes, [row["seconds"] for row in rows], 1)
        each = {"shard/each": fixed, "shard/candidate": slope}
        return rows + [{"name": name, "seconds": max(0.0, float(found))} for name, found in each.items()]

    def _searches(self, n: int) -> list[Row]:
        """Asking and telling on the driver."""
        rows = []
        for kind in ("full", "diagonal"):
            for size in self.populations:
                search = Search(CMAES(population=size, diagonal=kind == "diagonal"), np.zeros(n), 0)

                def generation(search: Search = search) -> None:
                    search.tell(-np.square(search.ask()).sum(1))

                generation()  # the first one decomposes nothing
                seconds = statistics.median(_seconds(generation) for _ in range(self.rounds))
                rows.append({"name": f"search/{kind}/{size}", "seconds": seconds})
        return rows

    def _ray(self, report: Report, stack: ExitStack) -> list[Row]:
        """Threads of this process beside processes of Ray, and what a task costs by itself."""
        size = self.ray_shard_size
        arguments = (
            f"env=cartpole_swingup env.max_episode_steps={self.steps} agent=attention_neuron "
            f"algorithm=cma_es algorithm.diagonal=true algorithm.population={self.candidates} "
            f"algorithm.shard_size={size} algorithm.episodes={self.episodes} compute=ray "
            f"compute.workers={self.ray_workers}"
        )
        config = compose(arguments.split())
        algorithm = make_algorithm(config)
        setup = make_setup(config, algorithm, CPU)
        work = setup.task_set, setup.environment, self.candidates, self.episodes, size, setup.threads
        cluster = setup.compute.evaluator(Work(self._policy, *work))
        stack.callback(cluster.close)
        starts = [[SEED, episode] for episode in range(self.episodes)]

        def on_ray(_: ExitStack) -> Callable[[int], int]:
            cluster.evaluate(self._drawn, starts)  # workers start
            return lambda _: int(cluster.evaluate(self._drawn, starts).lengths.sum())

        here = partial(self._generation, self._drawn, min(available_cores(), self.ray_workers))
        kinds = {"local": partial(here, None), "local_same_shards": partial(here, size), "ray": on_ray}
        local = [f"generation/{kind}" for kind in kinds][:2]
        rivals = [
            counted(f"generation/{kind}", make, 1, local if kind == "ray" else [])
            for kind, make in kinds.items()
        ]
        report.compare("A generation", rivals, self.rounds)
        empty = cluster._ray.remote(num_cpus=1, max_retries=0)(len)
        tasks = [self._drawn[:size].astype(np.float32)] * 64

        def nothing() -> None:
            cluster._ray.get([empty.remote(task) for task in tasks])

        nothing()
        each = statistics.median(_seconds(nothing) for _ in range(self.rounds)) / len(tasks)
        return [{"name": "ray/task", "seconds": each}]

    def _costs(self, found: Mapping[str, float], n: int) -> list[Row]:
        """What generations cost on more workers, each with the size of shards that is best for it."""
        rows = []
        for size in self.populations:
            for kind in ("full", "diagonal"):
                for workers in self.workers:
                    shards = [2**k for k in range(size.bit_length()) if 2**k <= size]
                    costs = [self._cost(found, n, kind, size, workers, shard) for shard in shards]
                    name = f"{kind}/{size} candidates/{workers} workers"
                    rows.append({"name": name} | min(costs, key=lambda cost: cost["seconds"]))
        return rows

    def _cost(
        self, found: Mapping[str, float], n: int, kind: str, population: int, workers: int, size: int
    ) -> dict[str, Any]:
        """The model of docs/scaling.md with what was measured."""
        shards = math.ceil(population / size)
        sent = 4 * n * population
        if kind == "diagonal":  # each machine fetches the mean and the deviations once
            machines = math.ceil(min(workers, shards) / WORKERS_OF_A_MACHINE)
            sent = min(sent, machines * 16 * n + SEED_BYTES * population)
        back = 17 * population * self.episodes
        parts = (
            found[f"search/{kind}/{population}"],
            shards * found.get("ray/task", 0.0),
            (sent + back) / self.bandwidth,
            math.ceil(shards / workers) * (found["shard/each"] + found["shard/candidate"] * size),
        )
        about = {"shard_size": size, "bytes_sent": sent, "bytes_back": back}
        return {"seconds": sum(parts), **dict(zip(PARTS, parts, strict=True)), **about}


def _seconds(do: Callable[[], object]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun
