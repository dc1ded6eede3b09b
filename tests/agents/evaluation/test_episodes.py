"""Whole episodes, assigned beforehand, from the same starts whatever the policy; how long recovery takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from somite.agents.evaluation.episodes import BEFORE, NEVER, WINDOW, recovery_steps, run_episodes
from somite.envs.locomotion import BodySet, LocomotionTask
from somite.envs.token_env import Step

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


def still(observation: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.zeros(observation["action_mask"].shape)


def first_observation(bodies: BodySet, seed: int, act: Any, **options: Any) -> dict[str, np.ndarray]:
    seen = []

    def watching(observation: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append({key: values.numpy().copy() for key, values in observation.items()})
        return act(observation)

    run_episodes(watching, bodies, HOPPERS, 4, seed, **options)
    return seen[0]


def test_policies_are_compared_on_the_same_starts(hoppers: BodySet) -> None:
    one = first_observation(hoppers, 5, still)
    other = first_observation(hoppers, 5, lambda o: torch.ones(o["action_mask"].shape))
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
            env = hoppers.make_env([result.body], 1, autoreset=False, threads=1)
            observation, total, steps, ended = env.reset([[2, episode]]), 0.0, 0, False
            while not ended:
                step = env.step(still(observation))
                total, steps, ended = total + float(step.rewards[0]), steps + 1, bool(step.ended[0])
            assert result.lengths[episode] == steps
            assert result.returns[episode] == pytest.approx(total)


class Lengths:
    """A task whose environment i has episodes of ``lengths[i]`` steps, over and over, with reward 1."""

    single_action_space, device = spaces.Discrete(2), torch.device("cpu")

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = torch.tensor(lengths)

    def make_env(self, bodies: list[str], num_envs: int, **options: Any) -> Lengths:
        assert num_envs == len(self.lengths)
        self.num_envs, self.age, self.closed = num_envs, torch.zeros(num_envs), False
        return self

    def reset(self, seed: list) -> dict:
        return {"action_mask": torch.ones(self.num_envs, 1, 1)}

    def step(self, actions: torch.Tensor) -> Step:
        self.age += 1
        none = torch.zeros(self.num_envs, dtype=torch.bool)
        return Step(self.reset([]), torch.ones(self.num_envs), self.age % self.lengths == 0, none, none, none)

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


AT = 200


def rewards(*, down: int, after: float = 1.0, level: float = 1.0, steps: int = 400) -> np.ndarray:
    """One episode of ``level`` that is 0 for ``down`` steps from ``AT`` on, and then ``after``."""
    values = np.full((1, steps), level)
    values[0, AT : AT + down] = 0.0
    values[0, AT + down :] = after
    return values


def steps_of(values: np.ndarray, length: int | None = None, until: int = 400) -> float:
    return float(recovery_steps(values, np.array([length or values.shape[1]]), AT, until)[0])


def test_nothing_lost_is_no_time() -> None:
    assert steps_of(rewards(down=0)) == 0


def test_recovery_is_when_the_next_steps_are_as_before() -> None:
    # A window may hold a tenth less, two of 25 steps.
    assert steps_of(rewards(down=60)) == 60 - int(0.1 * WINDOW)


def test_what_stays_down_never_recovers() -> None:
    assert steps_of(rewards(down=0, after=0.5)) == NEVER


def test_a_recovery_after_the_next_disturbance_does_not_count() -> None:
    assert steps_of(rewards(down=60), until=AT + 2 * WINDOW) == NEVER


def test_falling_is_no_recovery() -> None:
    values = rewards(down=30)
    values[0, AT + 40 :] = 0.0
    assert steps_of(values, length=AT + 40) == NEVER


def test_an_episode_that_ended_before_does_not_count() -> None:
    values = rewards(down=0)
    values[0, AT - 10 :] = 0.0
    assert np.isnan(steps_of(values, length=AT - 10))


def test_costs_come_back_as_well() -> None:
    assert steps_of(rewards(down=0, level=-1.0, after=-1.05)) == 0
    assert steps_of(rewards(down=0, level=-1.0, after=-1.5)) == NEVER


@pytest.mark.parametrize(("at", "until"), [(BEFORE - 1, 400), (AT, AT + WINDOW)])
def test_without_a_before_or_an_after_there_is_nothing_to_say(at: int, until: int) -> None:
    assert np.isnan(recovery_steps(rewards(down=0), np.array([400]), at, until)).all()
