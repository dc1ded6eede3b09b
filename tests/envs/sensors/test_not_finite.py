"""What is no finite number ends its own episode, is counted, and reaches no agent."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv
from somite.envs.locomotion import LocomotionTask, make_vec
from somite.envs.sb3 import SB3VecEnv
from somite.envs.sensors import CartPoleSwingUp, GymnasiumTask, Senses
from tests.envs.sensors.worlds import sensor_vec

BROKEN = "SomiteTests/Broken-v0"
AT = 4
SENSES = Senses(history=2, shuffle=2, noise_channels=1, traces=(10,))


class Broken(gymnasium.Env):
    """Counts its steps; in its first episodes, a reading or a reward of one step is no number."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, by: str = "reading", value: float = np.nan, at: int = AT, breaks: int = 1) -> None:
        self._by, self._value, self._at, self._breaks = by, value, at, breaks

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._steps, self._first = -1, self.np_random.uniform()
        return self._step()[:1] + ({},)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert np.isfinite(action).all()
        return self._step()

    def _step(self) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._steps += 1
        reading, reward = np.array([self._steps, 1.0, self._first]), 1.0
        if self._steps == self._at and self._breaks:
            self._breaks -= 1
            if self._by == "reading":
                reading[1] = self._value
            else:
                reward = self._value
        return reading, reward, False, False, {}


@pytest.fixture(autouse=True)
def broken() -> Iterator[None]:
    gymnasium.register(BROKEN, entry_point=Broken, max_episode_steps=50)
    yield
    del gymnasium.registry[BROKEN]


def make(rows: int = 3, senses: Senses = SENSES, **kwargs: Any) -> TokenVectorEnv:
    """Rows of which the second alone breaks."""
    env = GymnasiumTask(BROKEN, kwargs, senses).make_vec(num_envs=rows)
    for row in range(rows):
        if row != 1:
            env.source._envs[row].unwrapped._breaks = 0
    return env


def all_finite(observation: dict[str, np.ndarray]) -> bool:
    return all(np.isfinite(values).all() for values in observation.values())


