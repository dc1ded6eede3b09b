"""Where candidates are evaluated: the choices of the group ``compute``."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import hydra
from omegaconf import DictConfig

from ...envs.task_set import TaskSet
from ..policies.base import Policy
from .population import Population


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


class Compute(abc.ABC):
    """A choice of ``conf/compute``."""

    name: ClassVar[str]
    spread: ClassVar[bool] = False
    """Whether several processes share a population."""

    @abc.abstractmethod
    def evaluator(self, work: Work) -> Any:
        """A `Population`, or what has its ``shards``, ``evaluate`` and ``close``."""


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
