"""``somite-benchmark population``: a generation of CMA-ES beside episodes of one candidate at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from ...agents.agent import Agent
from ...agents.composition import build_policy, sizes_for
from ...agents.evaluation.episodes import run_episodes
from ...agents.policies import AttentionNeuron, Policy
from ...agents.rollout.population import Population
from ...agents.rollout.stacked import get_parameters
from ...envs.cores import available_cores
from ...envs.numbers import EPISODE_STEPS, POSITIVE, TEXT, checked, whole
from ...envs.sensors import CartPoleSwingUp, Senses
from ...envs.sensors.cartpole_swingup import CartPoles
from ...envs.task_set import TaskSet
from .harness import ARGUMENTS, COUNT, ROUNDS, Report, Rival, counted
from .rivals import PlainCart, PlainNeuron
from .setup import compose, instantiate

CPU = torch.device("cpu")
SEED = 0
"""Of the parameters and of the starts, which are the same for all rivals."""


@checked("")
@dataclass
class PopulationSpeed:
    """The section ``population`` of ``conf/benchmark.yaml``, which says what its keys mean.

    A step is one of an episode that still runs: what else is computed for a batch counts for nothing. The
    parameters are drawn around zero, once for all, and all rivals meet the same starts. Of the swing-up:

    * ``full/...``: carts may leave the track, so that every episode has all its steps: what a generation of
      candidates costs that have learnt their task;
    * ``ending/...``: as the task is; most of these candidates lose their cart early, but some few do not;
    * ``.../1_core`` and ``.../all_cores``: a generation at once, by one thread and by one for each core;
    * ``.../one_candidate``: a sample of candidates, one after another, each with all its episodes in a batch
      of our own environment and policy, on one core;
    * ``.../one_episode``: a sample of episodes, one after another, of PyTorch's parts in a plain loop over an
      environment of one cart, as the published agent was trained, on one core.

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
        for name, kind in (("full", EndlessSwingUp), ("ending", CartPoleSwingUp)):
            task = kind(Senses(), self.steps)
            with closing(task.make_env(num_envs=1)) as env:
                policy = AttentionNeuron(env.spec_of_tokens, **sizes_for(AttentionNeuron, env))
            one_episode = self._one_episode(f"{name}/one_episode", policy, kind is EndlessSwingUp)
            rivals = self._rivals(name, policy, task, self.candidates, self.episodes, [one_episode])
            what = f"Swing-up, {self.candidates} candidates with {self.episodes} episodes, {name}"
            report.compare(what, rivals, self.rounds)
        if self.ant_candidates:
            ants: TaskSet = instantiate(config.env)
            policy = initial_policy(config, ants)
            rivals = self._rivals("ant", policy, ants, self.ant_candidates, self.ant_episodes, [])
            what = f"Ant, {self.ant_candidates} candidates with {self.ant_episodes} episodes"
            report.compare(f"{what}, {self.ant_agent}", rivals, self.rounds)

    def _rivals(
        self,
        name: str,
        policy: Policy,
        task: TaskSet,
        candidates: int,
        episodes: int,
        further: Sequence[Rival],
    ) -> list[Rival]:
        """Whole generations at once, on one core and on all; a candidate's episodes in one batch; others."""
        drawn = draw(policy, candidates, self.sigma)

        def one_candidate(index: int) -> int:
            policy.set_flat(drawn[index % candidates])
            found = run_episodes(Agent(policy).act, task, task.seen, episodes, SEED, threads=1)
            return int(sum(result.lengths.sum() for result in found))

        alone = counted(f"{name}/one_candidate", lambda _: one_candidate, self.candidates_alone, threads=1)
        others = [alone, *further]
        against, cores = [other.name for other in others], available_cores()
        kinds = {"1_core": 1} | ({"all_cores": cores} if cores > 1 else {})
        make = partial(generations, policy, task, drawn, episodes)
        own = [
            counted(f"{name}/{kind}", partial(make, threads), 1, against, threads=threads)
            for kind, threads in kinds.items()
        ]
        return [*own, *others]

    def _one_episode(self, name: str, policy: Policy, endless: bool) -> Rival:
        drawn = draw(policy, self.candidates, self.sigma)

        starts = first_states(self.episodes)

        def one_episode(index: int) -> int:
            start = starts[index % self.episodes]
            plain = PlainNeuron(drawn[index // self.episodes % self.candidates])
            return plain.run(PlainCart(start, endless), self.steps)[1]

        return counted(name, lambda _: one_episode, self.episodes_alone, threads=1)


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
    starts = [[SEED, episode] for episode in range(episodes)]
    population = Population(policy.to(device), task, len(drawn), episodes, threads, shard_size)
    stack.callback(population.close)
    population.evaluate(drawn, starts)
    return lambda _: int(population.evaluate(drawn, starts).lengths.sum())


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


class EndlessCarts(CartPoles):
    """Carts that may leave the track."""

    def step(self, actions: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        rewards, terminated, cut = super().step(actions, running)
        return rewards, torch.zeros_like(terminated), cut


class EndlessSwingUp(CartPoleSwingUp):
    """The task of which every episode has all its steps."""

    def make_source(self, num_envs: int, threads: int = 0, device: str = "cpu") -> CartPoles:  # noqa: D102
        return EndlessCarts(num_envs, self.max_episode_steps)
