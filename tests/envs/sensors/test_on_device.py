"""Stepping without looking at ends, as on a GPU: nothing waits, and all is as when they are looked at."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv
from somite.envs.sensors import CartPoleSwingUp, GymnasiumTask, Senses
from somite.envs.sensors.cartpole_swingup import fixed_starts
from somite.envs.sensors.env import SensorEnv

from .test_sensor_vector_env import DISTURBED as UNTRACED
from .worlds import NoWaiting, act, equal, go_on, tensors, waiting_for_nothing, waves

DISTURBED = replace(UNTRACED, traces=(6.0,))
SENSES = Senses(history=2, shuffle=2, noise_channels=1, traces=(10,))
ROWS, STEPS = 12, 200
QUIET = {
    "plain": Senses(),
    "scaled history": Senses(history=4, scale=0.3, difference_scale=7.0),
    "traces": Senses(history=2, traces=(5.0, 40.0)),
    "shuffled": Senses(history=3, shuffle="episode", traces=(10.0,), duplicates=1),
    "lost": Senses(missing=0.4, stuck=2, duplicates=1, history=2),
}
"""Senses that draw nothing in mid-episode."""


@pytest.mark.parametrize(
    "given", [Senses(shuffle=4, history=2), DISTURBED, Senses(noise_channels=1, stuck=2)]
)
def test_no_step_waits_for_the_device_and_nothing_moves(given: Senses) -> None:
    """What a CUDA graph asks for: it knows memory, and neither values nor Python's names."""
    env = waves(given, ends=[0, 5, 7])
    env.reset(0)
    places = {name: tensor.data_ptr() for name, tensor in tensors(env).items()}
    with NoWaiting():
        go_on(env, 12)
    env.reset(1), env.reset()
    env.restore(env.snapshot())
    assert places == {name: tensor.data_ptr() for name, tensor in tensors(env).items()}
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        env.check()


def test_what_is_drawn_for_an_episode_is_drawn_anew_for_the_next() -> None:
    env = waves(Senses(shuffle="episode", noise_channels=(1, 3), missing=0.4), num_envs=100)
    env.reset(0)
    last = env.slots.order.clone(), env.slots.mask.sum(1)
    for step in range(1, 20):
        env.step(torch.zeros(100, 2))
        now = env.slots.order.clone(), env.slots.mask.sum(1)
        for before, after in zip(last, now, strict=True):
            assert torch.equal(before, after) == (step % 9 != 0), "episodes have 9 steps"
        last = now


def test_a_row_that_has_ended_stands_still_where_there_is_one_episode() -> None:
    env = waves(Senses(shuffle=1), once=True, ends=[0, 5, 7])
    env.reset(0)
    found = torch.stack([step["rewards"] for step in go_on(env, 14)])  # found: (steps, rows)
    assert (found > 0).sum(0).tolist() == [9, 5, 7]
    before = env.slots.order.clone()
    step = env.step(torch.full((3, 2), torch.nan))
    assert not (step.ended | step.diverged).any() and not step.rewards.any(), "whatever it does"
    assert torch.equal(env.slots.order, before)


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


def test_tasks_without_a_simulation_on_a_device_say_so() -> None:
    with pytest.raises(UserError, match="on the CPU only: use simulation=cpu"):
        GymnasiumTask("CartPole-v1").simulated_by("warp")


@pytest.mark.parametrize(
    ("breaks", "value"), [("reading", float("nan")), ("reward", float("inf")), ("state", -float("inf"))]
)
def test_what_is_not_finite_ends_its_episode(breaks: str, value: float) -> None:
    env, sound = (waves(SENSES, breaks=b, value=value) for b in (breaks, ""))
    observation = env.reset(0)["privileged"].clone()
    assert equal([sound.reset(0)], [env.reset(0)])
    rng = np.random.default_rng(0)
    for step in range(1, 9):
        actions = act(env, rng)
        found, wanted = env.step(actions), sound.step(actions)
        for result in (found.observation, found.final):
            assert all(tensor.isfinite().all() for tensor in result.values())
        assert found.diverged.tolist() == [False, step == 4, False]
        assert torch.equal(found.rewards[[0, 2]], wanted.rewards[[0, 2]]), "others go on"
        if step == 4:
            assert found.rewards[1] == 0 and found.terminated[1] and not found.truncated[1]
            assert found.whole[1], "its episode had begun with its clock at 0"
            if breaks != "state":
                assert torch.equal(found.final["privileged"][1], observation[1]), "its last reading again"
            assert not torch.equal(found.observation["privileged"][1], found.final["privileged"][1])
        observation = found.observation["privileged"].clone()
        assert found.rewards[1] == (0 if step == 4 else 1 + (step if step < 4 else step - 4))


def test_divergence_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    env = waves(breaks="reading")
    env.reset(0)
    with caplog.at_level(logging.WARNING):
        go_on(env, 3)
        env.check()
        assert not caplog.records
        go_on(env, 3)
        env.check(), env.check()
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "waves: environments [1] diverged"
    ]


def test_episodes_that_begin_with_no_number_are_refused() -> None:
    env = waves(breaks="reading", at=0)
    with pytest.raises(UserError, match="episodes of waves in a row began with readings that are not finite"):
        env.reset(0)
