"""Damage in mid-episode: when, what, and what the policy is told."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion import Damage, LocomotionTask, Morphology, build, make_vec
from somite.envs.locomotion.varied.damage import DEAD, LOCKED

from .helpers import FREE, HINGE, add_capsule, legged

LONG = LocomotionTask(max_episode_steps=60)


def make(body, damage, num_envs=4, task=LONG, **options):
    return make_vec([body], num_envs, task, threads=1, damage=damage, **options)


def actions_for(env, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape))


@pytest.mark.parametrize("kind", ["actuator", "joint"])
@pytest.mark.parametrize("body", ["cheetah_7_full", "walker_5", "ant"])
def test_an_episode_is_the_undamaged_one_until_its_step_and_another_after_it(body, kind):
    damage = Damage(probability=1.0, kind=kind, step=(10, 10))
    whole, broken = make(body, None), make(body, damage)
    one, other = whole.reset(seed=0)[0], broken.reset(seed=0)[0]
    for step, action in enumerate(actions_for(whole, 20)):
        if step <= 10:
            np.testing.assert_array_equal(one["tokens"], other["tokens"])
        one, *_ = whole.step(action)
        other, _, _, _, info = broken.step(action)
        hit = info["damage"] != 0
        if step < 10:
            assert not hit.any() and (info["damaged_since"] == -1).all()
        else:
            assert (info["damaged_since"] == 10).all() and (hit.sum((1, 2)) == 1).all()
            assert set(info["damage"][hit]) == {DEAD if kind == "actuator" else LOCKED}
        # The policy is not told.
        np.testing.assert_array_equal(one["action_mask"], other["action_mask"])
        np.testing.assert_array_equal(hit & (one["action_mask"] == 0), False)
    assert (np.abs(one["tokens"] - other["tokens"]).max((1, 2)) > 1e-3).all()


@pytest.mark.parametrize("body", ["cheetah_7_full", "walker_7", "hopper_4", "ant", "humanoid_2d_9_full"])
def test_a_locked_joint_does_not_move_any_more(body):
    env = make(body, Damage(probability=1.0, kind="joint", parts=2, step=(5, 5)))
    env.reset(seed=1)
    morphology, place = build(body), {}
    for index, limb in enumerate(morphology.limbs):
        for slot, joint in enumerate(limb.slots):
            place[index, slot] = int(morphology.model.jnt_qposadr[joint.joint])
    for step, action in enumerate(actions_for(env, 40)):
        before = [env.get_state(row)[0] for row in range(4)]
        *_, info = env.step(np.sign(action))
        after = [env.get_state(row)[0] for row in range(4)]
        if step == 5:
            locked = [[place[tuple(at)] for at in np.argwhere(part)] for part in info["damage"]]
            angles = [qpos[own] for qpos, own in zip(before, locked, strict=True)]
            assert [len(own) for own in locked] == [2] * 4
        if step >= 5:
            for qpos, own, angle in zip(after, locked, angles, strict=True):
                np.testing.assert_allclose(qpos[own], angle, atol=1e-6)
        assert not info["diverged"].any()


def test_locking_is_a_blow_between_the_limbs_and_not_from_outside():
    # In the air, neither momentum changes.
    body = Morphology("own", legged().compile())
    env = make(body, Damage(probability=1.0, kind="joint", step=(1, 1)), 1, frame_skip=1)
    env.reset(seed=0)
    qpos, qvel = env.get_state(0)
    qpos[2], qvel[6:] = 5.0, [3.0, -4.0, 2.0, 1.0]
    env.set_state(0, qpos, qvel)
    momenta = []
    for _ in range(3):
        model, data, root = env.simulated(0)
        mujoco.mj_subtreeVel(body.model, data)
        momenta.append(np.append(data.subtree_linvel[root], data.subtree_angmom[root]))
        *_, info = env.step(np.zeros(env.action_space.shape))
    assert info["damage"].any()
    gravity = np.array([0, 0, 9.81 * env.step_duration, 0, 0, 0])
    np.testing.assert_allclose(momenta[2] + gravity, momenta[1], atol=5e-3)


def servo_body():
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[5, 5, 1])
    torso = spec.worldbody.add_body(name="torso", pos=[0, 0, 2])
    torso.add_joint(type=FREE)
    add_capsule(torso, (0, 0, 0), (0.5, 0, 0))
    arm = torso.add_body(name="arm", pos=[0.5, 0, 0])
    arm.add_joint(name="elbow", type=HINGE, axis=[0, 1, 0], range=[-2, 2])
    add_capsule(arm, (0, 0, 0), (0.4, 0, 0))
    servo = spec.add_actuator(trntype=mujoco.mjtTrn.mjTRN_JOINT, target="elbow")
    servo.set_to_position(kp=80, kv=2)
    return Morphology("servo", spec.compile())


def test_a_dead_servo_gives_no_force():
    env = make(servo_body(), Damage(probability=1.0, kind="actuator", step=(0, 0)), 1)
    env.reset(seed=0)
    env.step(np.ones(env.action_space.shape))
    model, data, _ = env.simulated(0)
    data.ctrl[:] = 1.0
    mujoco.mj_forward(model, data)
    assert data.actuator_force[0] == 0.0
    whole = make(servo_body(), None, 1)
    whole.reset(seed=0)
    whole.step(np.ones(whole.action_space.shape))
    assert np.abs(whole.get_state(0)[1][6] - env.get_state(0)[1][6]) > 0.1


def test_what_was_broken_is_whole_in_the_next_episode():
    task = LocomotionTask(max_episode_steps=10)
    usual = make("cheetah_5_back", None, 3, task)
    broken = make("cheetah_5_back", Damage(probability=1.0, parts=3, step=(3, 3)), 3, task)
    for env in (usual, broken):
        env.reset(seed=0)
    actions = actions_for(usual, 13)
    for step, action in enumerate(actions):
        one = usual.step(action)
        other = broken.step(action)
        if step == 9:
            assert (other[4]["final_info"]["damaged_since"] == 3).all()
            assert (other[4]["damaged_since"] == -1).all() and not other[4]["damage"].any()
            np.testing.assert_array_equal(one[0]["tokens"], other[0]["tokens"])
        if step == 11:
            np.testing.assert_array_equal(one[0]["tokens"], other[0]["tokens"])


def test_as_often_as_asked_at_any_step_and_part_and_the_same_for_a_seed():
    damage = Damage(probability=0.5, step=(0, 9))
    env = make("cheetah_7_full", damage, 200)
    rounds = []
    for _ in range(2):
        env.reset(seed=0)
        for action in np.zeros((10, *env.action_space.shape)):
            *_, info = env.step(action)
        rounds.append(info)
    since = rounds[0]["damaged_since"]
    assert 0.35 < (since >= 0).mean() < 0.65 and set(since) == set(range(-1, 10))
    hit = rounds[0]["damage"]
    assert {DEAD, LOCKED} == set(hit[hit > 0]) and (hit.sum(0)[1:] > 0).all()  # every limb but the root
    for key in ("damage", "damaged_since"):
        np.testing.assert_array_equal(rounds[0][key], rounds[1][key])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.5}, "from 0 to 1"),
        ({"kind": "leg"}, "one of actuator, joint, any"),
        ({"parts": 0}, "from 1 to 1,000"),
        ({"step": [5, 2]}, "damage.step"),
        ({"step": [0.5, 2]}, "whole number"),
    ],
)
def test_damage_that_cannot_be_meant_is_told(options, message):
    with pytest.raises(UserError, match=message):
        Damage(**options)