@pytest.mark.parametrize("by", ["reading", "reward"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_reading_or_reward_that_is_not_finite_ends_its_episode(by: str, value: float) -> None:
    env, sound = make(by=by, value=value), make(by=by, value=value, at=-1)
    env.reset(seed=0), sound.reset(seed=0)
    for step in range(1, 12):
        with np.errstate(over="ignore"):
            told = env.step(np.zeros((3, 2)))
        observation, rewards, terminated, truncated, info = told
        wanted, _, _, _, other = sound.step(np.zeros((3, 2)))
        breaks = step == AT
        assert info["diverged"].tolist() == [False, breaks, False] == terminated.tolist()
        assert all_finite(observation) and not truncated.any() and not other["diverged"].any()
        for key, values in observation.items():  # the others do not notice
            np.testing.assert_array_equal(values[::2], wanted[key][::2])
        assert rewards[0] == 1
        if breaks:
            assert rewards[1] == 0 and all_finite(info["final_obs"][1])
            assert info["final_obs"][1]["privileged"][0] == AT - 1, "the last reading that was one"
            assert observation["privileged"][1, 0] == 0 and info["episode_is_whole"][1]
    assert env._steps.tolist() == [11, 7, 11]


def test_those_who_learn_count_them(caplog: pytest.LogCaptureFixture) -> None:
    env = SB3VecEnv(make(by="reward", breaks=2), seed=0)
    env.reset()
    for _ in range(2 * AT):
        _, rewards, done, infos = env.step(np.zeros((3, 2)))
        assert np.isfinite(rewards).all()
    assert env.diverged.tolist() == [2] and done[1] and not infos[1]["TimeLimit.truncated"]
    assert infos[1]["episode"]["r"] == AT - 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{BROKEN} gave NaN as reward in environments [1], which ends their episodes; later ones are not told"
    ]


@pytest.mark.parametrize("mode", ["once", "by hand"])
def test_a_row_that_stays_keeps_its_last_reading(mode: str) -> None:
    source = make(breaks=10).source
    options = {"once": True} if mode == "once" else {"autoreset_mode": "Disabled"}
    env = sensor_vec(source, SENSES, **options)
    env.reset(seed=0)
    for _ in range(AT):
        observation, *_, info = env.step(np.zeros((3, 2)))
    assert info["diverged"].tolist() == [False, True, False]
    for _ in range(2):
        assert observation["privileged"][1, 0] == AT - 1 and all_finite(observation)
        if mode == "once":
            observation, rewards, terminated, _, info = env.step(np.zeros((3, 2)))
            assert rewards[1] == 0 and not terminated.any() and not info["diverged"].any(), "told once"
    observation, _ = env.reset(options={"reset_mask": np.array([True, False, False])})
    assert observation["privileged"][1, 0] == AT - 1
    observation, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert observation["privileged"][1, 0] == 0


def test_an_episode_that_begins_with_no_number_begins_again(caplog: pytest.LogCaptureFixture) -> None:
    env = make(at=0, breaks=3)
    observation, _ = env.reset(seed=0)
    assert all_finite(observation) and caplog.text.count("first readings were not finite") == 1
    assert "started anew 3 times" in caplog.text
    wanted, _ = make(at=-1).reset(seed=0)
    assert (observation["privileged"][:, 2] == wanted["privileged"][:, 2]).tolist() == [True, False, True]
    with pytest.raises(UserError, match=f"10 episodes of {BROKEN} in a row began with readings that are not"):
        make(at=0, breaks=100).reset(seed=0)


def limbs(rows: int) -> TokenVectorEnv:
    return make_vec(["hopper_3"], rows, LocomotionTask(), threads=1)


def carts(rows: int) -> TokenVectorEnv:
    return CartPoleSwingUp(SENSES).make_vec(num_envs=rows)


def cheetahs(rows: int) -> TokenVectorEnv:
    return GymnasiumTask("HalfCheetah-v5", senses=SENSES).make_vec(num_envs=rows, threads=1)


@pytest.mark.parametrize("of", [limbs, carts, cheetahs, functools.partial(make, at=-1)])
def test_an_action_that_is_no_number_ends_its_episode_and_an_infinite_one_is_clipped(of: Any) -> None:
    """In tasks of limbs as in those of sensors."""
    env, other = of(3), of(3)
    env.reset(seed=0), other.reset(seed=0)
    actions = np.zeros(env.action_space.shape)
    actions[1] = np.nan
    observation, rewards, terminated, _, info = env.step(actions)
    assert info["diverged"].tolist() == terminated.tolist() == [False, True, False]
    assert all_finite(observation) and all_finite(info["final_obs"][1])
    if of is not limbs:
        assert rewards[1] == 0
    infinite, one = np.full(actions.shape, np.inf), np.ones(actions.shape)
    other.reset(seed=1), env.reset(seed=1)
    told, wanted = env.step(infinite), other.step(one)
    assert not told[4]["diverged"].any()
    for key, values in told[0].items():
        np.testing.assert_array_equal(values, wanted[0][key])


def test_a_choice_that_is_no_number_is_refused() -> None:
    env = GymnasiumTask("CartPole-v1").make_vec(num_envs=2)
    env.reset(seed=0)
    with np.errstate(invalid="ignore"), pytest.raises(UserError, match="actions are 0 to 1, got -9223372036"):
        env.step(np.array([np.nan, 0]))


def test_a_batched_state_that_diverges_is_told() -> None:
    env, sound = cheetahs(3), cheetahs(3)
    env.reset(seed=0), sound.reset(seed=0)
    for _ in range(3):
        before, *_ = env.step(np.zeros((3, 6)))
        sound.step(np.zeros((3, 6)))
    env.source.qvel[1] = 1e12
    observation, rewards, terminated, _, info = env.step(np.ones((3, 6)))
    wanted, expected, *_ = sound.step(np.ones((3, 6)))
    assert info["diverged"].tolist() == terminated.tolist() == [False, True, False]
    assert rewards[1] == 0 and rewards[0] == expected[0]
    np.testing.assert_array_equal(info["final_obs"][1]["privileged"], before["privileged"][1])
    assert np.array_equal(observation["tokens"][::2], wanted["tokens"][::2]) and all_finite(observation)
    *_, info = env.step(np.ones((3, 6)))
    assert not info["diverged"].any()
