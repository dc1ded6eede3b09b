"""Targets to reach, speeds to keep and directions to go: what is drawn, seen and rewarded."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from somite.envs.errors import UserError
from somite.envs.locomotion import LIMB_SPEC, LocomotionTask, make_vec

from .helpers import observed, one_row, random_state, token
from .user_robots import arm, load, walker

CLOSE = {"rtol": 0, "atol": 1e-5}
MOTORS = "".join(f'<motor joint="{name}" gear="3" ctrlrange="-1 1"/>' for name in ("shoulder", "elbow"))
LIMB_TARGET, LIMB_DIRECTION = LIMB_SPEC.token_slice("target"), LIMB_SPEC.token_slice("direction")
FLOOR = '<geom type="plane" size="5 5 1"/>'


def tip_of(body, data):
    """The middle of the forearm's capsule by MuJoCo."""
    (geom,) = [g for g in range(body.model.ngeom) if body.model.geom_bodyid[g] == body.model.body("fore").id]
    return data.geom_xpos[geom]


def posed(body, qpos):
    data = mujoco.MjData(body.model)
    data.qpos[:] = qpos
    mujoco.mj_forward(body.model, data)
    return data


def test_a_fixed_robot_sees_where_its_target_is_from_each_limb(tmp_path):
    turned = arm(MOTORS).replace('name="base" pos="0 0 0.5"', 'name="base" pos="0.2 -0.1 0.5" euler="0 0 40"')
    body = load(tmp_path, turned)
    env = one_row(body)
    qpos, qvel = random_state(body, 0)
    seen = observed(env, qpos, qvel)
    target, data = env._goals.target[0].numpy(), posed(body, qpos)
    to_yaw = Rotation.from_euler("z", -40, degrees=True)
    origins = data.xpos[[limb.bodies[0] for limb in body.limbs]]
    np.testing.assert_allclose(token(seen, "target"), to_yaw.apply(target - origins), **CLOSE)
    assert [limb.name for limb in body.limbs][body.tip] == "fore"
    np.testing.assert_array_equal(token(seen, "is_tip")[:, 0], [0, 0, 1])


def test_the_reward_is_1_at_the_target_and_falls_with_the_distance(tmp_path):
    body = load(tmp_path, arm(MOTORS))
    env = one_row(body, LocomotionTask(control_cost=0, alive_bonus=5.0, reset_noise=0, reset_speed_noise=0))
    tip = tip_of(body, posed(body, body.initial_qpos)).copy()
    rewards = []
    for distance in (0.0, 0.05, 0.2, 0.5):
        env.set_state(0, body.initial_qpos, np.zeros(2))
        env._goals.target[0] = torch.from_numpy(tip + [0, distance, 0])
        _, reward, terminated, _, info = env.step(np.zeros(env.action_space.shape))
        assert info["target_distance"][0] == pytest.approx(distance, abs=1e-6) and not terminated[0]
        rewards.append(reward[0])
    assert rewards[0] == pytest.approx(1.0) and (np.diff(rewards) < -0.1).all() and rewards[-1] > 0
    reach = 0.4 + 0.15  # upper arm, half of the forearm
    assert rewards[2] == pytest.approx(1 - np.tanh(4 * 0.2 / reach))


JOINTS = {
    "hinges": {},
    "a ball": {"shoulder": 'type="ball" range="0 80"'},
    "a slide": {"elbow": 'type="slide" axis="1 0 0" range="-0.1 0.6"'},
    "an anchor beside": {"elbow": 'axis="0 1 0" pos="0 0 0.2"'},
    "an endless hinge": {"shoulder": 'axis="1 1 1"'},
}


