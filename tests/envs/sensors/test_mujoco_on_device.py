"""Gymnasium's MuJoCo tasks by MuJoCo Warp do what they do on the CPU, as far as single precision tells."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: pip install 'somite[gpu]'")

from somite.agents.device import resolve_simulation
from somite.agents.training.loop import Run
from somite.envs.errors import UserError
from somite.envs.gym import TokenVectorEnv
from somite.envs.sensors import CartPoleSwingUp, GymnasiumTask, Senses, mujoco_source
from somite.envs.sensors.env import SensorEnv
from somite.envs.sensors.mujoco_source import WarpSource
from somite.envs.snapshots import Misfit
from tests.agents import cma_runs, runs
from tests.envs.futures import read_back

from .worlds import CPU, NoWaiting, act, equal, go_on, on_device, tensors

ROWS, STEPS = 3, 12
READING, REWARD = 5e-3, 1e-3
"""Tolerances after at most twelve steps; readings are in m, rad, m/s and rad/s."""
NO_CONTACTS = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0}
STATE_ONLY = {
    **NO_CONTACTS,
    **{f"include_{name}_in_observation": False for name in ("cinert", "cvel", "qfrc_actuator")},
}
CASES: dict[str, dict[str, Any]] = {
    "Ant-v5": NO_CONTACTS,
    "HalfCheetah-v5": {"exclude_current_positions_from_observation": False},
    "Hopper-v5": {"healthy_angle_range": [-0.03, 0.1], "frame_skip": 3},
    "Walker2d-v5": {"healthy_reward": 0.3, "healthy_z_range": [1.21, 2.0], "reset_noise_scale": 0.02},
    "Swimmer-v5": {"forward_reward_weight": 3.0},
    "Humanoid-v5": STATE_ONLY,
}
ROUND_CONES = ("Ant-v5", "Humanoid-v5")
"""Of a capsule that stands steeply on a plane MuJoCo and MuJoCo Warp lay the edges of a pyramidal friction
cone otherwise; of a round one they have one notion."""
MAY_FALL = ("Hopper-v5", "Walker2d-v5")


@pytest.fixture(scope="module")
def ants() -> tuple[TokenVectorEnv, SensorEnv]:
    """On the host and on the device."""
    return pair("Ant-v5")


@pytest.fixture(scope="module")
def hoppers() -> SensorEnv:
    return make_hoppers()


def make_hoppers() -> SensorEnv:
    """Whose episodes are short, and whose senses are disturbed."""
    senses = Senses(history=2, shuffle=2, noise_channels=1, blinking=0.2)
    return on_device(GymnasiumTask("Hopper-v5", None, senses, max_episode_steps=4), ROWS)


def with_round_cones(make: Any, *given: Any) -> gymnasium.Env:
    """What `make_env` makes, with other friction."""
    env = make(*given)
    env.unwrapped.model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    return env


def pair(env_id: str, rows: int = ROWS, **options: Any) -> tuple[TokenVectorEnv, SensorEnv]:
    """The environment of the host and that of the device."""
    with pytest.MonkeyPatch.context() as patch:
        if env_id in ROUND_CONES:
            make = functools.partial(with_round_cones, mujoco_source.make_env)
            patch.setattr(mujoco_source, "make_env", make)
        task = GymnasiumTask(env_id, CASES[env_id], **options)
        host = task.make_vec(num_envs=rows, threads=1, once=True)
        return host, on_device(task, rows, once=True)


def compare(host: TokenVectorEnv, device: SensorEnv, steps: int = STEPS, seed: int = 1) -> np.ndarray:
    """Step both with the same actions; (steps, B) which rows ended."""
    wanted, found = host.reset(seed=seed)[0], device.reset(seed)
    np.testing.assert_allclose(found["tokens"].numpy(), wanted["tokens"], atol=1e-6)
    rng, ended, touches = np.random.default_rng(5), [], 0
    for _ in range(steps):
        actions = rng.uniform(-1.2, 1.2, host.action_space.shape).astype(np.float32)
        wanted, rewards, terminated, truncated, _ = host.step(actions)
        step = device.step(torch.from_numpy(actions))
        assert np.abs(step.observation["tokens"].numpy() - wanted["tokens"]).max() < READING
        np.testing.assert_allclose(step.rewards.numpy(), rewards, atol=REWARD)
        assert np.array_equal(step.terminated.numpy(), terminated)
        assert np.array_equal(step.truncated.numpy(), truncated) and not step.diverged.any()
        # Rows that have ended stand still, whatever is made of what they read.
        assert np.abs(device.source.qpos.numpy() - host.source.qpos.numpy()).max() < READING
        ended.append(terminated | truncated)
        touches += int(host.source._batch.ncon.sum())
    device.check()
    assert touches or host.source.name == "Swimmer-v5", "nothing has touched the ground"
    return np.array(ended)


SLOW = ("Walker2d-v5", "Swimmer-v5", "Humanoid-v5")
"""Whose kernels take long to compile, where nobody has done so before."""


@pytest.mark.parametrize(
    "env_id", [pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else []) for case in CASES]
)
def test_steps_are_those_of_the_cpu(env_id: str, ants: tuple) -> None:
    ended = compare(*(ants if env_id == "Ant-v5" else pair(env_id)))
    assert ended.any() == (env_id in MAY_FALL) and not ended[0].any()


@pytest.mark.parametrize("weight", ["ctrl_cost_weight", "forward_reward_weight"])
def test_another_reward_would_be_seen(ants: tuple, weight: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests above: two per cent more is no longer equal."""
    settings = ants[1].source._settings
    monkeypatch.setitem(settings, weight, 1.02 * settings[weight])
    with pytest.raises(AssertionError):
        compare(*ants)


