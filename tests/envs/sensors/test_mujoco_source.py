"""MuJoCo tasks in one batch do what Gymnasium's own environments do."""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from somite.envs.draws import FirstDraws
from somite.envs.errors import UserError
from somite.envs.sensors import GymnasiumTask
from somite.envs.sensors.gymnasium_source import GymnasiumSource
from somite.envs.sensors.mujoco_source import RULES, MujocoSource, why_not_batched

NO_CONTACTS = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0}
STATE_ONLY = {
    **NO_CONTACTS,
    **{f"include_{name}_in_observation": False for name in ("cinert", "cvel", "qfrc_actuator")},
}
CASES = {  # arguments, and whether the body can fall
    "Ant-v5": (NO_CONTACTS, True),
    "HalfCheetah-v5": ({}, False),
    "Hopper-v5": ({}, True),
    "Humanoid-v5": (STATE_ONLY, True),
    "Swimmer-v5": ({}, False),
    "Walker2d-v5": ({}, True),
}
FOREVER = 10**9


def start(source: MujocoSource, keys: list) -> None:
    """Start all, each from its own key."""
    rngs = [np.random.default_rng(key) for key in keys]
    every = torch.ones(len(keys), dtype=torch.bool)
    source.start(every, FirstDraws(rngs, np.arange(len(keys)), torch.device("cpu")))


def step(source: MujocoSource, actions: np.ndarray, running: np.ndarray) -> list[np.ndarray]:
    """Arrays of a step."""
    return [part.numpy() for part in source.step(torch.from_numpy(actions), torch.from_numpy(running))]


class Pair:
    """One row of ours and Gymnasium's own, in the same state."""

    def __init__(self, env_id: str, **kwargs: Any) -> None:
        kwargs = CASES[env_id][0] | kwargs
        assert why_not_batched(env_id, kwargs) is None
        self.ours = MujocoSource(1, env_id, kwargs, FOREVER, threads=1)
        self.theirs = gymnasium.make(env_id, max_episode_steps=-1, **kwargs)
        self.high = self.theirs.action_space.high.astype(float)

    def restart(self, seed: int) -> None:
        """Put ours into Gymnasium's start state."""
        self.theirs.reset(seed=seed)
        self.copy()

    def copy(self) -> None:
        """Put ours into Gymnasium's state."""
        data = self.theirs.unwrapped.data
        self.ours.place(np.array([0]), *(torch.from_numpy(x[None].copy()) for x in (data.qpos, data.qvel)))

    def step(self, nominal: np.ndarray) -> bool:
        """Step both and compare. Returns whether the episode ended."""
        reading, reward, terminated, _, _ = self.theirs.step((self.high * nominal).astype(np.float32))
        rewards, ends, cut = self.ours.step(torch.from_numpy(nominal[None]), torch.ones(1, dtype=torch.bool))
        assert not cut.any()
        np.testing.assert_allclose(self.ours.read()[0].numpy(), np.float32(reading), rtol=0, atol=1e-6)
        assert rewards[0] == pytest.approx(reward, abs=1e-6)
        assert ends[0] == terminated
        return terminated

    def step_from(self, seed: int, spread: float, speed: float) -> None:
        """One step from a state as wild as asked for."""
        task, rng = self.theirs.unwrapped, np.random.default_rng(seed)
        self.theirs.reset(seed=0)
        qpos = task.init_qpos + spread * rng.uniform(-1, 1, task.model.nq)
        task.set_state(qpos, speed * rng.standard_normal(task.model.nv))
        self.copy()
        self.step(rng.uniform(-1, 1, len(self.high)))

    def play(self, steps: int, scale: float) -> int:
        """Many steps, from a new start after each end. Returns how many ends there were."""
        rng, ends = np.random.default_rng(0), 0
        self.restart(0)
        for _ in range(steps):
            if self.step(scale * rng.uniform(-1, 1, len(self.high))):
                ends += 1
                self.restart(ends)
        return ends


@pytest.mark.parametrize("env_id", CASES)
def test_readings_rewards_and_ends_are_gymnasiums(env_id: str) -> None:
    pair = Pair(env_id)
    ends = pair.play(400, scale=1.0)
    assert (ends > 0) == CASES[env_id][1], "otherwise no end has been compared"


@pytest.mark.parametrize(
    ("env_id", "change"),
    [
        ("Ant-v5", {"healthy_z_range": [0.45, 0.9], "ctrl_cost_weight": 0.2, "frame_skip": 3}),
        ("Ant-v5", {"exclude_current_positions_from_observation": False, "healthy_reward": 0.3}),
        ("Hopper-v5", {"terminate_when_unhealthy": False, "forward_reward_weight": 2.0}),
        ("Hopper-v5", {"healthy_state_range": [-3.0, 3.0]}),
        ("Walker2d-v5", {"healthy_angle_range": [-0.1, 0.1], "reset_noise_scale": 0.08}),
        ("HalfCheetah-v5", {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 1.0}),
    ],
)
def test_arguments_that_may_vary_keep_parity(env_id: str, change: dict[str, Any]) -> None:
    ends = Pair(env_id, **change).play(150, scale=1.0)
    assert ends > 0 or not any("range" in name for name in change)