@pytest.mark.parametrize("joints", JOINTS.values(), ids=list(JOINTS))
def test_targets_are_within_reach_above_the_ground_and_can_be_reached(tmp_path, joints):
    body = load(tmp_path, arm('<motor joint="elbow" ctrlrange="-1 1"/>', **joints))
    env = make_vec([body], 32, LocomotionTask(max_episode_steps=1), threads=1)
    env.reset(seed=1)
    found = []
    for _ in range(4):
        found.append(env._goals.target.numpy().copy())
        env.step(np.zeros(env.action_space.shape))
    found = np.concatenate(found)
    root = posed(body, body.initial_qpos).xpos[body.root]
    distance = np.linalg.norm(found - root, axis=1)
    assert (distance <= body.limb_reach[body.tip] + 1e-9).all() and (found[:, 2] > body.ground).all()
    assert distance.max() > 0.6 * body.limb_reach[body.tip], "not all of them beside the root"
    assert found.std(0).max() > 0.05
    # Among many poses within the joints' ranges there is one with the tip near each target.
    rng, model = np.random.default_rng(0), body.model
    tips, data = [], mujoco.MjData(model)
    for _ in range(4000):
        qpos = model.qpos0.copy()
        for i in range(model.njnt):
            at, ball = model.jnt_qposadr[i], model.jnt_type[i] == int(mujoco.mjtJoint.mjJNT_BALL)
            low, high = model.jnt_range[i] if model.jnt_limited[i] else (-np.pi, np.pi)
            if ball:
                turn = Rotation.from_rotvec(rng.uniform(0, high) * _direction(rng))
                qpos[at : at + 4] = turn.as_quat(scalar_first=True)
            else:
                qpos[at] = rng.uniform(low, high)
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        tips.append(tip_of(body, data).copy())
    gaps = np.linalg.norm(found[:, None] - np.array(tips), axis=2).min(1)
    assert gaps.max() < 0.1


def _direction(rng):
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def test_targets_differ_between_episodes_and_rows_and_are_equal_for_equal_seeds(tmp_path):
    body = load(tmp_path, arm(MOTORS))

    def drawn(seed):
        env = make_vec([body], 3, LocomotionTask(max_episode_steps=1), threads=1)
        env.reset(seed=seed)
        targets = []
        for _ in range(5):
            targets.append(env._goals.target.numpy().copy())
            env.step(np.zeros(env.action_space.shape))
        return np.array(targets)

    first = drawn(3)
    assert len(np.unique(first.reshape(-1, 3).round(9), axis=0)) > 12
    np.testing.assert_array_equal(first, drawn(3))
    assert np.abs(first - drawn(4)).max() > 0.01


def test_a_point_that_slides_on_a_table_reaches_as_far_as_it_slides(tmp_path):
    slides = '<joint name="x" type="slide" axis="1 0 0" range="-0.3 0.3"/>' + (
        '<joint name="y" type="slide" axis="0 1 0" range="-0.4 0.4"/>'
    )
    point = f'<body name="point" pos="0 0 0.1">{slides}<geom name="fore" size="0.05"/></body>'
    push = '<motor joint="x" ctrlrange="-1 1"/><motor joint="y" ctrlrange="-1 1"/>'
    text = f"<mujoco><worldbody>{FLOOR}{point}</worldbody><actuator>{push}</actuator></mujoco>"
    body = load(tmp_path, text)
    assert not body.can_travel and body.limb_reach[0] == pytest.approx(0.7)
    env = one_row(body, LocomotionTask(control_cost=0))
    rewards = [env.step(np.ones(env.action_space.shape))[1][0] for _ in range(20)]
    assert np.ptp(rewards) > 1e-3 and min(rewards) > 0.0


def test_a_wheel_that_reaches_nowhere_has_finite_rewards(tmp_path):
    wheel = '<body name="wheel" pos="0 0 1"><joint name="axle" axis="0 1 0"/><geom size="0.2"/></body>'
    motor = '<motor joint="axle" ctrlrange="-1 1"/>'
    body = load(tmp_path, f"<mujoco><worldbody>{wheel}</worldbody><actuator>{motor}</actuator></mujoco>")
    env = one_row(body)
    assert np.isfinite([env.step(np.ones(env.action_space.shape))[1][0] for _ in range(3)]).all()


