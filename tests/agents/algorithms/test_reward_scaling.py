"""Rewards in units of each body's returns, against plain arithmetic over all returns so far."""

from __future__ import annotations

import numpy as np
import pytest

from somite.agents.algorithms.reward_scaling import REWARD_CLIP, BodyRewardScaling
from somite.envs.sb3 import SB3VecEnv

from .worlds import Script

STEPS, ROWS, GAMMA = 40, 7, 0.9
UNIT_OF_BODY = np.array([1.0, 100.0, 0.01])


def script(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (T, B) in each body's own unit, and where episodes end (T, B)."""
    rng = np.random.default_rng(seed)
    rewards = rng.normal(0.5, 1, (STEPS, ROWS)) * UNIT_OF_BODY[np.arange(ROWS) % 3]
    return rewards, rng.random((STEPS, ROWS)) < 0.1


def scaled(seed: int = 0) -> tuple[BodyRewardScaling, np.ndarray, list[list[dict]]]:
    """The wrapper after all steps, the rewards (T, B) it gave, and its infos."""
    rewards, ends = script(seed)
    rows = BodyRewardScaling(SB3VecEnv(Script(rewards, terminated=ends)), GAMMA)
    rows.reset()
    given, infos = [], []
    for _ in range(STEPS):
        _, reward, _, info = rows.step(np.zeros(rows.venv.env.action_space.shape))
        given.append(reward)
        infos.append(info)
    return rows, np.array(given), infos


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
    rows, given, _ = scaled()
    np.testing.assert_allclose(given, reference(*script()), rtol=1e-5)
    by_body = rows.scale()[:3]
    np.testing.assert_allclose(by_body / by_body[0], UNIT_OF_BODY, rtol=0.3)
    assert np.array_equal(rows.scale()[3:], rows.scale()[:4]), "rows of one body share its scale"


def test_scaled_rewards_are_bounded() -> None:
    rewards = np.full((STEPS, ROWS), 0.1)
    rewards[-1] = 1e6
    rows = BodyRewardScaling(SB3VecEnv(Script(rewards)), GAMMA)
    rows.reset()
    for _ in range(STEPS):
        _, reward, _, _ = rows.step(np.zeros(rows.venv.env.action_space.shape))
    assert reward.max() <= REWARD_CLIP and reward.dtype == np.float32


def test_logged_returns_are_raw() -> None:
    rewards, ends = script()
    _, _, infos = scaled()
    running, found = np.zeros(ROWS), 0
    for reward, end, info in zip(rewards, ends, infos, strict=True):
        running += reward
        for row in range(ROWS):
            assert ("episode" in info[row]) == end[row]
            if end[row]:
                assert info[row]["episode"]["r"] == pytest.approx(running[row])
                assert info[row]["body"] == row % 3
                found += 1
        running[end] = 0
    assert found > 10


def test_the_state_restores_every_bodys_scale() -> None:
    rows, _, _ = scaled()
    rewards, _ = script(1)
    other = BodyRewardScaling(SB3VecEnv(Script(rewards)), GAMMA)
    other.restore_statistics(rows.snapshot())
    assert np.array_equal(other.scale(), rows.scale())
    assert other.snapshot()["statistics"] == rows.snapshot()["statistics"]
    # And goes on with the same weight: the next step moves both alike.
    for wrapper in (rows, other):
        wrapper.reset()
        wrapper.venv.env.script[0] = rewards
        wrapper.step(np.zeros(wrapper.venv.env.action_space.shape))
    np.testing.assert_allclose(other.scale(), rows.scale(), rtol=1e-12)
