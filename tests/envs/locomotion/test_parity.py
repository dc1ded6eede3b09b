"""Full bodies with Gymnasium's settings do what Gymnasium's own environments do."""

from __future__ import annotations

import math

import gymnasium
import mujoco
import numpy as np
import pytest

from somite.envs.locomotion import LocomotionTask

from .helpers import gymnasium_body, observed, one_row, placed, token
from .helpers import joint as joint_feature

STEPS = 400
# For Ant the contact cost is off on both sides: its contact forces take a computation of their own, and
# are zero in an ordinary batch. Gymnasium's Ant takes its velocity from the torso's place of one substep
# before, which is what `progress="body"` says.
CASES = {
    "cheetah_7_full": ("HalfCheetah-v5", {}, {}, 5),
    "walker_7": (
        "Walker2d-v5",
        {},
        {"control_cost": 1e-3, "alive_bonus": 1.0, "height": (0.8, 2.0), "max_tilt": 1.0},
        4,
    ),
    "hopper_4": (
        "Hopper-v5",
        {},
        {
            "control_cost": 1e-3,
            "alive_bonus": 1.0,
            "height": (0.7, math.inf),
            "max_tilt": 0.2,
            "max_state": 100.0,
        },
        4,
    ),
    "ant": (
        "Ant-v5",
        {"contact_cost_weight": 0.0, "include_cfrc_ext_in_observation": False},
        {"control_cost": 0.5, "alive_bonus": 1.0, "height": (0.2, 1.0), "progress": "body"},
        5,
    ),
}


def pair(name, **options):
    """Our environment of one row and Gymnasium's."""
    env_id, theirs, task, frame_skip = CASES[name]
    reference = gymnasium.make(env_id, **theirs).unwrapped
    ours = one_row(name, LocomotionTask(max_episode_steps=10**9, **task), frame_skip=frame_skip, **options)
    return ours, reference


def start_together(ours, reference, seed):
    """Put both into Gymnasium's start state of that seed."""
    reference.reset(seed=seed)
    ours.reset(seed=0)
    ours.set_state(0, reference.data.qpos.copy(), reference.data.qvel.copy())


def compare(ours, reference, scale, seed=0, steps=STEPS):
    """Step both, restarting after termination; returns how many episodes ended."""
    rng = np.random.default_rng(seed)
    body, ends = ours.bodies[0], 0
    start_together(ours, reference, seed)
    for _ in range(steps):
        action = scale * rng.uniform(-1, 1, body.model.nu)
        _, reward, terminated, _, _ = reference.step(action)
        _, our_reward, our_end, _, _ = ours.step(placed(body, action))
        qpos, qvel = ours.get_state(0)
        np.testing.assert_allclose(qpos, reference.data.qpos, rtol=0, atol=1e-9)
        np.testing.assert_allclose(qvel, reference.data.qvel, rtol=0, atol=1e-9)
        assert our_reward[0] == pytest.approx(reward, abs=1e-6)
        assert our_end[0] == terminated
        if terminated:
            ends += 1
            start_together(ours, reference, seed + ends)
    return ends


@pytest.mark.parametrize("name", CASES)
def test_state_reward_and_termination_are_gymnasiums(name):
    ours, reference = pair(name)
    ends = compare(ours, reference, scale=1.0)
    assert (ends > 0) == (name != "cheetah_7_full")  # otherwise termination has not been compared


@pytest.mark.parametrize("name", ["walker_7", "hopper_4", "ant"])
def test_parity_holds_with_small_actions_and_so_in_longer_episodes(name):
    ours, reference = pair(name)
    assert compare(ours, reference, scale=0.1, seed=100) < STEPS / 20


@pytest.mark.parametrize("name", ["hopper_4", "ant"])
def test_parity_holds_with_physical_controls(name):
    # Of these bodies physical and nominal are the same within the range; beyond it only the cost is not.
    ours, reference = pair(name, physical_controls=True)
    compare(ours, reference, scale=1.5, steps=200)


def test_nominal_actions_beyond_one_are_clipped_in_control_and_cost():
    ours, reference = pair("cheetah_7_full")
    start_together(ours, reference, 0)
    action = np.array([1.5, -2.0, 0.5, 1.0, 3.0, -1.0])
    _, reward, _, _, _ = reference.step(np.clip(action, -1, 1))
    _, our_reward, _, _, info = ours.step(placed(ours.bodies[0], action))
    assert our_reward[0] == pytest.approx(reward, abs=1e-6)
    assert info["reward_control"][0] == pytest.approx(-0.1 * (5 + 0.25))