def test_a_goal_that_a_body_cannot_have_is_refused_with_what_to_say_instead(tmp_path):
    fixed, free = load(tmp_path, arm(MOTORS)), load(tmp_path, walker(FLOOR))
    with pytest.raises(UserError, match=r"root of 'robot' is fixed.*use env.task.goal=reach or auto"):
        one_row(fixed, LocomotionTask(goal="forward"))
    with pytest.raises(UserError, match=r"'robot' travels.*fixed roots; use forward or auto"):
        one_row(free, LocomotionTask(goal="reach"))
    with pytest.raises(UserError, match="goal must be one of"):
        LocomotionTask(goal="reech")
    for body, goal in ((fixed, "reach"), (free, "forward"), (fixed, "auto"), (free, "auto")):
        one_row(body, LocomotionTask(goal=goal))


def test_those_that_reach_and_those_that_travel_share_an_environment(tmp_path):
    bodies = [load(tmp_path, arm(MOTORS)), load(tmp_path, walker(FLOOR))]
    env = make_vec(bodies, 2, LocomotionTask(alive_bonus=1.0), threads=1)
    seen, _ = env.reset(seed=0)
    targets = seen["tokens"][..., LIMB_TARGET]
    assert np.abs(targets[0]).max() > 0 and not targets[1].any()
    info = env.step(np.zeros(env.action_space.shape))[4]
    np.testing.assert_array_equal(info["reward_alive"], [0, 1])
    assert info["reward_reach"][0] > 0 and info["reward_reach"][1] == 0 == info["reward_forward"][0]


@pytest.mark.parametrize(("speed", "expected"), [(1.0, 1.0), (0.5, 0.5), (2.0, 0.0), (-1.0, -1.0)])
def test_a_target_speed_is_rewarded_for_being_kept(tmp_path, speed, expected):
    body = load(tmp_path, walker(FLOOR, 1.0, first='<option gravity="0 0 0"/>'))
    task = LocomotionTask(target_speed=1.0, control_cost=0, direction=(0.0, 2.0), forward_weight=1.0)
    env = one_row(body, task)
    qvel = np.zeros(body.model.nv)
    qvel[1] = speed
    seen = observed(env, body.initial_qpos, qvel)
    np.testing.assert_array_equal(token(seen, "target_speed"), 1.0)
    np.testing.assert_allclose(token(seen, "direction"), [[0, 1]] * 2, **CLOSE)
    assert env.step(np.zeros(env.action_space.shape))[1][0] == pytest.approx(expected, abs=1e-3)


def test_random_directions_are_drawn_for_each_episode_seen_and_rewarded(tmp_path):
    body = load(tmp_path, walker(FLOOR, 1.0, first='<option gravity="0 0 0"/>'))
    task = LocomotionTask(
        direction="random", max_episode_steps=2, control_cost=0, reset_noise=0, reset_speed_noise=0
    )
    env = make_vec([body], 16, task, threads=1)
    seen, _ = env.reset(seed=0)
    drawn = [env._goals.direction.numpy().copy()]
    np.testing.assert_allclose(np.linalg.norm(drawn[0], axis=1), 1)
    np.testing.assert_allclose(seen["tokens"][:, 0, LIMB_DIRECTION], drawn[0], **CLOSE)
    assert np.abs(drawn[0].mean(0)).max() < 0.6 and len(np.unique(drawn[0], axis=0)) == 16
    qvel = np.zeros(body.model.nv)
    qvel[0] = 1.0
    for row in range(16):
        env.set_state(row, body.initial_qpos, qvel)
    np.testing.assert_allclose(env.step(np.zeros(env.action_space.shape))[1], drawn[0][:, 0], atol=1e-3)
    env.step(np.zeros(env.action_space.shape))  # the episodes end here
    assert (env._goals.direction.numpy() != drawn[0]).any(1).all()


def test_fixed_goals_draw_nothing(tmp_path):
    """So that starts are the same as before goals could vary."""
    body = load(tmp_path, walker(FLOOR))
    fixed, other = (one_row(body, LocomotionTask(direction=d)) for d in ((1.0, 0.0), (0.0, 1.0)))
    for _ in range(2):
        for one, two in zip(fixed.get_state(0), other.get_state(0), strict=True):
            np.testing.assert_array_equal(one, two)
        fixed.reset()
        other.reset()
