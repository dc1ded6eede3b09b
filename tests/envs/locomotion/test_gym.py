"""One body as an ordinary Gymnasium environment."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from somite.envs.errors import UserError
from somite.envs.locomotion import LocomotionTask, Morphology
from somite.envs.locomotion.gym import BodyEnv

from .helpers import legged

BODIES = ["cheetah_7_full", "walker_2", "humanoid_2d_7_lower_arms", "ant"]


@pytest.mark.parametrize("body", BODIES)
def test_gymnasium_finds_nothing_to_complain_about(body):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Positions, velocities and descriptors have no bounds.
        warnings.filterwarnings("ignore", message=".*Box observation space (minimum|maximum) value is")
        env = gymnasium.make("somite/Locomotion-v0", body=body)
        check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("body", BODIES)
def test_stable_baselines_finds_nothing_but_that_tokens_are_no_vectors(body):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Token sets are matrices. Joint rows have three dimensions like an image, but are no uint8.
        warnings.filterwarnings("ignore", message=".*has an unconventional shape")
        warnings.filterwarnings("ignore", message=".*observation (space )?joints is an image")
        warnings.filterwarnings("ignore", message=".*(Treating image space|minimal resolution for an image)")
        sb3_check_env(BodyEnv(body))


def test_make_gives_an_environment_that_is_never_reset_by_itself():
    env = gymnasium.make("somite/Locomotion-v0", body="walker_3", task=LocomotionTask(max_episode_steps=3))
    env.reset(seed=0)
    for _ in range(3):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert truncated is True and terminated is False and isinstance(reward, float)
    assert env.observation_space.contains(observation) and not info["diverged"]
    with pytest.raises(UserError, match="have ended; reset"):
        env.step(env.action_space.sample())
    env.reset()
    assert not env.step(env.action_space.sample())[3]


def test_a_seed_starts_one_stream_of_episodes():
    starts = []
    for _ in range(2):
        env = BodyEnv("cheetah_3_back")
        starts.append([env.reset(seed=4)[0]["tokens"], env.reset()[0]["tokens"]])
    np.testing.assert_array_equal(starts[0], starts[1])
    assert np.abs(starts[0][0] - starts[0][1]).max() > 1e-3
    unseeded = [BodyEnv("cheetah_3_back").reset()[0]["tokens"] for _ in range(2)]
    assert np.abs(unseeded[0] - unseeded[1]).max() > 1e-3


def test_the_default_start_is_a_row_of_a_vector_environment():
    single = gymnasium.make("somite/Locomotion-v0", body="walker_6").unwrapped
    rows = gymnasium.make_vec("somite/Locomotion-v0", 2, body="walker_6")
    one, two = single.reset(seed=9)[0], rows.reset(seed=9)[0]
    for key in one:
        np.testing.assert_array_equal(one[key], two[key][0])


def test_make_vec_can_also_put_single_environments_side_by_side():
    env = gymnasium.make_vec("somite/Locomotion-v0", 2, vectorization_mode="sync", body="hopper_3")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    env.step(env.action_space.sample())
    env.close()


def test_a_body_of_ones_own_and_physical_controls():
    env = BodyEnv(Morphology("own", legged().compile()), physical_controls=True)
    assert env.action_space.shape == (4, 2) and np.isinf(env.action_space.high).all()
    env.reset(seed=0)
    env.step(np.full((4, 2), 3.0))
    ctrl = env.vector._blocks[0].batch.ctrl
    np.testing.assert_array_equal(ctrl, np.full((1, 4), 3.0))  # handed on unclipped


def test_wrong_arguments_are_told():
    with pytest.raises(UserError, match="render_mode 'human' is not offered"):
        BodyEnv(render_mode="human")
    with pytest.raises(UserError, match="unknown body 'cheetah_9'"):
        gymnasium.make("somite/Locomotion-v0", body="cheetah_9")
    env = BodyEnv("cheetah_2_back")
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"expected \(1, 2, 1\)"):
        env.step(np.zeros(1))
