"""Where candidates are evaluated: the choices of the group ``compute``."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import hydra
import numpy as np
from omegaconf import DictConfig

from ...envs.task_set import TaskSet
from ..policies.base import Policy
from .candidates import Recipe
from .population import Population, Scores, Stop


@dataclass(frozen=True)
class Work:
    """What there is to evaluate.

    Attributes:
        policy: whose acting parameters candidates are, on the device of the networks.
        task_set: gives the task. environment: configuration of which other processes can make it.
        size: P, candidates. episodes: E, of each candidate on each body.
        shard_size: candidates that are simulated together.
        threads: that this machine may use.
    """

    policy: Policy
    task_set: TaskSet
    environment: Mapping[str, Any]
    size: int
    episodes: int
    shard_size: int
    threads: int


class Evaluator(Protocol):
    """What evaluates a population."""

    shards: list[slice]

    def evaluate(
        self, candidates: np.ndarray, starts: Sequence[Any], stop: Stop, recipe: Recipe | None
    ) -> Scores | None:
        """Run every candidate from the same starts; each row has one episode.

        Args:
            candidates: (P, n) acting parameters.
            starts: E seeds, of the episodes of every candidate on every body.
            stop: asked now and then; True ends all of it.
            recipe: what the candidates were drawn from, if that is known.

        Returns:
            Scores; None: it was stopped.
        """

    def close(self) -> None:
        """Let go of whatever computes."""


class Compute(abc.ABC):
    """A choice of ``conf/compute``."""

    name: ClassVar[str]
    spread: ClassVar[bool] = False
    """Whether several processes share a population."""

    @abc.abstractmethod
    def evaluator(self, work: Work) -> Evaluator:
        """What does it here."""


@dataclass
class Local(Compute):
    """This machine; the keys of ``conf/compute/local.yaml``."""

    name = "local"

    def evaluator(self, work: Work) -> Population:  # noqa: D102
        return Population(work.policy, work.task_set, work.size, work.episodes, work.threads, work.shard_size)


def compute_of(config: DictConfig) -> Compute:
    """The choice of a run's configuration. Raises UserError: an invalid value, or Ray is not installed."""
    node = config.get("compute")
    return hydra.utils.instantiate(node, _convert_="all") if node else Local()
