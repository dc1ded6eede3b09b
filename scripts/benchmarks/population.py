"""``somite-benchmark population`` and ``scaling``: what generations of CMA-ES cost."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
import statistics
import timeit
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from ...agents.agent import Agent
from ...agents.algorithms import CMAES
from ...agents.algorithms.cma_es import CMASearch
from ...agents.composition import build_policy
from ...agents.device import threads_for_numpy
from ...agents.evaluation.episodes import run_episodes
from ...agents.policies import Policy
from ...agents.policies.attention_neuron import QUERY_SIZE, position_table
from ...agents.rollout.population import Population
from ...agents.rollout.stacked import get_parameters
from ...agents.storage.policy import load_policy
from ...agents.training.loop import make_algorithm, make_setup
from ...envs.cores import available_cores
from ...envs.errors import UserError
from ...envs.numbers import EPISODE_STEPS, POSITIVE, TEXT, checked, listed, real, whole
from ...envs.sensors import CartPoleSwingUp, Senses
from ...envs.sensors import cartpole_swingup as poles
from ...envs.task_set import TaskSet
from .harness import ARGUMENTS, COUNT, ROUNDS, Report, Rival, Row, counted
from .training import compose, task_set

CPU = torch.device("cpu")
SEED = 0
"""Of the parameters and of the starts, which are the same for all rivals."""
AGENT = "bundled/cartpole_swingup-attention_neuron"
SIGMA = 0.001
"""Deviation of the parameters around those of an agent that has learnt."""
PARTS = ("search", "tasks", "wire", "episodes")
KINDS = ("full", "diagonal")  # covariances of the search


@checked("")
@dataclass
class PopulationSpeed:
    """The section ``population`` of ``conf/benchmark.yaml``, which says what its keys mean.

    A step is one of an episode that still runs: what else is computed for a batch counts for nothing. The
    parameters are drawn once for all, and all rivals meet the same starts. Of the swing-up:

    * ``learnt/...``: candidates close around the bundled agent, most of whose episodes have all their steps;
    * ``new/...``: candidates around zero; most of them lose their cart early;
    * ``.../1_core`` and ``.../all_cores``: a generation at once, by one thread and by one for each core;
    * ``.../one_candidate``: candidates one after another, each with all its episodes in a batch, on one core;
    * ``.../one_episode``: episodes one after another, of PyTorch's parts in a plain loop over an environment
      of one cart, as the published agent was trained, on one core.

    The rows ``ant/...`` are a generation of a limb policy on MuJoCo's ant in the same sense.
    """

    candidates: Annotated[int, COUNT]
    episodes: Annotated[int, COUNT]
    steps: Annotated[int, EPISODE_STEPS]
    sigma: Annotated[float, POSITIVE]
    candidates_alone: Annotated[int, COUNT]
    episodes_alone: Annotated[int, COUNT]
    ant_candidates: Annotated[int, whole(0, 10**6)]
    ant_episodes: Annotated[int, COUNT]
    ant_steps: Annotated[int, EPISODE_STEPS]
    ant_agent: Annotated[str, TEXT]
    rounds: Annotated[int, ROUNDS]
    train: Annotated[Sequence[str], ARGUMENTS]

    def run(self, report: Report) -> None:
        """Measure, keep rows, print tables."""
        steps = f"env.task.max_episode_steps={self.ant_steps}"
        config = compose(["env=ant", steps, f"agent={self.ant_agent}", *self.train])
        torch.set_num_threads(1)
        policy, task = swingup(self.steps)
        of = f"{self.candidates} candidates with {self.episodes} episodes"
        for name, drawn in (
            ("learnt", draw(policy, self.candidates, SIGMA, around=True)),
            ("new", draw(policy, self.candidates, self.sigma)),
        ):
            one_episode = self._one_episode(f"{name}/one_episode", drawn)
            rivals = self._rivals(name, policy, task, drawn, self.episodes, one_episode)
            report.compare(f"Swing-up, {of}, {name}", rivals, self.rounds)
        if self.ant_candidates:
            ants = task_set(config)
            policy = initial_policy(config, ants)
            drawn = draw(policy, self.ant_candidates, self.sigma)
            rivals = self._rivals("ant", policy, ants, drawn, self.ant_episodes)
            of = f"{self.ant_candidates} candidates with {self.ant_episodes} episodes"
            report.compare(f"Ant, {of}, {self.ant_agent}", rivals, self.rounds)

    def _rivals(
        self, name: str, policy: Policy, task: TaskSet, drawn: np.ndarray, episodes: int, *further: Rival
    ) -> list[Rival]:
        """Whole generations at once, on one core and on all; a candidate's episodes in one batch; others."""

        def one_candidate(index: int) -> int:
            policy.set_flat(drawn[index % len(drawn)])
            found = run_episodes(Agent(policy).act, task, task.seen, episodes, SEED, threads=1)
            return int(sum(result.lengths.sum() for result in found))

        alone = counted(f"{name}/one_candidate", lambda _: one_candidate, self.candidates_alone, threads=1)
        others, own = [alone, *further], []
        for kind, threads in (("1_core", 1), ("all_cores", available_cores())):
            if kind == "1_core" or threads > 1:
                make = partial(generations, policy, task, drawn, episodes, threads)
                against = [other.name for other in others]
                own.append(counted(f"{name}/{kind}", make, 1, against, threads=threads))
        return [*own, *others]

    def _one_episode(self, name: str, drawn: np.ndarray) -> Rival:
        starts = first_states(self.episodes)

        def one_episode(index: int) -> int:
            plain = PlainNeuron(drawn[index // self.episodes % len(drawn)])
            return plain.run(PlainCart(starts[index % self.episodes]), self.steps)[1]

        return counted(name, lambda _: one_episode, self.episodes_alone, threads=1)


class PlainCart:
    """One cart and pole, stepped on its own from (4,) x, x_dot, theta, theta_dot."""

    def __init__(self, start: np.ndarray) -> None:
        self.state = tuple(start)

    def read(self) -> np.ndarray:
        """(5,) x, x_dot, cos theta, sin theta, theta_dot."""
        x, x_dot, theta, theta_dot = self.state
        return np.array([x, x_dot, np.cos(theta), np.sin(theta), theta_dot])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Readings, reward, and whether the cart has left the track; ``action`` is (1,)."""
        x, x_dot, theta, theta_dot = self.state
        sin, cos, mass, length = math.sin(theta), math.cos(theta), poles.POLE_MASS, poles.LENGTH
        total = poles.CART_MASS + mass
        push = poles.FORCE * np.clip(action, -1.0, 1.0)[0] - poles.FRICTION * x_dot
        swing, weight = mass * length * theta_dot**2 * sin, 4 * total - 3 * mass * cos**2
        of_cart = (-2 * swing + 3 * mass * poles.GRAVITY * sin * cos + 4 * push) / weight
        of_pole = (-3 * swing * cos + 6 * total * poles.GRAVITY * sin + 6 * push * cos) / (length * weight)
        x, theta = x + poles.TIME_STEP * x_dot, theta + poles.TIME_STEP * theta_dot
        self.state = x, x_dot + poles.TIME_STEP * of_cart, theta, theta_dot + poles.TIME_STEP * of_pole
        reward = (np.cos(theta) + 1) / 2 * np.cos(np.pi / 2 * x / poles.TRACK)
        return self.read(), float(reward), abs(x) > poles.TRACK


class PlainNeuron(nn.Module):
    """The swing-up's agent from PyTorch's parts, for one episode at a time; ``values`` in its order."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(2, 8)
        self.query = nn.Linear(QUERY_SIZE, 32, bias=False)
        self.key = nn.Linear(8, 32, bias=False)
        self.action = nn.Sequential(nn.Linear(16, 1), nn.Tanh())
        self.table = position_table(16)
        nn.utils.vector_to_parameters(torch.as_tensor(values, dtype=torch.float32), self.parameters())

    def run(self, cart: PlainCart, steps: int) -> tuple[float, int]:
        """Return and length of an episode of at most so many steps."""
        readings, total = cart.read(), 0.0
        memory, action = (torch.zeros(5, 8), torch.zeros(5, 8)), torch.zeros(1, 1)
        with torch.no_grad():
            for step in range(1, steps + 1):
                reading = torch.from_numpy(readings.copy()).float().unsqueeze(-1)  # reading: (5, 1)
                told = torch.cat([reading, torch.vstack([action] * len(reading))], dim=-1)
                memory = self.cell(told, memory)
                scores = torch.matmul(self.query(self.table), self.key(memory[0]).T)  # scores: (16, 5)
                gathered = torch.tanh(torch.matmul(torch.tanh(scores), reading))  # gathered: (16, 1)
                action = self.action(gathered.T)
                readings, reward, left = cart.step(action.squeeze(0).numpy())
                total += reward
                if left:
                    return total, step
        return total, steps


def generations(
    policy: Policy,
    task: TaskSet,
    drawn: np.ndarray,
    episodes: int,
    threads: int,
    stack: ExitStack,
    device: torch.device = CPU,
    shard_size: int | None = None,
) -> Callable[[int], int]:
    """A generation at once, and its steps; the first one, for which environments are made, is not counted."""
    starts, own = [[SEED, episode] for episode in range(episodes)], copy.deepcopy(policy).to(device)
    population = Population(own, task, len(drawn), episodes, threads, shard_size)
    stack.callback(population.close)
    population.evaluate(drawn, starts)
    return lambda _: int(population.evaluate(drawn, starts).lengths.sum())


def swingup(steps: int) -> tuple[Policy, TaskSet]:
    """The bundled agent of 913 parameters, whose episodes last, and its task."""
    return load_policy(AGENT).policy, CartPoleSwingUp(Senses(), steps)


def initial_policy(config: DictConfig, task: TaskSet) -> Policy:
    """A policy of this configuration before it has learnt anything."""
    with closing(task.make_env(threads=1)) as env:
        torch.manual_seed(SEED)
        return build_policy(config.agent, env)


def first_states(episodes: int) -> np.ndarray:
    """(episodes, 4) of the cart, which all rivals begin with."""
    with closing(CartPoleSwingUp(Senses(), 1).make_env(None, episodes)) as env:
        env.reset([[SEED, index] for index in range(episodes)])
        return env.source.state.mT.numpy().copy()


def draw(policy: Policy, size: int, sigma: float, around: bool = False) -> np.ndarray:
    """(size, n) parameters around zero, or around the policy's own."""
    own = get_parameters(policy)
    drawn = sigma * np.random.default_rng(SEED).standard_normal((size, len(own)))
    return drawn + own if around else drawn


@checked("")
@dataclass
class Scaling:
    """The section ``scaling`` of ``conf/benchmark.yaml``, which says what its keys mean.

    Candidates lie close around the bundled agent of the swing-up: what those cost that have learnt.

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
            raise UserError(f"shard_sizes must be two or more sizes, got {list(self.shard_sizes)}")
        if self.ray_workers and importlib.util.find_spec("ray") is None:
            raise UserError("Ray is not installed: pip install -e '.[ray]', or say ray_workers=0")

    def run(self, report: Report) -> None:
        """Measure, keep rows, print what generations cost."""
        torch.set_num_threads(1)
        threads_for_numpy(1)
        policy, task = swingup(self.steps)
        drawn = draw(policy, self.candidates, SIGMA, around=True)
        n, make = drawn.shape[1], partial(generations, policy, task)
        with ExitStack() as stack:
            parts = self._shards(make, drawn, stack) + self._searches(n)
            if self.ray_workers:
                parts += self._ray(make, drawn, report, stack)
        costs = self._costs({row["name"]: row["seconds"] for row in parts}, n)
        report.add(*parts, *costs)
        report.table("Measured here", parts, "seconds", "longest")
        report.table("A generation, computed", costs)

    def _shards(self, make: Callable[..., Any], drawn: np.ndarray, stack: ExitStack) -> list[Row]:
        """A shard in one process, and what a shard and a candidate cost. ``make`` is `generations`."""
        rows = []
        for size in self.shard_sizes:
            parts = [drawn[i : i + size] for i in range(0, self.candidates - size + 1, size)]
            seconds = []
            for part in parts[: max(1, 64 // size)]:  # candidates differ in how long they stay
                shard = make(part, self.episodes, 1, stack, shard_size=size)
                seconds.append(_seconds(partial(shard, 0)))
            found = {"seconds": statistics.mean(seconds), "longest": max(seconds), "shards": len(seconds)}
            rows.append({"name": f"shard/{size}", **found})
        found = np.polyfit(self.shard_sizes, [row["seconds"] for row in rows], 1)
        costs = zip(("shard/candidate", "shard/each"), found, strict=True)
        return rows + [{"name": name, "seconds": max(0.0, float(cost))} for name, cost in costs]

    def _searches(self, n: int) -> list[Row]:
        """Asking and telling on the driver."""
        rows = []
        for kind, size in itertools.product(KINDS, self.populations):
            search = CMASearch(CMAES(population=size, diagonal=kind == "diagonal"), np.zeros(n), 0)

            def generation(search: CMASearch = search) -> None:
                search.tell(-np.square(search.ask()).sum(1))

            generation()  # the first one decomposes nothing
            seconds = statistics.median(_seconds(generation) for _ in range(self.rounds))
            rows.append({"name": f"search/{kind}/{size}", "seconds": seconds})
        return rows

    def _ray(
        self, make: Callable[..., Any], drawn: np.ndarray, report: Report, stack: ExitStack
    ) -> list[Row]:
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
        learner = algorithm.make_learner(make_setup(config, algorithm, CPU))
        stack.callback(learner.close)
        cluster, starts = learner.population, [[SEED, episode] for episode in range(self.episodes)]

        def on_ray(_: ExitStack) -> Callable[[int], int]:
            cluster.evaluate(drawn, starts)  # workers start
            return lambda _: int(cluster.evaluate(drawn, starts).lengths.sum())

        here = partial(make, drawn, self.episodes, min(available_cores(), self.ray_workers))
        local = {"generation/local": here, "generation/local_same_shards": partial(here, shard_size=size)}
        rivals = [counted(name, do) for name, do in local.items()]
        rivals.append(counted("generation/ray", on_ray, 1, list(local)))
        report.compare("A generation", rivals, self.rounds)
        empty = cluster._ray.remote(num_cpus=1, max_retries=0)(len)
        tasks = [drawn[:size].astype(np.float32)] * 64

        def nothing() -> None:
            cluster._ray.get([empty.remote(task) for task in tasks])

        nothing()
        each = statistics.median(_seconds(nothing) for _ in range(self.rounds)) / len(tasks)
        return [{"name": "ray/task", "seconds": each}]

    def _costs(self, found: Mapping[str, float], n: int) -> list[Row]:
        """What generations cost on more workers, each with the size of shards that is best for it."""
        rows = []
        for size, kind, workers in itertools.product(self.populations, KINDS, self.workers):
            shards = [2**k for k in range(size.bit_length())]
            costs = [self._cost(found, n, kind, size, workers, shard) for shard in shards]
            name = f"{kind}/{size} candidates/{workers} workers"
            rows.append({"name": name, **min(costs, key=lambda cost: cost["seconds"])})
        return rows

    def _cost(
        self, found: Mapping[str, float], n: int, kind: str, population: int, workers: int, size: int
    ) -> dict[str, Any]:
        """The model of docs/scaling.md with what was measured."""
        shards = math.ceil(population / size)
        sent = 4 * n * population
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
    return timeit.timeit(do, number=1)