def test_progress_is_that_of_the_start_when_an_episode_starts(ants: tuple) -> None:
    """So that the way back is not rewarded; of rows that go on it stays as it is, a substep behind."""
    device = ants[1]
    device.reset(0)
    go_on(device, 2)
    source, first = device.source, torch.tensor([True, False, False])
    before = source._progress.clone()
    assert (before != source.qpos[:, 0]).all()
    source.place(first, source.qpos + 5.0, source.qvel)
    assert source._progress[0] == source.qpos[0, 0] > 4
    assert torch.equal(source._progress[1:], before[1:])


@pytest.mark.parametrize("env_id", ["Hopper-v5", "HalfCheetah-v5"])
def test_later_starts_are_drawn_as_the_first_are(env_id: str) -> None:
    rows = 4000
    source = WarpSource(rows, CPU, env_id, {}, 1000)
    env = SensorEnv(source)
    env.reset(0)
    first = source.qpos.clone(), source.qvel.clone()
    env.reset()
    for one, other in zip(first, (source.qpos, source.qvel), strict=True):
        assert not (one == other).any()
        shares = np.linspace(0.02, 0.98, 20)
        for a, b in zip(one.mT.numpy(), other.mT.numpy(), strict=True):
            gap = np.quantile(a, shares) - np.quantile(b, shares)
            assert np.abs(gap).max() < 0.25 * a.std()


def test_a_state_that_diverges_ends_its_episode_and_no_other() -> None:
    host, device = pair("HalfCheetah-v5")
    host.reset(seed=1)
    last = device.reset(1)["tokens"][1].clone()
    host.source.qvel[1] = device.source.qvel[1] = 1e12
    for steps in range(3):
        actions = np.zeros(host.action_space.shape, np.float32)
        wanted, rewards, terminated, _, _ = host.step(actions)
        step = device.step(torch.from_numpy(actions))
        assert step.diverged.tolist() == [False, steps == 0, False] == terminated.tolist()
        assert torch.equal(step.terminated, step.diverged)
        assert step.rewards[1] == 0 and np.abs(step.rewards.numpy() - rewards).max() < REWARD
        assert torch.equal(step.observation["tokens"][1], last), "its last reading again"
        assert np.abs(step.observation["tokens"].numpy() - wanted["tokens"])[[0, 2]].max() < READING
        assert device.source.qpos.isfinite().all() and device.source.qvel.isfinite().all()
    assert not device.source.diverged.any(), "told once"


def test_a_row_that_diverges_starts_anew(hoppers: SensorEnv) -> None:
    hoppers.reset(0)
    hoppers.source.qvel[1] = float("nan")
    step = hoppers.step(torch.zeros(ROWS, 3))
    assert step.diverged.tolist() == step.terminated.tolist() == [False, True, False]
    assert step.rewards[1] == 0 and step.rewards[[0, 2]].min() > 0
    assert not step.final["privileged"].equal(step.observation["privileged"])
    assert step.observation["privileged"].isfinite().all() and hoppers._steps.tolist() == [1, 0, 1]
    assert not hoppers.step(torch.zeros(ROWS, 3)).ended.any()


