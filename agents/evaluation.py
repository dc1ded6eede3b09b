"""Returns of a policy: whole episodes, assigned beforehand, all in one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..envs.task_set import TaskSet

Act = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Episodes:
    """What the episodes of one body gave: ``returns`` and ``lengths``, both (episodes,)."""

    body: str
    returns: np.ndarray
    lengths: np.ndarray


def run_episodes(
    act: Act | None,
    task_set: TaskSet,
    bodies: Sequence[str],
    episodes: int,
    seed: int,
    *,
    aligned: bool = False,
    threads: int = 0,
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
        progress: called with the steps made so far, of at most the task's time limit.
    """
    env = task_set.make_vec(bodies, len(bodies) * episodes, aligned=aligned, threads=threads, once=True)
    if act is None:
        env.action_space.seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
    observation, _ = env.reset(seed=[[seed, i] for _ in bodies for i in range(episodes)])
    returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
    running = np.ones(env.num_envs, bool)
    step = 0
    while running.any():
        observation, rewards, terminated, truncated, _ = env.step(
            env.action_space.sample() if act is None else act(observation)
        )
        returns += rewards * running
        lengths += running
        running &= ~(terminated | truncated)
        step += 1
        if progress is not None:
            progress(step)
    env.close()
    return [
        Episodes(body, returns[i * episodes : (i + 1) * episodes], lengths[i * episodes : (i + 1) * episodes])
        for i, body in enumerate(bodies)
    ]
