"""Returns of a policy: whole episodes, assigned beforehand, all in one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ...envs.task_set import TaskSet

Act = Callable[[Mapping[str, np.ndarray]], np.ndarray]


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
    act: Act | None,
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
    """Run ``episodes`` episodes of every body.

    Every row has one episode, known beforehand: counting the first to finish would favour short ones.
    Episode i starts from the stream (seed, i) whatever the policy, so that policies are compared on
    the same starts.

    Args:
        act: observations of B rows to actions; None: uniformly random actions, from a stream of their own.
        task_set: gives the task.
        bodies: names.
        episodes: of each body.
        seed: of the starts.
        aligned: for the padded network.
        threads: of the simulation; 0 for one per core.
        first: number of the first of these episodes, where they are a part of more.
        keep_rewards: keep those of every step.
        progress: called with the steps made so far, of at most the task's time limit.
    """
    env = task_set.make_vec(bodies, len(bodies) * episodes, aligned=aligned, threads=threads, once=True)
    with closing(env):
        if act is None:
            env.action_space.seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        observation, _ = env.reset(seed=[[seed, i] for _ in bodies for i in range(first, first + episodes)])
        returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
        running = np.ones(env.num_envs, bool)
        kept: list[np.ndarray] = []
        step = 0
        while running.any():
            observation, rewards, terminated, truncated, _ = env.step(
                env.action_space.sample() if act is None else act(observation)
            )
            rewards = rewards * running
            returns += rewards
            if keep_rewards:
                kept.append(rewards)
            lengths += running
            running &= ~(terminated | truncated)
            step += 1
            if progress is not None:
                progress(step)
    by_step = np.stack(kept, 1) if keep_rewards else None
    parts = [slice(i * episodes, (i + 1) * episodes) for i in range(len(bodies))]
    return [
        Episodes(body, returns[part], lengths[part], None if by_step is None else by_step[part])
        for body, part in zip(bodies, parts, strict=True)
    ]
