"""Episodes of many sets of parameters of one policy at once: rows of a batch, not processes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ...envs.task_set import TaskSet
from ..policies import AttentionNeuron, Policy
from ..policies.attention_neuron import StackedAttentionNeuron, shares
from ..policies.base import Memory, Observation

CHECK_EVERY = 8
"""Steps between looks at which rows still run; looking is cheap, but not free."""

WORTHWHILE = 0.95
"""Ended rows are dropped when no more than this share of the present ones would remain."""


@dataclass(frozen=True)
class Scores:
    """What P candidates have reached on M bodies in E episodes of each.

    Attributes:
        returns: (P, M, E).
        lengths: (P, M, E), steps.
    """

    returns: np.ndarray
    lengths: np.ndarray


def count_parameters(policy: Policy) -> int:
    """Numbers that :func:`set_parameters` takes."""
    return sum(parameter.numel() for parameter in policy.acting_parameters().values())


def get_parameters(policy: Policy) -> np.ndarray:
    """The acting parameters in a row, (n,) float64."""
    parameters = policy.acting_parameters().values()
    return torch.cat([p.detach().flatten() for p in parameters]).double().cpu().numpy()


def set_parameters(policy: Policy, values: np.ndarray) -> None:
    """Give the policy acting parameters (n,)."""
    parts = split_parameters(policy, values[None])
    with torch.no_grad():
        for name, parameter in policy.acting_parameters().items():
            parameter.copy_(parts[name][0])


def split_parameters(policy: Policy, values: np.ndarray) -> dict[str, Tensor]:
    """Acting parameters by name, each (P, ...), of P sets in rows (P, n)."""
    parameters = policy.acting_parameters()
    first = next(iter(parameters.values()))
    parts = torch.as_tensor(values).to(first).split([p.numel() for p in parameters.values()], 1)
    return {
        name: part.unflatten(1, parameter.shape) if parameter.ndim else part.squeeze(1)
        for (name, parameter), part in zip(parameters.items(), parts, strict=True)
    }


class StackedPolicy:
    """Any policy with P sets of acting parameters at once, each with R rows of its own.

    Args:
        policy: everything else is its own: architecture, buffers, what only the value uses.
        parameters: acting parameters by name, each (P, ...).
    """

    def __init__(self, policy: Policy, parameters: Mapping[str, Tensor]) -> None:
        # A copy, because a functional call puts the parameters into the module while it lasts, and several
        # threads make such calls at a time.
        self._policy, self._parameters = copy.deepcopy(policy), dict(parameters)
        whole = _Acting(self._policy)

        def act(parameters: dict[str, Tensor], *inputs: Any) -> tuple[Tensor, Memory]:
            return functional_call(whole, {f"policy.{k}": v for k, v in parameters.items()}, inputs)

        self._act = vmap(act)

    def start(self, rows: int, n_tokens: int) -> None:
        """Begin episodes: R rows of N tokens for every set, memory empty."""
        p = len(next(iter(self._parameters.values())))
        memory = self._policy.initial_memory(p * rows, n_tokens)
        self._share({key: value.unflatten(0, (p, rows)) for key, value in memory.items()}, rows)

    def _share(self, memory: Memory, rows: int) -> None:
        """Parts of the sets, each with what it remembers."""
        self._parts = shares(len(next(iter(self._parameters.values()))), rows)
        self._memories = [{key: value[part] for key, value in memory.items()} for part in self._parts]

    def keep(self, sets: Tensor, rows: Tensor) -> None:
        """Go on with some sets (P',) and, of each, some rows (P', R') only."""
        self._parameters = {key: value[sets] for key, value in self._parameters.items()}
        whole = {key: torch.cat([memory[key] for memory in self._memories]) for key in self._memories[0]}
        self._share({key: value[sets.unsqueeze(1), rows] for key, value in whole.items()}, rows.shape[1])

    def act(self, observation: Observation) -> Tensor:
        """Actions (P, R, ...), or logits, of observations (P, R, ...); the memory goes on."""
        shape = observation["tokens"].shape[:2]
        # What depends on the data's values cannot run under vmap.
        prepared = self._policy.prepare({key: value.flatten(0, 1) for key, value in observation.items()})
        prepared = {key: value.unflatten(0, shape) for key, value in prepared.items()}
        actions = []
        for index, part in enumerate(self._parts):
            own = [
                {key: value[part] for key, value in values.items()} for values in (self._parameters, prepared)
            ]
            found, self._memories[index] = self._act(*own, self._memories[index])
            actions.append(found)
        return torch.cat(actions)


class _Acting(nn.Module):
    """Encoding and acting in one call, as ``functional_call`` wants them."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        features, memory = self.policy.encode(observation, memory)
        return self.policy.act(features, observation), memory


def stack(policy: Policy, parameters: Mapping[str, Tensor]) -> StackedPolicy | StackedAttentionNeuron:
    """The policy with P sets of acting parameters, each (P, ...)."""
    kind = StackedAttentionNeuron if type(policy) is AttentionNeuron else StackedPolicy
    return kind(policy, parameters)


class Population:
    """Runs episodes of whole populations, on the training bodies of a task.

    Candidates are shared out among threads; each steps its own batched environment and its own stacked
    parameters, one operation on one thread. So numbers differ by rounding with the number of threads.

    Args:
        policy: whose acting parameters candidates are.
        task_set: gives the task.
        size: P, candidates.
        episodes: E, of each body.
        threads: as many parts are simulated beside each other.
        device: of the networks.
    """

    def __init__(
        self,
        policy: Policy,
        task_set: TaskSet,
        size: int,
        episodes: int,
        threads: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.policy, self.episodes, self.bodies = policy.to(device), episodes, task_set.seen
        # One part keeps a GPU busy.
        count = min(threads, size) if torch.device(device).type == "cpu" else 1
        parts = np.array_split(np.arange(size), count)
        self._parts = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
        simulation_threads = max(1, threads // count)  # the parts have the cores
        self._envs = [
            task_set.make_vec(
                self.bodies,
                len(self.bodies) * len(part) * episodes,
                aligned=policy.aligned_slots,
                threads=simulation_threads,
                once=True,
            )
            for part in parts
        ]
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="population")

    def evaluate(
        self, candidates: np.ndarray, starts: Sequence[Any], stop: Callable[[], bool] = lambda: False
    ) -> Scores | None:
        """Run every candidate from the same starts; each row has one episode.

        Args:
            candidates: (P, n) acting parameters.
            starts: E seeds, of the episodes of every candidate on every body.
            stop: asked after each step; True ends all of it.

        Returns:
            Scores, or None where it was stopped.
        """
        left = False

        def leave() -> bool:
            return left or stop()

        def run(index: int) -> Scores | None:
            return self._run(self._envs[index], candidates[self._parts[index]], starts, leave)

        try:
            found = list(self._threads.map(run, range(len(self._parts))))
        except BaseException:
            left = True  # the other threads would go on to the end of their episodes
            raise
        if any(scores is None for scores in found):
            return None
        return Scores(
            np.concatenate([scores.returns for scores in found]),
            np.concatenate([scores.lengths for scores in found]),
        )

    @torch.inference_mode()
    def _run(
        self, env: Any, candidates: np.ndarray, starts: Sequence[Any], stop: Callable[[], bool]
    ) -> Scores | None:
        torch.set_num_threads(1)  # of this thread's operations
        rows, bodies = env.num_envs, len(self.bodies)
        # Rows of a body lie together; of it, those of a candidate.
        order = np.arange(rows).reshape(bodies, len(candidates), self.episodes).transpose(1, 0, 2)
        observation, _ = env.reset(seed=list(starts) * (bodies * len(candidates)))
        actors = _Actors(self.policy, candidates, order, observation["tokens"].shape[1])
        returns, lengths = np.zeros(rows), np.zeros(rows, int)
        running = np.ones(rows, bool)
        actions = np.zeros(env.action_space.shape, env.action_space.dtype)
        step = 0
        while running.any():
            if step % CHECK_EVERY == 0 and step:
                actors.drop_ended(running)
            actions[actors.rows] = actors.act(observation)
            observation, rewards, terminated, truncated, _ = env.step(actions)
            returns += rewards * running
            lengths += running
            running &= ~(terminated | truncated)
            step += 1
            if stop():
                return None
        return Scores(returns[order], lengths[order])

    def close(self) -> None:
        """Let the simulations and threads go."""
        self._threads.shutdown(cancel_futures=True)
        for env in self._envs:
            env.close()


class _Actors:
    """Candidates that act in rows of an environment, each in its own.

    Args:
        policy: what the candidates are parameters of.
        candidates: (P, n).
        rows: (P, ...) of the environment.
        n_tokens: N.

    Attributes:
        rows: (P', R), those that are still acted in.
    """

    def __init__(self, policy: Policy, candidates: np.ndarray, rows: np.ndarray, n_tokens: int) -> None:
        self.rows = rows.reshape(len(candidates), -1)
        self._discrete = getattr(policy, "discrete", False)
        self._device = next(iter(policy.parameters())).device
        self._stacked = stack(policy, split_parameters(policy, candidates))
        self._stacked.start(self.rows.shape[1], n_tokens)

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Actions (P', R, ...) in these rows."""
        chosen = {
            key: torch.from_numpy(value.take(self.rows, 0)).to(self._device)  # (P', R, ...)
            for key, value in observation.items()
            if key not in ("privileged", "sensor")
        }
        actions = self._stacked.act(chosen)
        return (actions.argmax(-1) if self._discrete else actions).cpu().numpy()

    def drop_ended(self, running: np.ndarray) -> None:
        """Go on without candidates whose episodes have all ended, and with as few rows as the others need.

        Args:
            running: rows of the environment whose episodes go on, at least one of them here.
        """
        runs = running[self.rows]  # runs: (P', R)
        counts = runs.sum(1)
        sets, width = np.flatnonzero(counts), int(counts.max())
        if len(sets) * width <= WORTHWHILE * runs.size:
            rows = np.argsort(~runs[sets], 1, kind="stable")[:, :width]  # the running ones first
            self._stacked.keep(*(torch.from_numpy(index).to(self._device) for index in (sets, rows)))
            self.rows = np.take_along_axis(self.rows[sets], rows, 1)
