"""The choices of the group ``compute`` and their keys."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from ...envs.errors import UserError
from ...envs.task_set import TaskSet
from ..algorithms.cma_es import CMAES, Recipe
from ..policies.base import Policy
from .population import Population, Scores, Stop, automatic_shard_size


class Evaluator(Protocol):
    """What evaluates a population."""

    shards: list[slice]

    def evaluate(
        self, candidates: np.ndarray, starts: list[Any], stop: Stop, recipe: Recipe | None
    ) -> Scores | None:
        """Scores of candidates (P, n), or None where it was stopped."""

    def close(self) -> None:
        """Let go of whatever computes."""


class Compute(abc.ABC):
    """A choice of ``conf/compute``."""

    name: str
    algorithms: tuple[str, ...]
    """Algorithms that can be computed there, as in ``conf/algorithm``."""

    spread = False
    """Whether several processes share a population."""

    def shard_size(
        self,
        settings: CMAES,
        task_set: TaskSet,
        policy: Policy,
        device: torch.device,
        simulation: str = "cpu",
    ) -> int:
        """Candidates of a shard: what was set, or what suits this choice."""
        if settings.shard_size != "auto":
            return int(settings.shard_size)
        bodies = len(task_set.seen)
        return automatic_shard_size(
            settings.population, bodies, settings.episodes, policy.kind, device, self.spread, simulation
        )

    @abc.abstractmethod
    def evaluator(
        self,
        settings: CMAES,
        policy: Policy,
        task_set: TaskSet,
        environment: Mapping[str, Any],
        threads: int,
        device: torch.device,
        simulation: str = "cpu",
    ) -> Evaluator:
        """What evaluates populations.

        Args:
            settings: of the search.
            policy: whose acting parameters candidates are.
            task_set: gives the task.
            environment: its configuration, of which others can make it.
            threads: of this machine.
            device: of the networks.
            simulation: where the task is simulated, as of `Population`.
        """


@dataclass
class Local(Compute):
    """This machine; the keys of ``conf/compute/local.yaml``."""

    name = "local"
    algorithms = ("ppo", "clone", "cma_es")

    def evaluator(  # noqa: D102
        self,
        settings: CMAES,
        policy: Policy,
        task_set: TaskSet,
        environment: Mapping[str, Any],
        threads: int,
        device: torch.device,
        simulation: str = "cpu",
    ) -> Population:
        size = self.shard_size(settings, task_set, policy, device, simulation)
        population, episodes = settings.population, settings.episodes
        return Population(policy, task_set, population, episodes, threads, device, size, simulation)


def compute_of(config: DictConfig) -> Compute:
    """The choice of a run's configuration; a run that was begun before there was one is local.

    Raises:
        UserError: a value that cannot be meant, or Ray is not installed.
    """
    node = config.get("compute")
    return hydra.utils.instantiate(node, _convert_="all") if node else Local()


def check_algorithm(compute: Compute, algorithm: str) -> None:
    """Raises UserError: the algorithm is not computed there."""
    if algorithm not in compute.algorithms:
        raise UserError(
            f"compute={compute.name} is for algorithm={' or '.join(compute.algorithms)}, which shares its "
            f"candidates out; algorithm={algorithm} learns on one machine: leave compute=local"
        )
