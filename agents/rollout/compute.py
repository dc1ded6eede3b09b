"""Where candidates are evaluated: the choices of the group ``compute``."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import hydra
import numpy as np
from omegaconf import DictConfig

from ..policies.base import Policy
from .candidates import Recipe
from .population import Population, Scores, Stop, automatic_shard_size

if TYPE_CHECKING:
    from ..algorithms.base import Setup
    from ..algorithms.cma_es import CMAES


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

    name: ClassVar[str]
    spread: ClassVar[bool] = False
    """Whether several processes share a population."""

    def shard_size(self, settings: CMAES, setup: Setup, policy: Policy) -> int:
        """Candidates of a shard: what was set, or what suits this choice."""
        if settings.shard_size != "auto":
            return int(settings.shard_size)
        task = setup.task_set
        # The processors of a cluster, whatever validates here.
        device = "cpu" if self.spread else setup.device
        on_device = not self.spread and task.simulation != "cpu"
        bodies, episodes = len(task.seen), settings.episodes
        return automatic_shard_size(
            settings.population, bodies, episodes, policy.kind, device, self.spread, on_device
        )

    @abc.abstractmethod
    def evaluator(self, settings: CMAES, setup: Setup, policy: Policy) -> Evaluator:
        """What evaluates populations of ``policy``, whose acting parameters candidates are."""


@dataclass
class Local(Compute):
    """This machine; the keys of ``conf/compute/local.yaml``."""

    name = "local"

    def evaluator(self, settings: CMAES, setup: Setup, policy: Policy) -> Population:  # noqa: D102
        size = self.shard_size(settings, setup, policy)
        return Population(
            policy, setup.task_set, settings.population, settings.episodes, setup.threads, setup.device, size
        )


def compute_of(config: DictConfig) -> Compute:
    """The choice of a run's configuration. Raises UserError: an invalid value, or Ray is not installed."""
    node = config.get("compute")
    return hydra.utils.instantiate(node, _convert_="all") if node else Local()
