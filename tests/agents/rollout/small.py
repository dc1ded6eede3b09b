"""Small searches that are evaluated here and there."""

from __future__ import annotations

from dataclasses import dataclass

import hydra
import numpy as np
import torch
from omegaconf import OmegaConf

from somite.agents.algorithms import CMAES
from somite.agents.algorithms.cma_es import CMASearch as Search
from somite.agents.composition import build_policy
from somite.agents.policies import Policy
from somite.agents.rollout.compute import Compute, Local, Work
from somite.agents.rollout.population import Population
from somite.agents.rollout.stacked import get_parameters
from somite.envs.task_set import TaskSet
from tests.agents.runs import compose

TASKS = {
    "sensors": ("env=cartpole_swingup", "env.max_episode_steps=300", "agent=attention_neuron"),
    "limbs": (
        "env=cheetah", "env.task.max_episode_steps=20", "env.bodies=[cheetah_2_back,cheetah_3_front]",
        "agent=smp", "agent.width=8",
    ),
}  # fmt: skip
SEARCH = (
    "algorithm=cma_es",
    "algorithm.population=12",
    "algorithm.episodes=3",
    "algorithm.shard_size=2",
    "algorithm.diagonal=true",
)


@dataclass
class Small:
    """A search, and what it takes to evaluate it anywhere."""

    settings: CMAES
    policy: Policy
    task: TaskSet
    environment: dict
    search: Search

    @property
    def work(self) -> Work:
        settings = self.settings
        sizes = settings.population, settings.episodes, settings.shard_size
        return Work(self.policy, self.task, self.environment, *sizes, threads=1)

    def evaluator(self, compute: Compute) -> Population:
        return compute.evaluator(self.work)

    def starts(self) -> list[list[int]]:
        return [[7, self.search.generation, episode] for episode in range(self.settings.episodes)]

    def generation(self, evaluator: Population, stop: object = lambda: False) -> object:
        return evaluator.evaluate(self.search.ask(), self.starts(), stop)

    def local(self) -> object:
        """What this machine makes of the present generation."""
        evaluator = self.evaluator(Local())
        scores = self.generation(evaluator)
        evaluator.close()
        return scores


def make(task: str = "sensors", *more: str) -> Small:
    config = compose(*TASKS[task], *SEARCH, *more)
    bodies = hydra.utils.instantiate(config.env, _convert_="all")
    env = bodies.make_vec(bodies.seen, len(bodies.seen), threads=1)
    torch.manual_seed(0)
    policy = build_policy(config.agent, env)
    env.close()
    settings = hydra.utils.instantiate(config.algorithm, _convert_="all")
    search = Search(settings, np.zeros_like(get_parameters(policy)), 0)
    return Small(settings, policy, bodies, OmegaConf.to_container(config.env, resolve=True), search)
