"""``somite-benchmark scaling``: what a generation of CMA-ES costs, part by part, and on how many workers.

The parts are measured here, on one machine; what they add up to on more workers is computed by the model of
``docs/scaling.md``.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ...agents.algorithms import CMAES
from ...agents.algorithms.cma_es import Search
from ...agents.device import threads_for_numpy
from ...agents.rollout.messages import SEED_BYTES
from ...agents.rollout.population import Population, Simulator, count_parameters, get_parameters
from ...agents.rollout.ray_population import Ray
from ...agents.storage.policy import load_policy
from ...envs.cores import available_cores
from ...envs.errors import UserError
from ...envs.numbers import EPISODE_STEPS, checked, listed, real, whole
from ...envs.sensors import CartPoleSwingUp, Senses
from .arguments import COUNT, ROUNDS
from .results import Results

SIGMA = 0.001
"""Deviation of the parameters, around those of the bundled agent."""

WORKERS_OF_A_MACHINE = 4
"""In what is computed."""

AGENT = "bundled/cartpole_swingup-attention_neuron"

TARGET = "somite.envs.sensors.CartPoleSwingUp"


@checked("")
@dataclass
class Scaling:
    """Keys of the section ``scaling`` of ``conf/benchmark.yaml``.

    The task is the swing-up with the published agent of 913 parameters. Candidates lie close around the
    bundled one: what those cost that have learnt.

    Args:
        candidates: P, of a generation.
        episodes: of each.
        steps: of an episode at most.
        shard_sizes: that are timed in one process.
        ray_workers: processes of a Ray cluster on this machine; 0 leaves Ray out.
        ray_shard_size: candidates of a shard there and, to compare, in threads of this process.
        populations: that the search is timed with.
        workers: that costs are computed for.
        bandwidth: bytes/s between the driver and the cluster, of the computed costs.
        rounds: how often each thing is timed; the median counts.

    Raises:
        UserError: a number that cannot be meant, or Ray is not installed.
    """

    candidates: Annotated[int, COUNT] = 256
    episodes: Annotated[int, COUNT] = 16
    steps: Annotated[int, EPISODE_STEPS] = 1000
    shard_sizes: Annotated[Sequence[int], listed(COUNT, 1)] = field(default_factory=lambda: [1, 4, 16, 64])
    ray_workers: Annotated[int, whole(0, 4096)] = 2
    ray_shard_size: Annotated[int, COUNT] = 64
    populations: Annotated[Sequence[int], listed(COUNT, 1)] = field(default_factory=lambda: [256, 4096])
    workers: Annotated[Sequence[int], listed(COUNT, 1)] = field(default_factory=lambda: [1, 16, 256, 4096])
    bandwidth: Annotated[float, real(0, 1e15, above=True)] = 125e6
    rounds: Annotated[int, ROUNDS] = 3

    def __post_init__(self) -> None:
        if len(set(self.shard_sizes)) < 2:
            raise UserError(
                f"shard_sizes must be two or more, to tell what each costs; got {self.shard_sizes}"
            )
        if self.ray_workers and importlib.util.find_spec("ray") is None:
            raise UserError("Ray is not installed: pip install -e '.[ray]', or say ray_workers=0")

    def run(self, results: Results, console: Console) -> None:
        """Measure, keep rows, print what generations cost."""
        torch.set_num_threads(1)
        threads_for_numpy(1)
        self._task = CartPoleSwingUp(Senses(), self.steps)
        self._policy = load_policy(AGENT).policy
        n = count_parameters(self._policy)
        self._starts = [[0, episode] for episode in range(self.episodes)]
        around = np.random.default_rng(0).standard_normal((self.candidates, n))
        self._drawn = get_parameters(self._policy) + SIGMA * around
        rows = self._shards() + self._searches(n)
        if self.ray_workers:
            rows += self._ray()
        for row in rows:
            results.add(row)
        console.print(_table("Measured here", rows))
        found = {row["name"]: row["seconds"] for row in rows}
        costs = self._costs(found, n)
        for row in costs:
            results.add(row)
        console.print(_table("A generation, computed", costs))

    def _shards(self) -> list[dict[str, Any]]:
        """A shard in one process, and what a shard and a candidate cost."""
        simulator = Simulator(self._policy, self._task, self.episodes)
        rows, samples = [], []
        for size in self.shard_sizes:
            parts = [self._drawn[i : i + size] for i in range(0, self.candidates - size + 1, size)]
            parts = parts[: max(1, 64 // size)]  # candidates differ in how long they stay
            seconds = []
            for part in parts:
                begun = time.perf_counter()
                simulator.run(part, self._starts, lambda: False)
                seconds.append(time.perf_counter() - begun)
            samples.append((size, statistics.mean(seconds)))
            spread = {"longest": max(seconds), "shards": len(seconds)}
            rows.append({"name": f"shard/{size}", "seconds": samples[-1][1], **spread})
        simulator.close()
        slope, fixed = np.polyfit(*np.array(samples).T, 1)
        rows.append({"name": "shard/each", "seconds": max(0.0, float(fixed))})
        rows.append({"name": "shard/candidate", "seconds": max(0.0, float(slope))})
        return rows

    def _searches(self, n: int) -> list[dict[str, Any]]:
        """Asking and telling on the driver."""
        rows = []
        for diagonal in (False, True):
            for population in self.populations:
                search = Search(CMAES(population=population, diagonal=diagonal), np.zeros(n), 0)

                def generation(search: Search = search) -> None:
                    search.tell(-np.square(search.ask()).sum(1))

                generation()  # the first one decomposes nothing
                seconds = _median(generation, self.rounds)
                kind = "diagonal" if diagonal else "full"
                rows.append({"name": f"search/{kind}/{population}", "seconds": seconds})
        return rows

    def _ray(self) -> list[dict[str, Any]]:
        """Threads of this process beside processes of Ray, and what a task costs by itself."""
        settings = CMAES(
            population=self.candidates, episodes=self.episodes, shard_size=self.ray_shard_size, diagonal=True
        )
        environment = {"_target_": TARGET, "max_episode_steps": self.steps}
        cluster = Ray(workers=self.ray_workers).evaluator(
            settings, self._policy, self._task, environment, 1, torch.device("cpu")
        )
        threads = min(available_cores(), self.ray_workers)
        shapes = {"local": None, "local_same_shards": self.ray_shard_size}
        here = {
            name: Population(
                self._policy, self._task, self.candidates, self.episodes, threads, shard_size=size
            )
            for name, size in shapes.items()
        }
        rivals = {**here, "ray": cluster}
        seconds: dict[str, list[float]] = {name: [] for name in rivals}
        for evaluator in rivals.values():  # workers start, environments are made
            scores = evaluator.evaluate(self._drawn, self._starts)
        for _ in range(self.rounds):
            for name, evaluator in rivals.items():
                begun = time.perf_counter()
                evaluator.evaluate(self._drawn, self._starts)
                seconds[name].append(time.perf_counter() - begun)
        steps = int(scores.lengths.sum())
        rows = [
            {
                "name": f"generation/{name}",
                "seconds": statistics.median(own),
                "rounds": own,
                "steps_per_second": steps / statistics.median(own),
            }
            for name, own in seconds.items()
        ]
        empty = cluster._ray.remote(num_cpus=1, max_retries=0)(_empty)
        tasks = [self._drawn[: self.ray_shard_size].astype(np.float32)] * 64

        def nothing() -> None:
            cluster._ray.get([empty.remote(task) for task in tasks])

        nothing()
        rows.append({"name": "ray/task", "seconds": _median(nothing, self.rounds) / len(tasks)})
        cluster.close()
        for population in here.values():
            population.close()
        return rows

    def _costs(self, found: dict[str, float], n: int) -> list[dict[str, Any]]:
        """What generations cost on more workers, each with the size of shards that is best for it."""
        rows = []
        for population in self.populations:
            for kind in ("full", "diagonal"):
                for workers in self.workers:
                    sizes = [2**k for k in range(population.bit_length()) if 2**k <= population]
                    costs = [self._cost(found, n, kind, population, workers, size) for size in sizes]
                    name = f"{kind}/{population} candidates/{workers} workers"
                    rows.append({"name": name} | min(costs, key=lambda cost: cost["seconds"]))
        return rows

    def _cost(
        self, found: dict[str, float], n: int, kind: str, population: int, workers: int, size: int
    ) -> dict[str, Any]:
        """The model of docs/scaling.md with what was measured."""
        shards = math.ceil(population / size)
        sent = 4 * n * population
        if kind == "diagonal":  # each machine fetches the mean and the deviations once
            machines = math.ceil(min(workers, shards) / WORKERS_OF_A_MACHINE)
            sent = min(sent, machines * 16 * n + SEED_BYTES * population)
        back = 17 * population * self.episodes
        parts = {
            "search": found[f"search/{kind}/{population}"],
            "tasks": shards * found.get("ray/task", 0.0),
            "wire": (sent + back) / self.bandwidth,
            "episodes": math.ceil(shards / workers) * (found["shard/each"] + found["shard/candidate"] * size),
        }
        about = {"shard_size": size, "bytes_sent": sent, "bytes_back": back}
        return {"seconds": sum(parts.values()), **parts, **about}


def _empty(values: np.ndarray) -> int:
    return len(values)


def _median(do: Callable[[], None], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    names = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "rounds"]
    table = Table(title=title)
    for name in names:
        table.add_column(name, justify="left" if name == "name" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row.get(name, "")) for name in names))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.4f}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}"
