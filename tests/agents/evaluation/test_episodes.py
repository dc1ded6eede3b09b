"""Whole episodes, assigned beforehand, from the same starts whatever the policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from somite.agents.evaluation.episodes import run_episodes
from somite.envs.locomotion import BodySet, LocomotionTask

HOPPERS = ("hopper_3", "hopper_5")


@pytest.fixture(scope="module")
def hoppers() -> BodySet:
    """Bodies that fall over soon, each at its own time."""
    task = LocomotionTask(
        alive_bonus=1.0,
        relative_height=(0.56, 2.0),
        max_tilt=0.15,
        max_episode_steps=60,
        reset_noise=0.08,
        speed_noise="uniform",
    )
    return BodySet("hopper", frame_skip=4, task=task)


def still(observation: dict[str, np.ndarray]) -> np.ndarray:
    return np.zeros(observation["action_mask"].shape)


def first_observation(bodies: BodySet, seed: int, act: Any, **options: Any) -> dict[str, np.ndarray]:
    seen = []

    def watching(observation: dict[str, np.ndarray]) -> np.ndarray:
        seen.append({key: values.copy() for key, values in observation.items()})
        return act(observation)

    run_episodes(watching, bodies, HOPPERS, 4, seed, **options)
    return seen[0]


def test_policies_are_compared_on_the_same_starts(hoppers: BodySet) -> None:
    one = first_observation(hoppers, 5, still)
    other = first_observation(hoppers, 5, lambda o: np.ones_like(o["action_mask"], float))
    assert all(np.array_equal(one[key], other[key]) for key in one)
    another_seed = first_observation(hoppers, 6, still)
    assert np.abs(one["tokens"] - another_seed["tokens"]).max() > 1e-3
    rows = one["tokens"][:4, 0]
    assert len(np.unique(rows, axis=0)) == 4, "every episode has a start of its own"
    # In aligned slots the same limbs stand elsewhere: the same readings, in another order.
    aligned = first_observation(hoppers, 5, still, aligned=True)
    for row in range(8):
        ours, theirs = one["tokens"][row], aligned["tokens"][row]
        assert sorted(map(tuple, ours[one["mask"][row] == 1])) == sorted(
            map(tuple, theirs[aligned["mask"][row] == 1])
        )


def test_more_episodes_begin_with_the_same_ones(hoppers: BodySet) -> None:
    few = run_episodes(still, hoppers, HOPPERS, 2, seed=1)
    many = run_episodes(still, hoppers, HOPPERS, 5, seed=1)
    for one, other in zip(few, many, strict=True):
        np.testing.assert_allclose(other.returns[:2], one.returns, rtol=1e-9)
        assert np.array_equal(other.lengths[:2], one.lengths)


def test_each_row_is_one_whole_episode(hoppers: BodySet) -> None:
    """Against the same episodes one by one, without autoreset."""
    results = run_episodes(still, hoppers, HOPPERS, 3, seed=2)
    lengths = np.concatenate([result.lengths for result in results])
    assert len(set(lengths)) > 2 and lengths.min() < lengths.max() <= 60
    for result in results:
        for episode in range(3):
            env = hoppers.make_vec([result.body], 1, autoreset_mode="Disabled", threads=1)
            env.reset(seed=[[2, episode]])
            total, steps, ended = 0.0, 0, False
            while not ended:
                _, reward, terminated, truncated, _ = env.step(np.zeros(env.action_space.shape))
                total, steps, ended = total + reward[0], steps + 1, terminated[0] or truncated[0]
            assert result.lengths[episode] == steps
            assert result.returns[episode] == pytest.approx(total)


class Lengths:
    """A body set whose row i has episodes of ``lengths[i]`` steps, over and over, with reward 1."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths)

    def make_vec(self, bodies: list[str], num_envs: int, **options: Any) -> Lengths:
        assert num_envs == len(self.lengths)
        self.num_envs, self.age, self.closed = num_envs, np.zeros(num_envs, int), False
        return self

    def reset(self, seed: list) -> tuple[dict, dict]:
        return {"action_mask": np.ones((self.num_envs, 1, 1))}, {}

    def step(self, actions: np.ndarray) -> tuple:
        self.age += 1
        ended = self.age % self.lengths == 0
        none = np.zeros(self.num_envs, bool)
        return self.reset([])[0], np.ones(self.num_envs), ended, none, {}

    def close(self) -> None:
        self.closed = True


def test_short_episodes_are_not_favoured() -> None:
    """Counting the first eight that end would give a mean of 1: the row of length 1 gives them all."""
    lengths = [1, 50, 50, 50, 2, 2, 40, 40]
    world, steps = Lengths(lengths), []
    one, two = run_episodes(still, world, ("a", "b"), 4, seed=0, progress=steps.append)
    assert one.lengths.tolist() == one.returns.tolist() == lengths[:4]
    assert two.lengths.tolist() == two.returns.tolist() == lengths[4:]
    assert steps == list(range(1, 51)) and world.closed


def test_an_evaluation_repeats_itself(hoppers: BodySet) -> None:
    def returns() -> np.ndarray:
        return np.array([r.returns for r in run_episodes(None, hoppers, HOPPERS, 3, seed=3)])

    assert np.array_equal(returns(), returns())
