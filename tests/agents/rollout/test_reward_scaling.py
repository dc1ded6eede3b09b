"""Rewards in units of each body's returns, against plain arithmetic over all returns so far."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd

from somite.agents.rollout.rewards import REWARD_CLIP, RewardScaling
from somite.envs.snapshots import Misfit

CPU = torch.device("cpu")
STEPS, ROWS, GAMMA = 40, 7, 0.9
UNIT_OF_BODY = np.array([1.0, 100.0, 0.01])


def script(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (T, B) in each body's own unit, and where episodes end (T, B)."""
    rng = np.random.default_rng(seed)
    rewards = rng.normal(0.5, 1, (STEPS, ROWS)) * UNIT_OF_BODY[np.arange(ROWS) % 3]
    return rewards, rng.random((STEPS, ROWS)) < 0.1


BODY_OF_ROW = np.arange(ROWS) % 3


def scale(scaling: RewardScaling, rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The rewards (T, B) after scaling."""
    steps = zip(torch.from_numpy(rewards), torch.from_numpy(ends), strict=True)
    return np.array([scaling(reward, end).numpy() for reward, end in steps])


def scaled(seed: int = 0) -> tuple[RewardScaling, np.ndarray]:
    """The scaling after all steps, and the rewards (T, B) it gave."""
    scaling = RewardScaling(BODY_OF_ROW, GAMMA, CPU)
    return scaling, scale(scaling, *script(seed))


def reference(rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(T, B) rewards divided by the deviation of all the body's discounted returns up to this step."""
    returns, wanted = np.zeros(ROWS), []
    seen: list[list[float]] = [[], [], []]
    for reward, end in zip(rewards, ends, strict=True):
        returns = returns * GAMMA + reward
        scale = np.zeros(ROWS)
        for body in range(3):
            rows = np.arange(ROWS) % 3 == body
            seen[body].extend(returns[rows])
            # SB3's statistics begin with a weight of 1e-4 at mean 0 and variance 1.
            weight = len(seen[body]) + 1e-4
            mean = np.sum(seen[body]) / weight
            variance = (np.sum(np.square(seen[body])) + 1e-4) / weight - mean**2
            scale[rows] = np.sqrt(variance + 1e-8)
        wanted.append(np.clip(reward / scale, -REWARD_CLIP, REWARD_CLIP))
        returns = np.where(end, 0, returns)
    return np.array(wanted)


def test_rewards_are_divided_by_each_bodys_deviation_so_far() -> None:
    scaling, given = scaled()
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, reference(*script()), rtol=1e-5)
    by_body = scaling.scale()[:3]
    np.testing.assert_allclose(by_body / by_body[0], UNIT_OF_BODY, rtol=0.3)
    assert torch.equal(scaling.scale()[3:], scaling.scale()[:4]), "rows of one body share its scale"


def test_the_statistics_are_those_of_stable_baselines() -> None:
    scaling, _ = scaled()
    rewards, ends = script()
    returns, theirs = np.zeros(ROWS), [RunningMeanStd(shape=()) for _ in range(3)]
    for reward, end in zip(rewards.astype(np.float32), ends, strict=True):
        returns = returns * GAMMA + reward
        for body in range(3):
            theirs[body].update(returns[BODY_OF_ROW == body])
        returns[end] = 0
    wanted = [[float(s.mean), float(s.var), float(s.count)] for s in theirs]
    np.testing.assert_allclose(scaling.snapshot()["statistics"], wanted, rtol=1e-12)


def test_scaled_rewards_are_bounded() -> None:
    rewards = np.full((10 * STEPS, ROWS), 0.1)
    rewards[-1] = 1e6
    given = scale(RewardScaling(BODY_OF_ROW, GAMMA, CPU), rewards, np.zeros_like(rewards, bool))
    assert given[-1].max() == REWARD_CLIP and given[-2].max() < REWARD_CLIP


def test_the_state_restores_every_bodys_scale() -> None:
    scaling, _ = scaled()
    other = RewardScaling(BODY_OF_ROW, GAMMA, CPU)
    other.restore_statistics(scaling.snapshot())
    assert torch.equal(other.scale(), scaling.scale())
    # And goes on with the same weight: the next step moves both alike.
    rewards, ends = script(1)
    for each in (scaling, other):
        each.begin_episodes()
    assert np.array_equal(scale(scaling, rewards, ends), scale(other, rewards, ends))
    with pytest.raises(Misfit, match="rewards of 2 bodies, not of 3"):
        RewardScaling(BODY_OF_ROW % 2, GAMMA, CPU).restore_statistics(scaling.snapshot())


def test_returns_in_progress_are_restored_but_for_rows_that_begin_anew() -> None:
    rewards, _ = script()
    running = np.zeros_like(rewards, bool)
    one, other = RewardScaling(BODY_OF_ROW, GAMMA, CPU), RewardScaling(BODY_OF_ROW, GAMMA, CPU)
    scale(one, rewards, running)
    anew = np.arange(ROWS) == 4
    other.restore(one.snapshot(), torch.from_numpy(anew))
    returns = [each.snapshot()["_returns"].numpy() for each in (one, other)]
    assert returns[1][4] == 0 != returns[0][4]
    assert np.array_equal(returns[0][~anew], returns[1][~anew])
