"""The adapter to Stable-Baselines3's conventions."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion import LocomotionTask, make_vec
from somite.envs.sb3 import SB3VecEnv

FALLING = LocomotionTask(alive_bonus=1.0, relative_height=(0.6, 2.0), max_tilt=0.15, max_episode_steps=12)


def vector_env(bodies=("hopper_3", "hopper_4"), rows=8, task=FALLING, **options):
    return make_vec(bodies, rows, task, threads=1, frame_skip=4, **options)


def both(steps=40, **options):
    """Steps of the adapter beside those of the vector environment it adapts."""
    adapted, plain = SB3VecEnv(vector_env(**options), seed=6), vector_env(**options)
    first, expected = adapted.reset(), plain.reset(seed=6)[0]
    for key in first:
        np.testing.assert_array_equal(first[key], expected[key])
    rng = np.random.default_rng(0)
    for _ in range(steps):
        action = rng.uniform(-1, 1, plain.action_space.shape)
        yield adapted.step(action), plain.step(action), adapted


def test_observations_rewards_and_ends_are_those_of_the_vector_environment():
    for (observation, reward, done, infos), (expected, raw, terminated, truncated, _), _ in both():
        for key in observation:
            np.testing.assert_array_equal(observation[key], expected[key])
        assert reward.dtype == np.float32 and len(infos) == 8
        np.testing.assert_allclose(reward, raw, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(done, terminated | truncated)


def test_ended_rows_tell_their_last_observation_and_whether_time_ran_out():
    seen = set()
    for (observation, _, done, infos), (_, _, terminated, truncated, info), _ in both():
        for row in range(8):
            if not done[row]:
                assert infos[row] == {}
                continue
            seen.add((bool(terminated[row]), bool(truncated[row])))
            assert infos[row]["TimeLimit.truncated"] is bool(truncated[row] and not terminated[row])
            last = infos[row]["terminal_observation"]
            for key, value in last.items():
                np.testing.assert_array_equal(value, info["final_obs"][row][key])
            assert np.abs(last["tokens"] - observation["tokens"][row]).max() > 1e-3
            assert infos[row]["body"] == (0 if row < 4 else 1)
    assert seen >= {(True, False), (False, True)}


def test_episode_statistics_are_raw_sums_over_whole_episodes():
    returns, lengths, told = np.zeros(8), np.zeros(8, int), 0
    for (_, _, done, infos), (_, raw, _, _, _), _ in both():
        returns += raw
        lengths += 1
        for row in np.flatnonzero(done):
            episode = infos[row]["episode"]
            assert episode["r"] == pytest.approx(returns[row], abs=1e-9)
            assert episode["l"] == lengths[row] and episode["t"] >= 0
            told += 1
        returns[done], lengths[done] = 0, 0
    assert told > 8


def test_episodes_that_began_in_the_middle_of_their_clock_are_not_reported():
    ages, cut, whole = np.zeros(8, int), 0, 0
    for (_, _, done, infos), (_, _, _, _, info), _ in both(stagger=True):
        ages += 1
        for row in np.flatnonzero(done):
            assert ("episode" in infos[row]) == info["episode_is_whole"][row]
            assert "terminal_observation" in infos[row]
            cut, whole = cut + ("episode" not in infos[row]), whole + ("episode" in infos[row])
    assert cut and whole


def test_a_reset_forgets_unfinished_episodes():
    env = SB3VecEnv(vector_env(rows=2, task=LocomotionTask(max_episode_steps=12)), seed=0)
    action = np.zeros(env.env.action_space.shape)
    env.reset()
    for _ in range(5):
        env.step(action)
    env.reset()
    for _ in range(12):
        _, _, done, infos = env.step(action)
    assert done.all() and infos[0]["episode"]["l"] == 12


def test_seeds_are_those_of_the_next_reset():
    env = SB3VecEnv(vector_env(), seed=3)
    starts = [env.reset()["tokens"], env.reset()["tokens"]]
    env.seed(3)
    again = [env.reset()["tokens"], env.reset()["tokens"]]
    np.testing.assert_array_equal(starts, again)
    assert np.abs(starts[0] - starts[1]).max() > 1e-3


def test_diverged_rows_are_counted():
    env = SB3VecEnv(vector_env(), seed=0)
    env.reset()
    qpos, qvel = env.env.get_state(5)
    env.env_method("set_state", 5, qpos, np.full_like(qvel, 1e9))
    _, _, done, infos = env.step(np.zeros(env.env.action_space.shape))
    assert env.diverged.tolist() == [0, 1] and done[5] and not infos[5]["TimeLimit.truncated"]


def test_attributes_are_those_of_the_vector_environment():
    env = SB3VecEnv(vector_env())
    assert env.get_attr("n_limbs") == [4] * 8 and env.get_attr("n_limbs", [1, 2]) == [4, 4]
    assert env.get_attr("render_mode", 0) == [None]
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * 8
    assert env.num_envs == 8 and env.observation_space == env.env.single_observation_space


def test_any_other_vector_environment_fits_if_it_resets_in_the_same_step():
    def cart():
        return gymnasium.make("CartPole-v1")

    same = gymnasium.vector.SyncVectorEnv([cart, cart], autoreset_mode="SameStep")
    env = SB3VecEnv(same, seed=0)
    env.reset()
    for _ in range(60):
        _, _, done, infos = env.step(np.array([0, 0]))
        if done.any():
            break
    row = int(np.flatnonzero(done)[0])
    assert infos[row]["terminal_observation"].shape == (4,) and infos[row]["episode"]["r"] > 5
    for other in (
        gymnasium.vector.SyncVectorEnv([cart], autoreset_mode="NextStep"),
        vector_env(autoreset=False),
    ):
        with pytest.raises(UserError, match="SAME_STEP"):
            SB3VecEnv(other)
