"""Whole episodes of a policy: what they return, one watched step by step, and recovery within them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import batch_space

from ...envs.task_set import TaskSet
from ...envs.token_env import TokenEnv
from ..agent import Agent
from ..rollout.episodes import FirstEpisodes

Observation = Mapping[str, torch.Tensor]

# Recovered: the mean reward of the next 25 steps is at least 90 % of that of the 100 steps before.
WINDOW, BEFORE, SHARE = 25, 100, 0.9
NEVER = -1  # recovery of an episode in which it does not


@dataclass(frozen=True)
class Episodes:
    """What the episodes of one body gave: ``returns`` and ``lengths``, both (episodes,).

    ``rewards`` (episodes, steps) are kept where that was asked for, 0 after an episode's end.
    """

    body: str
    returns: np.ndarray
    lengths: np.ndarray
    rewards: np.ndarray | None = None


def run_episodes(
    agent: Agent | Callable[[Observation], Any] | None,
    task_set: TaskSet,
    bodies: Sequence[str],
    episodes: int,
    seed: int,
    *,
    aligned: bool = False,
    threads: int = 0,
    first: int = 0,
    keep_rewards: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Episodes]:
    """Run ``episodes`` episodes of every body, all in one batch.

    Every environment has one episode, known beforehand: counting the first to finish would favour short
    ones. Episode i starts from the stream (seed, i) whatever the policy, so that policies are compared on the
    same starts.

    Args:
        agent: acts deterministically and is reset; or a function from observations of B environments to
            actions; None: uniformly random actions, from a stream of their own.
        task_set: gives the task.
        bodies: names.
        episodes: of each body.
        seed: of the starts.
        aligned: of a function, whether it acts for the padded network; an agent knows.
        threads: of the simulation; 0 for one per core.
        first: number of the first of these episodes, where they are a part of more.
        keep_rewards: keep those of every step.
        progress: called with the steps made so far.
    """
    act = agent
    if isinstance(agent, Agent):
        agent.reset()
        act, aligned = agent.act, agent.policy.aligned_slots
    env = task_set.make_env(bodies, len(bodies) * episodes, aligned=aligned, threads=threads, once=True)
    with closing(env):
        actions = batch_space(env.single_action_space, env.num_envs)
        if act is None:
            actions.seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        observation = env.reset([[seed, i] for _ in bodies for i in range(first, first + episodes)])
        counts = FirstEpisodes(env.num_envs, env.device)
        kept: list[torch.Tensor] = []
        while counts.running.any():
            acted = actions.sample() if act is None else act(observation)
            step = env.step(torch.as_tensor(acted, device=env.device))
            observation = step.observation
            if keep_rewards:
                kept.append(step.rewards.double() * counts.running)
            counts.add(step.rewards, step.ended, step.diverged)
            if progress is not None:
                progress(int(counts.lengths.max()))
    by_step = torch.stack(kept, 1).cpu().numpy() if keep_rewards else None
    found = []
    for i, body in enumerate(bodies):
        part = slice(i * episodes, (i + 1) * episodes)
        own = counts.returns[part].cpu().numpy(), counts.lengths[part].cpu().numpy()
        found.append(Episodes(body, *own, None if by_step is None else by_step[part]))
    return found


def watch_episode(agent: Agent, env: TokenEnv, seed: int) -> Iterator[tuple[Observation, list[float]]]:
    """The first episode of `run_episodes` with this seed, moment by moment; the environment is left open.

    Yields:
        The observation that is acted on next, (1, ...) each, and the rewards so far, a list that grows.
    """
    agent.reset()
    observation = env.reset([[seed, 0]])
    rewards: list[float] = []
    ended = False
    while not ended:
        yield observation, rewards
        step = env.step(agent.act(observation).to(env.device))
        observation, ended = step.observation, bool(step.ended[0])
        rewards.append(float(step.rewards[0]))


def recovery_steps(rewards: np.ndarray, lengths: np.ndarray, at: int, until: int) -> np.ndarray:
    """Steps from ``at`` until the reward of the next `WINDOW` steps is again `SHARE` of what it was.

    Where the reward before was negative, the shortfall allowed is `SHARE`'s complement of its size.

    Args:
        rewards: (E, T) of each step; 0 after an episode's end.
        lengths: (E,) of the episodes.
        at: step before which it happens.
        until: step before which the next thing happens.

    Returns:
        (E,) float: steps; `NEVER`; NaN for an episode that ended before ``at``, and for all where fewer than
        `BEFORE` steps lie before it or fewer than two windows behind it: there is nothing to compare.
    """
    n, steps = rewards.shape
    until = min(until, steps)
    if at < BEFORE or until - at < 2 * WINDOW:
        return np.full(n, np.nan)
    level = rewards[:, at - BEFORE : at].mean(1)
    wanted = level - (1 - SHARE) * np.abs(level)  # (E,)
    sums = np.concatenate((np.zeros((n, 1)), rewards[:, at:until].cumsum(1)), 1)
    means = (sums[:, WINDOW:] - sums[:, :-WINDOW]) / WINDOW  # (E, until - at - WINDOW + 1), of the next steps
    # A window that reaches beyond an episode's end counts nothing there: falling is no recovery.
    good = means >= wanted[:, None]
    good &= np.arange(means.shape[1]) <= (lengths - at - WINDOW)[:, None]
    return np.where(lengths <= at, np.nan, np.where(good.any(1), good.argmax(1), NEVER))