@pytest.mark.parametrize(
    ("env_id", "wrong"),
    [
        ("Ant-v5", {"progress": "state"}),
        ("Ant-v5", {"progress": "center"}),
        ("HalfCheetah-v5", {"progress": "body"}),
        ("Humanoid-v5", {"progress": "state"}),
        ("Humanoid-v5", {"height": 1}),
        ("Hopper-v5", {"speed_limit": np.inf}),
        ("Walker2d-v5", {"speed_limit": 9.0}),
        ("Walker2d-v5", {"height": 0}),
    ],
)
def test_no_rule_could_be_another(env_id: str, wrong: dict[str, Any]) -> None:
    """Otherwise the comparison above would not see it."""
    pair = Pair(env_id)
    pair.ours._rules = dataclasses.replace(pair.ours._rules, **wrong)
    with pytest.raises(AssertionError):
        pair.play(100, scale=1.0)
        for seed in range(20):
            pair.step_from(seed, spread=0.1, speed=8.0)


@functools.cache
def shared(env_id: str) -> Pair:
    return Pair(env_id)


@pytest.mark.parametrize("env_id", [name for name, (_, falls) in CASES.items() if falls])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(0, 1), speed=st.floats(0, 30))
def test_one_step_from_any_state_is_gymnasiums(env_id: str, seed: int, spread: float, speed: float) -> None:
    shared(env_id).step_from(seed, spread, speed)