def test_what_came_before_a_start_is_not_rewarded_after_it(hoppers: SensorEnv) -> None:
    """Progress is measured from the new start, wherever the row was."""
    hoppers.reset(0)
    hoppers.source.qpos[:, 0] += 100.0
    hoppers.source._progress += 100.0
    rewards = torch.stack([hoppers.step(torch.zeros(ROWS, 3)).rewards for _ in range(6)])
    assert hoppers._steps.tolist() == [2] * ROWS
    assert ((rewards - 1).abs() < 0.6).all()


def test_a_restored_environment_has_the_same_future(hoppers: SensorEnv) -> None:
    env, other = hoppers, make_hoppers()
    env.reset(3), other.reset(1000)
    go_on(env, 6), go_on(other, 3, 3)
    taken = read_back(env.snapshot())
    other.restore(taken)
    future = go_on(env, 10, 5)
    assert equal(future, go_on(other, 10, 5))
    env.restore(taken)
    assert equal(future, go_on(env, 10, 5)), "the same one, once more"
    env.reset(1000)
    assert not equal(future, go_on(env, 10, 5))


def test_a_snapshot_of_others_does_not_fit(hoppers: SensorEnv, ants: tuple) -> None:
    hoppers.reset(0), ants[1].reset(0)
    before = hoppers.snapshot()
    with pytest.raises(Misfit):
        hoppers.restore(ants[1].snapshot())
    wrong = before | {"source": before["source"] | {"qpos": torch.zeros(ROWS + 1, 6)}}
    with pytest.raises(Misfit, match="qpos"):
        hoppers.restore(wrong)
    assert hoppers.source.qpos.equal(before["source"]["qpos"])


@pytest.mark.parametrize("name", ["hoppers", "ants"])
def test_no_step_waits_for_the_device_and_nothing_moves(name: str, request: pytest.FixtureRequest) -> None:
    env = request.getfixturevalue(name)
    env = env[1] if isinstance(env, tuple) else env
    env.reset(0)
    places = {name: tensor.data_ptr() for name, tensor in tensors(env).items()}
    rng = np.random.default_rng(0)
    with NoWaiting():
        for _ in range(6):
            env.step(act(env, rng))
    env.reset(1), env.reset()
    env.restore(env.snapshot())
    assert places == {name: tensor.data_ptr() for name, tensor in tensors(env).items()}
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        env.check()


@pytest.mark.parametrize("what", ["contacts", "constraints"])
def test_too_little_room_is_told_with_the_tasks_name(what: str) -> None:
    task = GymnasiumTask("HalfCheetah-v5")
    task.device_options = {what: 1}
    env = on_device(task, 2)
    env.reset(0)
    env.check()
    env.source.qpos[:, 1] -= 0.3  # into the ground
    env.step(torch.zeros(2, 6))
    with pytest.raises(UserError, match=rf"'HalfCheetah-v5' has had more {what}.*Raise warp\.{what}"):
        env.check()


def test_a_graph_cannot_hold_it() -> None:
    """Warp launches one of its own."""
    for task, can_be in ((GymnasiumTask("HalfCheetah-v5"), False), (CartPoleSwingUp(), True)):
        assert on_device(task, 1).can_be_captured is can_be


def test_sensors_may_have_scales_of_their_own() -> None:
    scales = np.linspace(0.1, 2, 18)
    _, device = pair("HalfCheetah-v5", sensor_scales=list(scales))
    read, source = device.reset(0)["privileged"], device.source
    state = torch.cat((source.qpos, source.qvel), 1).numpy()
    np.testing.assert_allclose(read.numpy(), state * scales, rtol=1e-6)


def test_speeds_are_read_within_the_tasks_limit(hoppers: SensorEnv) -> None:
    hoppers.reset(0)
    hoppers.source.qvel[:, :2] = torch.tensor([50.0, -50.0])
    assert hoppers.source.read()[:, 5:7].tolist() == [[10.0, -10.0]] * ROWS


