"""Episodes of many candidates, simulated on the device, too: nothing is copied but their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...envs.task_set import TaskSet
from ..device import out_of_memory
from ..policies import Policy
from .cuda_graph import repeated
from .scores import CHECK_EVERY, Scores, Stop
from .stacked import split_parameters
from .stacked_on_device import stack_on_device

UNREAD = ("privileged", "sensor")
"""Of an observation, what no acting policy reads."""


class DeviceSimulator:
    """Runs episodes of candidates, one shard at a time, on the training bodies of a task.

    Args:
        policy: whose acting parameters candidates are, on the device; it is read only.
        task_set: gives the task.
        episodes: E, of each body.
        device: of simulations and networks.
    """

    def __init__(self, policy: Policy, task_set: TaskSet, episodes: int, device: torch.device) -> None:
        self.policy, self.episodes, self.bodies, self.device = policy, episodes, task_set.seen, device
        self._task_set = task_set
        self._loops: dict[int, _Loop] = {}

    @torch.no_grad()
    def run(self, candidates: np.ndarray, starts: Sequence[Any], stop: Stop) -> Scores | None:
        """Every candidate from the same starts; each row has one episode.

        Args:
            candidates: (S, n) acting parameters.
            starts: E seeds, of the episodes of every candidate on every body.
            stop: asked every `CHECK_EVERY` steps; True ends it.

        Returns:
            Scores, or None where it was stopped.

        Raises:
            UserError: the device's memory does not suffice, or what the environment's `check` finds.
        """
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # of this thread's operations
        count = len(candidates)
        with out_of_memory("a generation of candidates", self.device, "algorithm.shard_size", count):
            if count not in self._loops:
                self._loops[count] = _Loop(self, count)
            return self._loops[count].run(candidates, starts, stop)

    def make_env(self, count: int) -> Any:
        """The environment of so many candidates."""
        rows = len(self.bodies) * count * self.episodes
        aligned = self.policy.aligned_slots
        return self._task_set.make_env(self.bodies, rows, self.device, aligned=aligned, once=True)

    def close(self) -> None:
        """Let the simulations go."""
        for loop in self._loops.values():
            loop.env.close()
        self._loops.clear()


class _Loop:
    """Acting and stepping for P candidates, and what comes of it, in tensors that stay where they are.

    An environment that begins other episodes in rows that have ended is fine: what comes after a row's first
    end counts for nothing.

    Args:
        simulator: whose candidates.
        count: P.
    """

    def __init__(self, simulator: DeviceSimulator, count: int) -> None:
        self._policy, device = simulator.policy, simulator.device
        self.env = env = simulator.make_env(count)
        bodies, self._device, b = len(simulator.bodies), device, env.num_envs
        # Rows of a body lie together; of it, those of a candidate.
        order = np.arange(b).reshape(bodies, count, simulator.episodes).transpose(1, 0, 2)
        self._repeats, self._shape = bodies * count, (count, bodies, simulator.episodes)
        self._order = None if bodies == 1 else torch.from_numpy(order.flatten()).to(device)
        self._running = torch.ones(b, dtype=torch.bool, device=device)
        self._diverged = torch.zeros(b, dtype=torch.bool, device=device)
        self._returns = torch.zeros(b, dtype=torch.float64, device=device)
        self._lengths = torch.zeros(b, dtype=torch.int64, device=device)
        self._observation: dict[str, Tensor] = {}
        self._advance: Callable[[], None] | None = None

    def run(self, candidates: np.ndarray, starts: Sequence[Any], stop: Stop) -> Scores | None:
        """As of `DeviceSimulator`."""
        parameters = split_parameters(self._policy, candidates)
        if self._advance is None:
            self._make(parameters, starts)
        self._begin(parameters, starts)
        steps = 0
        while self._running.any():  # here, and nowhere else, the host waits
            if steps >= self.env.max_episode_steps:
                raise RuntimeError(f"an episode goes on after {self.env.max_episode_steps} steps")
            for _ in range(CHECK_EVERY):
                self._advance()
            steps += CHECK_EVERY
            if stop():
                return None
        self.env.check()
        return Scores(*(self._told(kept) for kept in (self._returns, self._lengths, self._diverged)))

    def _make(self, parameters: dict[str, Tensor], starts: Sequence[Any]) -> None:
        first = self.env.reset(list(starts) * self._repeats)
        self._observation = {key: value.clone() for key, value in first.items() if key not in UNREAD}
        complete = getattr(self.env, "tokens_are_complete", False)
        self._stack = stack_on_device(self._policy, parameters, self._chosen(), complete)
        if getattr(self.env, "can_be_captured", False):
            self._advance = repeated(self._step, self._device, self.env.generators)
        else:
            self._advance = self._step

    def _begin(self, parameters: dict[str, Tensor], starts: Sequence[Any]) -> None:
        """Candidates and episodes of a generation, in the same tensors."""
        first = self.env.reset(list(starts) * self._repeats)
        for key, value in self._observation.items():
            value.copy_(first[key])
        self._stack.begin(self._policy, parameters, self._chosen())
        self._running.fill_(True)
        for kept in (self._returns, self._lengths, self._diverged):
            kept.zero_()

    def _step(self) -> None:
        """Act and step once; nothing here waits for the device."""
        actions = self._policy.choose(self._stack.act(self._chosen()).flatten(0, 1))
        if self._order is not None:
            actions = torch.zeros_like(actions).index_copy_(0, self._order, actions)
        result = self.env.step(actions)
        running = self._running
        self._returns += torch.where(running, result.rewards, 0.0)
        self._lengths += running
        self._diverged |= result.diverged & running
        running &= ~result.ended
        for key, value in self._observation.items():
            value.copy_(result.observation[key])

    def _chosen(self) -> dict[str, Tensor]:
        """The observation as (P, R, ...)."""
        sizes = self._shape[0], self._shape[1] * self._shape[2]
        return {
            key: (value if self._order is None else value.index_select(0, self._order)).unflatten(0, sizes)
            for key, value in self._observation.items()
        }

    def _told(self, values: Tensor) -> np.ndarray:
        """(P, M, E) on the host, of rows."""
        values = values if self._order is None else values.index_select(0, self._order)
        return values.reshape(self._shape).cpu().numpy()
