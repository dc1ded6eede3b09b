"""Episodes of many sets of parameters of one policy at once: rows of a batch, not processes.

A population is evaluated in shards of a fixed number of candidates. A shard's numbers depend on nothing but
its own candidates and the starts; who computes it, beside what, and after what, has no influence. So a
population gives the same, bit for bit, on any number of threads or machines of one kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import gymnasium
import numpy as np
import torch

from ...envs.task_set import TaskSet
from ..policies import Policy
from .candidates import Recipe
from .device_population import DeviceSimulator
from .scores import CHECK_EVERY, Scores, Stop, joined
from .stacked import Actors, count_parameters, get_parameters, set_parameters

__all__ = [
    "Population",
    "Scores",
    "Simulator",
    "Stop",
    "count_parameters",
    "get_parameters",
    "joined",
    "set_parameters",
]

ROWS = {"sensors": 4096}
"""Of a shard where one machine computes: what a thread does for small arrays between two steps takes longer
than the arrays, and threads wait for each other then. See docs/scaling.md for the measurements."""

ROWS_SPREAD = {"sensors": 1024}
"""Of a shard where several processes compute."""

ROWS_OTHERWISE, ROWS_OF_A_BODY = 128, 32
"""Of a shard whose simulation or policy takes longer; at least so many of each body."""


def shards_of(size: int, shard_size: int) -> list[slice]:
    """P candidates in parts of ``shard_size``; the last one may be smaller."""
    return [slice(first, min(first + shard_size, size)) for first in range(0, size, shard_size)]


class Simulator:
    """Runs episodes of candidates, one shard at a time, on the training bodies of a task.

    Args:
        policy: whose acting parameters candidates are; it is read only.
        task_set: gives the task.
        episodes: E, of each body.
        threads: of the simulation.
    """

    def __init__(self, policy: Policy, task_set: TaskSet, episodes: int, threads: int = 1) -> None:
        self.policy, self.episodes, self.bodies = policy, episodes, task_set.seen
        self._task_set, self._threads = task_set, threads
        self._envs: dict[int, gymnasium.vector.VectorEnv] = {}

    def env(self, candidates: int) -> gymnasium.vector.VectorEnv:
        """The environment of so many candidates, made when it is first needed."""
        if candidates not in self._envs:
            self._envs[candidates] = self._task_set.make_vec(
                self.bodies,
                len(self.bodies) * candidates * self.episodes,
                aligned=self.policy.aligned_slots,
                threads=self._threads,
                once=True,
            )
        return self._envs[candidates]

    @torch.inference_mode()
    def run(self, candidates: np.ndarray, starts: Sequence[Any], stop: Stop) -> Scores | None:
        """Every candidate from the same starts; each row has one episode.

        Args:
            candidates: (S, n) acting parameters.
            starts: E seeds, of the episodes of every candidate on every body.
            stop: asked after each step; True ends it.

        Returns:
            Scores, or None where it was stopped.
        """
        torch.set_num_threads(1)  # of this thread's operations
        env = self.env(len(candidates))
        rows, bodies = env.num_envs, len(self.bodies)
        # Rows of a body lie together; of it, those of a candidate.
        order = np.arange(rows).reshape(bodies, len(candidates), self.episodes).transpose(1, 0, 2)
        observation, _ = env.reset(seed=list(starts) * (bodies * len(candidates)))
        actors = Actors(self.policy, candidates, order, observation["tokens"].shape[1])
        returns, lengths, diverged = np.zeros(rows), np.zeros(rows, int), np.zeros(rows, bool)
        running = np.ones(rows, bool)
        actions = np.zeros(env.action_space.shape, env.action_space.dtype)
        step = 0
        while running.any():
            if step % CHECK_EVERY == 0 and step:
                actors.drop_ended(running)
            actions[actors.rows] = actors.act(observation)
            observation, rewards, terminated, truncated, info = env.step(actions)
            returns += rewards * running
            lengths += running
            diverged |= info["diverged"] & running
            running &= ~(terminated | truncated)
            step += 1
            if stop():
                return None
        return Scores(returns[order], lengths[order], diverged[order])

    def close(self) -> None:
        """Let the simulations go."""
        for env in self._envs.values():
            env.close()


class Population:
    """Evaluates whole populations on this machine.

    Threads take shards in turn; each steps its own batched environment and its own stacked parameters, one
    operation on one thread. Where the task is simulated on the device, one shard is computed after another.

    Args:
        policy: whose acting parameters candidates are.
        task_set: gives the task.
        size: P, candidates.
        episodes: E, of each body.
        threads: as many shards are simulated beside each other.
        device: of the networks.
        shard_size: candidates that are simulated together; None: as `automatic_shard_size` says.
    """

    def __init__(
        self,
        policy: Policy,
        task_set: TaskSet,
        size: int,
        episodes: int,
        threads: int = 1,
        device: torch.device | str = "cpu",
        shard_size: int | None = None,
    ) -> None:
        self.policy, self.bodies = policy.to(device), task_set.seen
        on_host = task_set.simulation == "cpu"
        if shard_size is None:
            shard_size = automatic_shard_size(
                size, len(self.bodies), episodes, policy.kind, device, on_device=not on_host
            )
        self.shards = shards_of(size, shard_size)
        # One shard at a time keeps a GPU busy.
        count = min(threads, len(self.shards)) if on_host and torch.device(device).type == "cpu" else 1
        simulation_threads = max(1, threads // count)  # the shards have the cores
        self._simulators: list[Simulator | DeviceSimulator] = [
            Simulator(self.policy, task_set, episodes, simulation_threads)
            if on_host
            else DeviceSimulator(self.policy, task_set, episodes, torch.device(device))
            for _ in range(count)
        ]
        self._free: SimpleQueue[Simulator | DeviceSimulator] = SimpleQueue()
        for simulator in self._simulators:
            self._free.put(simulator)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="population")

    def evaluate(
        self,
        candidates: np.ndarray,
        starts: Sequence[Any],
        stop: Stop = lambda: False,
        recipe: Recipe | None = None,
    ) -> Scores | None:
        """Run every candidate from the same starts; each row has one episode.

        Args:
            candidates: (P, n) acting parameters.
            starts: E seeds, of the episodes of every candidate on every body.
            stop: asked after each step; True ends all of it.
            recipe: of no meaning here, where nothing is sent.

        Returns:
            Scores, or None where it was stopped.
        """
        left = False

        def leave() -> bool:
            return left or stop()

        def run(shard: slice) -> Scores | None:
            if leave():
                return None
            simulator = self._free.get()
            try:
                return simulator.run(candidates[shard], starts, leave)
            finally:
                self._free.put(simulator)

        try:
            found = list(self._threads.map(run, self.shards))
        except BaseException:
            left = True  # the other threads would go on to the end of their episodes
            raise
        return None if any(scores is None for scores in found) else joined(found)

    def close(self) -> None:
        """Let the simulations and threads go."""
        self._threads.shutdown(cancel_futures=True)
        for simulator in self._simulators:
            simulator.close()


def automatic_shard_size(
    size: int,
    bodies: int,
    episodes: int,
    kind: str,
    device: torch.device | str = "cpu",
    spread: bool = False,
    on_device: bool = False,
) -> int:
    """Candidates of a shard where nobody says otherwise; the number of threads or machines has no influence.

    Args:
        size: P, candidates.
        bodies: M.
        episodes: E, of each body.
        kind: of tokens.
        device: of the networks.
        spread: whether several processes share the shards.
        on_device: whether the task is simulated on the device, where all are simulated at once.
    """
    if torch.device(device).type != "cpu" or on_device:
        return size
    otherwise = max(ROWS_OTHERWISE, ROWS_OF_A_BODY * bodies)
    rows = (ROWS_SPREAD if spread else ROWS).get(kind, otherwise)
    return min(size, max(1, rows // (bodies * episodes)))