@pytest.mark.parametrize(("physical", "scale"), [(True, 0.1), (False, 1.0)])
def test_humanoid_with_several_joints_per_limb_and_a_control_range_of_its_own(physical, scale):
    # Its controls reach ±0.4: nominal actions are those divided by 0.4, and cost as much in its units.
    # As for Ant, the contact cost is off on both sides.
    reference = gymnasium.make("Humanoid-v5", contact_cost_weight=0.0).unwrapped
    body = gymnasium_body("humanoid.xml")
    assert body.n_joints == 3
    task = LocomotionTask(
        forward_weight=1.25,
        control_cost=0.1 if physical else 0.016,
        alive_bonus=5.0,
        height=(1.0, 2.0),
        progress="center",
        max_episode_steps=10**9,
    )
    ours = one_row(body, task, frame_skip=5, physical_controls=physical)
    start_together(ours, reference, 0)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(STEPS):
        control = scale * rng.uniform(-0.4, 0.4, body.model.nu)
        _, reward, terminated, _, _ = reference.step(control)
        _, our_reward, our_end, _, _ = ours.step(placed(body, control if physical else control / 0.4))
        qpos, qvel = ours.get_state(0)
        np.testing.assert_allclose(qpos, reference.data.qpos, rtol=0, atol=1e-9)
        np.testing.assert_allclose(qvel, reference.data.qvel, rtol=0, atol=1e-9)
        assert our_reward[0] == pytest.approx(reward, abs=1e-6)
        assert our_end[0] == terminated
        if terminated:
            ends += 1
            start_together(ours, reference, ends)
    assert ends > 5


def heading_of(quaternion):
    """Angle of the rotation's twist about the vertical."""
    return 2 * math.atan2(quaternion[3], quaternion[0])


def expected_features(model, data, body):
    """State features of limbs and joints by MuJoCo's own functions, from Gymnasium's data."""
    root = body.limbs[0].bodies[0]
    angle = heading_of(data.xquat[root])
    cos, sin = math.cos(angle), math.sin(angle)
    to_yaw = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    limbs, joints = [], []
    for limb in body.limbs:
        b = limb.bodies[0]
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, b, velocity, 0)
        axes = data.xmat[b].reshape(3, 3)
        limbs.append(
            {
                "position": to_yaw @ (data.xpos[b] - data.xpos[root]),
                "height": data.xpos[b, 2:],
                "velocity": to_yaw @ velocity[3:],
                "angular_velocity": to_yaw @ velocity[:3],
                "orientation": np.concatenate([to_yaw @ axes[:, 0], to_yaw @ axes[:, 2]]),
                "direction": to_yaw[:2, 0],
            }
        )
        for slot in limb.slots:
            q = data.qpos[model.jnt_qposadr[slot.joint]]
            low, high = model.jnt_range[slot.joint]
            joints.append(
                {
                    "angle": q - model.qpos0[model.jnt_qposadr[slot.joint]],
                    "phase": 2 * (q - low) / (high - low) - 1,
                    "speed": data.qvel[model.jnt_dofadr[slot.joint]],
                    "axis_now": to_yaw @ data.xaxis[slot.joint],
                }
            )
    return limbs, joints


@pytest.mark.parametrize("name", CASES)
def test_observed_state_is_what_mujoco_computes_from_gymnasiums_data(name):
    ours, reference = pair(name)
    body = ours.bodies[0]
    start_together(ours, reference, 3)
    rng = np.random.default_rng(3)
    exists = np.array([[j < len(limb.slots) for j in range(body.n_joints)] for limb in body.limbs])
    for step in range(12):
        if step == 0:
            observation = observed(ours, reference.data.qpos, reference.data.qvel)
        else:  # after a step, limbs are one substep behind on both sides, joints are not
            action = rng.uniform(-1, 1, body.model.nu)
            reference.step(action)
            stepped, _, terminated, _, _ = ours.step(placed(body, action))
            observation = {key: value[0] for key, value in stepped.items()}
            if terminated[0]:
                break
        limbs, joints = expected_features(reference.model, reference.data, body)
        for feature in limbs[0]:
            expected = np.array([limb[feature] for limb in limbs])
            np.testing.assert_allclose(token(observation, feature), expected, atol=2e-5, rtol=1e-5)
        for feature in joints[0]:
            expected = np.array([np.atleast_1d(row[feature]) for row in joints])
            np.testing.assert_allclose(
                joint_feature(observation, feature)[exists], expected, atol=2e-5, rtol=1e-5
            )
    assert step > 5  # otherwise nearly nothing was compared
