"""Generations of CMA-ES that a device simulates as a whole, beside the same machine's CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import hydra
import numpy as np
import torch

from ...agents.composition import build_policy
from ...agents.policies import Policy
from ...agents.rollout.population import Population, count_parameters, get_parameters
from ...agents.storage.policy import load_policy
from ...envs.cores import available_cores
from ...envs.sensors import CartPoleSwingUp, Senses
from ...envs.task_set import TaskSet
from .gpu_report import Report, Row
from .rates import make_rows
from .scaling import AGENT, SIGMA
from .tables import ratio_table
from .training_setup import compose

SEED = 0


@dataclass(frozen=True)
class Generation:
    """Candidates around a policy, and what they are tried in.

    Attributes:
        make_policy: a new policy on the CPU, the same each time.
        task: what they do.
        simulation: of the task on a device.
        candidates, episodes: how many, and of each.
    """

    make_policy: Callable[[], Policy]
    task: TaskSet
    simulation: str
    candidates: int
    episodes: int

    def evaluate(
        self, device: torch.device, simulation: str, times: int, look: Callable[[], None] = lambda: None
    ) -> tuple[list[float], list[int]]:
        """Seconds and steps of each of so many generations, after one on a device that is not counted.

        Args:
            device: of the networks.
            simulation: ``cpu``, or that of a device.
            times: how many are counted.
            look: called at the end, while all that was needed is still there.
        """
        policy = self.make_policy()
        drawn = np.random.default_rng(SEED).standard_normal((self.candidates, count_parameters(policy)))
        drawn = get_parameters(policy) + SIGMA * drawn
        starts = [[SEED, episode] for episode in range(self.episodes)]
        population = Population(
            policy, self.task, self.candidates, self.episodes, available_cores(), device, None, simulation
        )
        threads, seconds, steps = torch.get_num_threads(), [], []
        with ExitStack() as stack:
            stack.callback(torch.set_num_threads, threads)
            stack.callback(population.close)
            if simulation != "cpu":
                population.evaluate(drawn, starts)  # environments are made, steps are recorded
            for _ in range(times):
                start = time.perf_counter()
                scores = population.evaluate(drawn, starts)
                seconds.append(time.perf_counter() - start)  # the scores are on the host: all is done
                steps.append(int(scores.lengths.sum()))
            look()
        return seconds, steps


def swingup(candidates: int, episodes: int, steps: int) -> Generation:
    """Of the swing-up and the agent of 913 parameters, close around the bundled one, whose episodes last."""
    task = CartPoleSwingUp(Senses(), steps)
    return Generation(lambda: load_policy(AGENT).policy, task, "torch", candidates, episodes)


def limbs(arguments: Sequence[str], candidates: int, episodes: int) -> Generation:
    """Of a limb policy on bodies, around its initialisation."""
    config = compose(arguments)
    bodies: TaskSet = hydra.utils.instantiate(config.env, _convert_="all")

    def make_policy() -> Policy:
        env = bodies.make_vec(bodies.seen, len(bodies.seen), threads=1)
        torch.manual_seed(SEED)
        policy = build_policy(config.agent, env)
        env.close()
        return policy

    return Generation(make_policy, bodies, "warp", candidates, episodes)


def measure_populations(
    report: Report, generations: dict[str, Generation], rounds: int, device: torch.device
) -> None:
    """Seconds of a generation on the CPU, on all cores, and on the device.

    Args:
        report: that it is kept in.
        generations: by name.
        rounds: generations that are timed on the device; on the CPU one.
        device: that simulates.
    """
    rows: list[Row] = []
    for name, generation in generations.items():
        here, there = f"population/{name}/cpu", f"population/{name}/somite"
        of_cpu = report.measure(
            here, lambda n=here, g=generation: _rows(n, g, torch.device("cpu"), "cpu", 1, [])
        )
        of_device = report.measure(
            there, lambda n=there, g=generation, c=of_cpu: _rows(n, g, device, g.simulation, rounds, c)
        )
        rows += of_cpu + of_device
    columns = {
        "s": ("median_seconds", ",.2f"),
        "steps/s": ("steps_per_second", ",.0f"),
        "steps": ("steps_of_a_generation", ",d"),
        "candidates": ("candidates", "d"),
        "episodes": ("episodes", "d"),
    }
    report.table(f"A generation, median of {rounds} on the device, one on the CPU", rows, columns)
    if any(row["ratios"] for row in rows):
        report.console.print(ratio_table(rows))


def _rows(
    name: str,
    generation: Generation,
    device: torch.device,
    simulation: str,
    times: int,
    of_cpu: Sequence[Row],
) -> list[Row]:
    seconds, steps = generation.evaluate(device, simulation, times)
    rates = [count / second for count, second in zip(steps, seconds, strict=True)]
    more = {
        "candidates": generation.candidates,
        "episodes": generation.episodes,
        "seconds": seconds,
        "median_seconds": float(np.median(seconds)),
        "steps": steps,
        "steps_of_a_generation": steps[-1],
    }
    # One generation of the CPU is what each of the device's is compared with.
    others = {row["name"]: row["rounds"] * times for row in of_cpu}
    return make_rows({name: rates, **others}, others, {name: more})[:1]
