"""Stepping without looking, as on a GPU, gives what looking at ends gives: starts, steps, rewards, ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv
from somite.envs.sensors import CartPoleSwingUp, GymnasiumTask, Senses
from somite.envs.sensors.cartpole_swingup import SENSORS, fixed_starts
from somite.envs.sensors.env import SensorEnv
from tests.envs.sensors.worlds import waiting_for_nothing

ROWS, STEPS = 12, 200
QUIET = {
    "plain": Senses(),
    "scaled history": Senses(history=4, scale=0.3, difference_scale=7.0),
    "traces": Senses(history=2, traces=(5.0, 40.0)),
    "shuffled": Senses(history=3, shuffle="episode", traces=(10.0,), duplicates=1),
    "lost": Senses(missing=0.4, stuck=2, duplicates=1, history=2),
}
"""Senses that draw nothing in mid-episode."""


def pair(senses: Senses | None = None, rows: int = ROWS, limit: int = 1000, **options: Any) -> tuple:
    """An environment that looks at ends, and one that does not."""
    starts = options.pop("starts", "random")
    task = CartPoleSwingUp(senses, limit, starts, options.pop("sensor_scales", None))
    device = task.simulated_by("torch").make_env(None, rows, **options)
    return task.make_vec(num_envs=rows, **options), waiting_for_nothing(device)


def compare(host: TokenVectorEnv, device: SensorEnv, seed: Any, steps: int = STEPS) -> np.ndarray:
    """Step both with the same actions; (steps, B) which rows ended."""
    wanted, found = host.reset(seed=seed)[0], device.reset(seed)
    rng, ended = np.random.default_rng(5), []
    for _ in range(steps):
        assert set(wanted) == set(found) == set(device.single_observation_space.spaces)
        same(found, wanted)
        actions = rng.uniform(-1.2, 1.2, (host.num_envs, 1)).astype(np.float32)
        wanted, rewards, terminated, truncated, info = host.step(actions)
        step = device.step(torch.from_numpy(actions))
        found = step.observation
        assert (host.source.state - device.source.state).abs().max() < 1e-9
        np.testing.assert_allclose(step.rewards.numpy(), rewards, rtol=0, atol=1e-7)  # of single precision
        assert np.array_equal(step.terminated.numpy(), terminated)
        assert np.array_equal(step.truncated.numpy(), truncated)
        ended.append(terminated | truncated)
        if "final_obs" in info:
            assert np.array_equal(step.whole.numpy(), info["episode_is_whole"])
            for row in np.flatnonzero(ended[-1]):
                same({key: value[row] for key, value in step.final.items()}, info["final_obs"][row])
    return np.array(ended)


def same(found: dict[str, torch.Tensor], wanted: dict[str, np.ndarray]) -> None:
    for key, value in wanted.items():
        assert found[key].shape == value.shape and found[key].numpy().dtype == value.dtype, key
        np.testing.assert_allclose(found[key].numpy(), value, rtol=1e-6, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("name", QUIET)
def test_the_same_starts_and_actions_lead_to_the_same(name: str) -> None:
    ended = compare(*pair(QUIET[name], once=True), seed=3)
    assert ended.any() and not ended.all(0).all(), "some carts are lost"


@pytest.mark.parametrize("stagger", [False, True])
def test_fixed_starts_follow_each_other_as_on_the_host(stagger: bool) -> None:
    """So that later episodes can be compared, too: ends by time and on the track, ages, last observations."""
    host, device = pair(QUIET["traces"], limit=40, starts="fixed", stagger=stagger)
    ended = compare(host, device, seed=[[7, row] for row in range(ROWS)])
    assert ended.sum(0).min() >= STEPS // 40
    host.reset(seed=1), device.reset(1)
    np.testing.assert_allclose(device.source.state.mT.numpy(), fixed_starts()[:ROWS])
    device.reset()
    np.testing.assert_allclose(device.source.state.mT.numpy(), fixed_starts()[ROWS : 2 * ROWS])


def test_sensors_may_have_scales_of_their_own() -> None:
    host, device = pair(once=True, sensor_scales=[1.0, 0.1, 2.0, 3.0, 0.2])
    compare(host, device, seed=3, steps=20)


def test_rows_of_one_seed_are_twins_and_others_are_not() -> None:
    noisy = Senses(shuffle=3, noise_channels=2, blinking=0.3, duplicates=1)
    device = CartPoleSwingUp(noisy).make_env(None, 6, once=True)
    found = device.reset([[1, 0], [1, 1], [1, 2]] * 2)
    for _ in range(9):
        for value in found.values():
            assert torch.equal(value[:3], value[3:])
            assert not torch.equal(value[0], value[1]) or value is found["recent_actions"]
        found = device.step(torch.zeros(6, 1)).observation


def test_later_starts_are_drawn_as_the_first_are() -> None:
    device = CartPoleSwingUp(max_episode_steps=1).make_env(None, 4000)
    device.reset(0)
    first = device.source.state.clone()
    device.step(torch.zeros(4000, 1))
    drawn = np.random.default_rng(1).uniform(-1, 1, (4000, 4))
    wanted = ([0, 0, np.pi, 0] + drawn * [2.4, 10, np.pi / 2, 10]).T
    for states in (first, device.source.state):
        for one, other in zip(states.numpy(), wanted, strict=True):
            shares = np.linspace(0, 1, 21)
            gap = np.quantile(one, shares) - np.quantile(other, shares)
            assert np.abs(gap).max() < 0.06 * np.ptp(other)
    assert not (first == device.source.state).any()
    again = device.source.state.clone()
    device.reset()
    assert not (again == device.source.state).any()


def test_what_an_environment_says_of_itself_is_what_the_hosts_says() -> None:
    host, device = pair(QUIET["shuffled"])
    for name in ("kind", "spec_of_tokens", "single_observation_space", "single_action_space", "sizes"):
        assert getattr(host, name) == getattr(device, name), name
    assert device.body_names == host.body_names and np.array_equal(device.body_of_row, host.body_of_row)
    assert CartPoleSwingUp.device_simulation == "torch" and device.max_episode_steps == 1000
    assert device.sizes["n_sensors"] == len(SENSORS)


def test_tasks_without_a_simulation_on_a_device_say_so() -> None:
    with pytest.raises(UserError, match="on the CPU only: use simulation=cpu"):
        GymnasiumTask("CartPole-v1").simulated_by("warp")