@pytest.mark.parametrize("env_id", CASES)
def test_whoever_steps_it_the_episodes_are_the_same(env_id: str) -> None:
    """Starts, ends, limits and last observations, through all that is above a source."""
    kwargs, falls = CASES[env_id]
    ours, theirs = (
        GymnasiumTask(env_id, kwargs, max_episode_steps=45, simulation=who).make_vec(num_envs=3, threads=1)
        for who in ("batched", "gymnasium")
    )
    first = [env.reset(seed=11)[0]["privileged"] for env in (ours, theirs)]
    np.testing.assert_array_equal(*first)
    assert (first[0][0] != first[0][1]).any()
    rng, ends = np.random.default_rng(0), 0
    for _ in range(100):
        actions = rng.uniform(-1, 1, ours.action_space.shape)
        told, wanted = ours.step(actions), theirs.step(actions)
        np.testing.assert_allclose(told[0]["privileged"], wanted[0]["privileged"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(told[1], wanted[1], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(told[2:4], wanted[2:4])
        for row in np.flatnonzero(told[2] | told[3]):
            ends += 1
            last, expected = (info["final_obs"][row]["privileged"] for info in (told[4], wanted[4]))
            np.testing.assert_allclose(last, expected, rtol=0, atol=1e-6)
            assert (last != told[0]["privileged"][row]).any(), "the first of the next episode is another"
    assert ends >= 6


@pytest.mark.parametrize("env_id", ["Ant-v5", "Hopper-v5"])
def test_speeds_of_starts_are_normal_or_uniform_as_gymnasiums_are(env_id: str) -> None:
    """The sharp test is above, which compares the starts themselves; this one says what they are."""
    source = MujocoSource(2000, env_id, CASES[env_id][0], FOREVER, threads=1)
    start(source, [[0, row] for row in range(2000)])
    noise = {"Ant-v5": 0.1, "Hopper-v5": 0.005}[env_id]
    home = gymnasium.make(env_id).unwrapped.init_qpos
    moves = (source.qpos.numpy() - home) / noise
    assert 0.99 < np.abs(moves).max() <= 1 + 1e-9 and abs(moves.std() - 3**-0.5) < 0.01
    speeds = source.qvel.numpy() / noise
    largest, deviation = np.abs(speeds).max(), speeds.std()
    if env_id == "Ant-v5":
        assert largest > 3 and abs(deviation - 1) < 0.02
    else:
        assert 0.99 < largest <= 1 and abs(deviation - 3**-0.5) < 0.02


def test_rows_that_do_not_run_stand_still_and_the_others_do_not_notice() -> None:
    sources = [MujocoSource(4, "HalfCheetah-v5", {}, FOREVER, threads=1) for _ in range(2)]
    for source in sources:
        start(source, [[0, row] for row in range(4)])
    still, rng = sources[0].read().numpy(), np.random.default_rng(0)
    running = np.array([True, False, True, False])
    for _ in range(10):
        actions = rng.uniform(-1, 1, (4, 6))
        rewards, wanted = (
            step(source, actions, mask)[0]
            for source, mask in zip(sources, (running, np.ones(4, bool)), strict=True)
        )
        np.testing.assert_array_equal(rewards[running], wanted[running])
    read, every = (source.read().numpy() for source in sources)
    np.testing.assert_array_equal(read[~running], still[~running])
    np.testing.assert_array_equal(read[running], every[running])
    assert (every[~running] != still[~running]).any()
    step(sources[0], actions, np.zeros(4, bool))
    np.testing.assert_array_equal(sources[0].read(), read)


def test_neither_threads_nor_other_rows_change_an_episode() -> None:
    seen = []
    for rows, threads in ((2, 1), (5, 2)):
        source = MujocoSource(rows, "Walker2d-v5", {}, FOREVER, threads=threads)
        start(source, [[0, row] for row in range(rows)])
        rngs = [np.random.default_rng([1, row]) for row in range(rows)]
        for _ in range(30):
            step(source, np.array([rng.uniform(-1, 1, 6) for rng in rngs]), np.ones(rows, bool))
        seen.append(source.read().numpy()[:2])
    np.testing.assert_array_equal(*seen)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Walker2d-v5"])
def test_a_state_that_diverges_ends_its_episode_and_no_other(env_id: str) -> None:
    source = MujocoSource(3, env_id, {}, FOREVER, threads=1)
    start(source, [row for row in range(3)])
    source.qpos[1, 0], source.qvel[1] = 5.0, 1e12
    rewards, terminated, cut = step(source, np.zeros((3, 6)), np.ones(3, bool))
    np.testing.assert_array_equal(terminated, [False, True, False])
    assert np.isfinite(rewards).all() and source.read().isfinite().all()
    assert rewards[1] == 0, "neither the way back to the start nor being alive is rewarded"
    _, terminated, _ = step(source, np.zeros((3, 6)), np.ones(3, bool))
    assert not terminated.any(), "told once"


def test_how_far_a_body_has_come_does_not_end_its_episode() -> None:
    pair = Pair("Hopper-v5")
    pair.theirs.reset(seed=0)
    task = pair.theirs.unwrapped
    task.set_state(np.r_[1000.0, task.init_qpos[1:]], task.init_qvel)  # beyond the range of healthy states
    pair.copy()
    assert not pair.step(np.zeros(3))


def test_sensors_are_named_after_joints() -> None:
    ant = MujocoSource(1, "Ant-v5", NO_CONTACTS, FOREVER).sensor_names
    assert len(ant) == len(set(ant)) == 27
    assert ant[:6] == ("root_z", "root_qw", "root_qx", "root_qy", "root_qz", "hip_1")
    assert ant[13:15] == ("root_vx", "root_vy") and ant[-1] == "ankle_4_speed"
    assert MujocoSource(1, "Hopper-v5", {}, FOREVER).sensor_names[0] == "rootz"


def test_the_batch_is_chosen_where_episodes_are_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ant = GymnasiumTask("Ant-v5")
    assert not ant.batched and len(ant.make_source(1).sensor_names) == 105
    assert (
        'needs "env.kwargs={include_cfrc_ext_in_observation: false, contact_cost_weight: 0}"' in caplog.text
    )
    caplog.clear()
    ant = GymnasiumTask("Ant-v5", NO_CONTACTS)
    assert ant.batched and len(ant.make_source(1).sensor_names) == 27 and "in one batch" in caplog.text
    caplog.clear()
    assert not GymnasiumTask("Ant-v5", NO_CONTACTS, simulation="gymnasium").batched
    assert not GymnasiumTask("HalfCheetah-v4").batched and not GymnasiumTask("Pendulum-v1").batched
    assert not caplog.text, "nothing to be told"
    cheetah, plain = (GymnasiumTask("HalfCheetah-v5", simulation=who) for who in ("auto", "gymnasium"))
    assert isinstance(cheetah.make_source(1), MujocoSource) and cheetah.batched
    assert isinstance(plain.make_source(1), GymnasiumSource)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({}, "needs"),
        ({"contact_cost_weight": 0}, "needs"),
        (NO_CONTACTS | {"contact_cost_weight": 1e-4}, "needs"),
        (NO_CONTACTS | {"main_body": 2}, "has no main_body"),
        (NO_CONTACTS | {"xml_file": "ant.xml"}, "has no xml_file"),
    ],
)
def test_a_batch_of_another_task_is_refused(kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"env.simulation=batched: .*{said}"):
        GymnasiumTask("Ant-v5", kwargs, simulation="batched")
    assert not GymnasiumTask("Ant-v5", kwargs).batched


def test_every_batched_task_is_compared_here() -> None:
    ids = [
        name
        for name, spec in gymnasium.registry.items()
        if str(spec.entry_point).removeprefix("gymnasium.envs.mujoco.") in RULES
    ]
    assert sorted(ids) == sorted(CASES) and len(RULES) == len(CASES)