def test_what_an_environment_says_of_itself_is_what_the_hosts_says(ants: tuple) -> None:
    host, device = ants
    for name in ("kind", "spec_of_tokens", "single_observation_space", "single_action_space", "sizes"):
        assert getattr(host, name) == getattr(device, name), name
    assert device.body_names == host.body_names and device.source.sensor_names == host.source.sensor_names
    assert device.source.step_duration == host.source.step_duration


REFUSED = [
    ("Ant-v5", {}, {}, 'Ant-v5 needs "env.kwargs={include_cfrc_ext_in_observation: false, contact_cost'),
    ("Hopper-v5", {}, {"simulation": "gymnasium"}, "simulation=gymnasium steps each environment by itself"),
    ("Hopper-v5", {"xml_file": "hopper.xml"}, {}, "batched simulation of Hopper-v5 has no xml_file"),
    ("Pendulum-v1", {}, {}, "batched simulation of Ant-v5, .* only, not of Pendulum-v1, which is simulated"),
]


@pytest.mark.parametrize(("env_id", "kwargs", "options", "said"), REFUSED)
def test_what_cannot_be_on_a_device_says_why(
    env_id: str, kwargs: dict, options: dict, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = GymnasiumTask(env_id, kwargs, **options)
    with pytest.raises(UserError, match=f"{said}.*: use simulation=cpu"):
        on_device(task, 2)
    with pytest.raises(UserError, match="simulation=warp was asked for, but .* simulation=cpu"):
        resolve_simulation("warp", task, CPU)
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert resolve_simulation("auto", task, torch.device("cuda")) == "cpu"
    assert said.split(",")[0] in caplog.text
    assert (task.device_simulation is None) == (env_id == "Pendulum-v1")


def test_what_can_be_on_a_device_is_where_it_is_asked_for() -> None:
    for asked in ("warp", "cpu"):
        assert resolve_simulation(asked, GymnasiumTask("Hopper-v5"), CPU) == asked


@pytest.mark.slow
def test_returns_of_random_actions_have_the_same_statistics() -> None:
    rows, steps = 64, 60
    task = GymnasiumTask("HalfCheetah-v5")
    host, device = task.make_vec(num_envs=rows, threads=1), on_device(task, rows)
    host.reset(seed=5), device.reset(6)
    rng, found, wanted = np.random.default_rng(1), np.zeros(rows), np.zeros(rows)
    for _ in range(steps):
        found += device.step(act(device, rng)).rewards.numpy()
        wanted += host.step(act(device, rng).numpy())[1]
    error = np.hypot(found.std(), wanted.std()) / np.sqrt(rows)
    assert abs(found.mean() - wanted.mean()) < 4 * error
    assert 0.7 < found.std() / wanted.std() < 1.4


def test_ppo_learns_on_the_device(tmp_path: Path) -> None:
    """As the command line composes it, through a stop."""
    arguments = (
        *("env=gymnasium", "env.id=Ant-v5", "simulation=warp", "device=cpu", "agent=sensor_transformer"),
        "env.kwargs={include_cfrc_ext_in_observation: false, contact_cost_weight: 0}",
        *("agent.width=16", "algorithm.num_envs=2", "algorithm.n_steps=8", "algorithm.batch_size=16"),
        *("algorithm.n_epochs=1", "algorithm.checkpoint_every=16", "algorithm.validate_every=0"),
        "threads=1",
    )
    for steps in (16, 32):
        run = Run(runs.compose(*arguments, f"algorithm.total_steps={steps}"), tmp_path, CPU)
        assert run.task_set.simulation == "warp"
        assert set(run.task_set.device_options) == {"contacts", "constraints", "layouts"}
        run.learn()
        assert isinstance(run.learner.env.source, WarpSource)
        assert all(parameter.isfinite().all() for parameter in run.policy.parameters())
    assert len(runs.read_metrics(tmp_path)) >= 2


def test_a_search_on_the_device(tmp_path: Path) -> None:
    run = cma_runs.make_run(
        tmp_path,
        *("env=gymnasium", "env.id=HalfCheetah-v5", "env.max_episode_steps=8", "simulation=warp"),
        *("algorithm.generations=2", "algorithm.population=4", "algorithm.episodes=2"),
        "algorithm.validate_every=0",
    )
    run.learn()
    (simulator,) = run.learner.population._simulators
    assert run.task_set.simulation == "warp"
    assert np.isfinite(cma_runs.column(tmp_path, "cma/best")).all()
