"""Reading any body: several joints, several trees, fixed and actuated roots, scenery; no name matters."""

from __future__ import annotations

import warnings

import mujoco
import numpy as np
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion import LIMB_SPEC, LocomotionTask, Morphology

from ..helpers import (
    BALL,
    FREE,
    HINGE,
    SLIDE,
    action_places,
    add_capsule,
    add_motor,
    gymnasium_body,
    joint,
    legged,
    observed,
    one_row,
    physical,
    placed,
    random_state,
    renamed,
    token,
)

CLOSE = {"rtol": 0, "atol": 1e-5}


def new_spec():
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    return spec


def add_limb(parent, name, pos, **joints):
    """A capsule on hinges, given by their axes."""
    body = parent.add_body(name=name, pos=pos)
    for joint_name, axis in joints.items():
        body.add_joint(name=joint_name, type=HINGE, axis=axis)
    add_capsule(body, (0, 0, 0), (0.3, 0, 0))
    return body


def arm(**tree):
    """A fixed base with a shoulder of two hinges, a jointless bracket on it, and a forearm on that."""
    spec = new_spec()
    base = spec.worldbody.add_body(name="base", pos=[0, 0, 0.5], **tree)
    add_capsule(base, (0, 0, -0.4), (0, 0, 0), 0.1)
    upper = add_limb(base, "upper", [0, 0, 0.1], shoulder_yaw=[0, 0, 1], shoulder_pitch=[0, 1, 0])
    bracket = upper.add_body(name="bracket", pos=[0.3, 0, 0], quat=[0.5**0.5, 0.5**0.5, 0, 0])
    add_capsule(bracket, (0, 0, 0), (0, 0, 0.1), 0.02)
    add_limb(bracket, "forearm", [0.1, 0, 0.2], elbow=[0, 1, 0])
    for name in ("elbow", "shoulder_pitch", "shoulder_yaw", "shoulder_yaw"):
        add_motor(spec, name, 3)
    return spec


def test_an_arm_on_a_fixed_base_with_two_hinges_a_bracket_and_two_motors_on_one_joint():
    body = Morphology("arm", arm().compile())
    assert [limb.parent for limb in body.limbs] == [-1, 0, 1]
    assert [len(limb.bodies) for limb in body.limbs] == [1, 2, 1]  # the bracket is part of the upper arm
    assert [len(limb.slots) for limb in body.limbs] == [0, 3, 1]  # the doubly driven joint has two slots
    names = [[body.model.joint(slot.joint).name for slot in limb.slots] for limb in body.limbs]
    assert names == [[], ["shoulder_yaw", "shoulder_yaw", "shoulder_pitch"], ["elbow"]]
    assert sorted(slot.actuator for limb in body.limbs for slot in limb.slots) == [0, 1, 2, 3]
    seen = observed(one_row(body), *random_state(body, 0))
    np.testing.assert_array_equal(seen["joint_mask"], [[0, 0, 0], [1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(seen["action_mask"], seen["joint_mask"])
    np.testing.assert_array_equal(seen["joints"][1, 0], seen["joints"][1, 1])


def test_each_action_reaches_its_own_actuator():
    body = Morphology("arm", arm().compile())
    env = one_row(body)
    limbs, joints = action_places(body)
    for actuator in range(body.model.nu):
        action = np.zeros((1, 3, 3))
        action[0, limbs[actuator], joints[actuator]] = 0.5
        env.step(action)
        np.testing.assert_allclose(env._blocks[0].batch.ctrl[0], 0.5 * np.eye(4)[actuator])


def test_descriptors_of_welded_bodies_are_those_of_the_whole_limb():
    model = arm().compile()
    body = Morphology("arm", model)
    env = one_row(body)
    seen = observed(env, np.zeros(3), np.zeros(3))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    upper, bracket = model.body("upper").id, model.body("bracket").id
    masses = model.body_mass[[upper, bracket]]
    assert physical(seen, "mass")[1, 0] == pytest.approx(masses.sum())
    center = masses @ data.xipos[[upper, bracket]] / masses.sum() - data.xpos[upper]
    np.testing.assert_allclose(physical(seen, "center_of_mass")[1], center, **CLOSE)
    attachment = data.xpos[model.body("forearm").id] - data.xpos[upper]
    np.testing.assert_allclose(physical(seen, "attachment")[2], attachment, **CLOSE)
    inertia = np.zeros((3, 3))
    for part in (upper, bracket):
        axes, arm_of = data.ximat[part].reshape(3, 3), data.xipos[part] - data.xpos[upper] - center
        inertia += axes @ np.diag(model.body_inertia[part]) @ axes.T
        inertia += model.body_mass[part] * (arm_of @ arm_of * np.eye(3) - np.outer(arm_of, arm_of))
    gyration = np.sqrt(np.diag(inertia) / masses.sum())
    np.testing.assert_allclose(physical(seen, "gyration")[1], gyration, **CLOSE)
    low, high = np.array([-0.05] * 3), np.array([0.35, 0.05, 0.05])  # the upper arm's capsule
    low[1] = min(low[1], -0.1 - 0.02)  # the bracket's, which points along -y
    np.testing.assert_allclose(physical(seen, "size")[1], (high - low) / 2, **CLOSE)
    np.testing.assert_allclose(physical(seen, "center")[1], (high + low) / 2, **CLOSE)


def test_descriptors_of_a_joint_are_in_the_stated_units():
    body = gymnasium_body("half_cheetah.xml")
    seen = observed(one_row(body), *random_state(body, 0))
    index = [limb.name for limb in body.limbs].index("bthigh")
    expected = {  # from half_cheetah.xml
        "is_rotation": 1,
        "is_transmission": 0,
        "axis": [0, 1, 0],
        "anchor": [0, 0, 0],
        "is_limited": 1,
        "range": [-0.52, 1.05],
        "rest": 0,
        "damping": 6,
        "stiffness": 240,
        "armature": 0.1,
        "is_actuated": 1,
        "strength": 120,
        "control_range": [-1, 1],
        "position_gain": 0,
        "velocity_gain": 0,
        "lag": 0,
    }
    assert set(expected) == {f.name for f in LIMB_SPEC.joint if f.kind == "descriptor"}
    for name, value in expected.items():
        np.testing.assert_allclose(physical(seen, name)[index, 0], value, rtol=1e-6, err_msg=name)


def test_gymnasiums_humanoid_has_limbs_of_up_to_three_joints():
    body = gymnasium_body("humanoid.xml")
    seen = observed(one_row(body), *random_state(body, 0))
    assert seen["action_mask"].sum() == body.model.nu == 17
    assert sorted(seen["joint_mask"].sum(1)) == [0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3]
    assert physical(seen, "mass").sum() == pytest.approx(body.model.body_mass.sum(), rel=1e-5)


def test_an_actuated_joint_of_the_root_is_a_slot_and_its_free_motion_is_none():
    # A cart with a pole: the motor drives the root's own slide.
    spec = new_spec()
    cart = spec.worldbody.add_body(name="cart", pos=[0, 0, 0.3])
    cart.add_joint(name="slide", type=SLIDE, axis=[1, 0, 0])
    cart.add_joint(name="wobble", type=HINGE, axis=[0, 1, 0])
    add_capsule(cart, (-0.1, 0, 0), (0.1, 0, 0))
    add_limb(cart, "pole", [0, 0, 0], tip=[0, 1, 0])
    add_motor(spec, "slide", 100)
    body = Morphology("cart", spec.compile())
    env = one_row(body, LocomotionTask(control_cost=0))
    seen = observed(env, [0.5, 0.1, 0.2], [1, 0, 0])
    np.testing.assert_array_equal(seen["joint_mask"], [[1], [1]])
    np.testing.assert_array_equal(seen["action_mask"], [[1], [0]])
    np.testing.assert_allclose(joint(seen, "angle")[:, 0, 0], [0.5, 0.2], **CLOSE)
    np.testing.assert_array_equal(joint(seen, "is_rotation")[:, 0, 0], [0, 1])
    before = env.get_state(0)[0][0]
    _, reward, _, _, _ = env.step(placed(body, np.array([1.0])))
    velocity = (env.get_state(0)[0][0] - before) / env.step_duration
    assert velocity > 0 and reward[0] == pytest.approx(velocity)


def with_scenery(spec):
    """A ball that nothing drives and a box that stands still."""
    ball = spec.worldbody.add_body(name="ball", pos=[3, 0, 0.2])
    ball.add_joint(name="rolls", type=FREE)
    ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.2, 0, 0])
    box = spec.worldbody.add_body(name="box", pos=[-3, 0, -2])
    box.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[1, 1, 1])
    return spec


@pytest.mark.parametrize("first", [True, False])
def test_scenery_is_no_limb_and_changes_neither_the_body_nor_its_measures(first):
    alone = Morphology("alone", legged().compile())
    spec = legged(spec=with_scenery(new_spec())) if first else with_scenery(legged())
    among = Morphology("among", spec.compile())
    assert [limb.name for limb in among.limbs] == [limb.name for limb in alone.limbs]
    assert among.mass == pytest.approx(alone.mass)
    assert among.standing_height == pytest.approx(alone.standing_height)
    qpos, qvel = random_state(alone, 0)
    all_qpos, all_qvel = among.model.qpos0.copy(), np.zeros(among.model.nv)
    root = among.model.jnt_qposadr[among.model.joint("root").id]
    speed = among.model.jnt_dofadr[among.model.joint("root").id]
    all_qpos[root : root + len(qpos)], all_qvel[speed : speed + len(qvel)] = qpos, qvel
    one, other = observed(one_row(alone), qpos, qvel), observed(one_row(among), all_qpos, all_qvel)
    for key in one:
        np.testing.assert_allclose(one[key], other[key], **CLOSE)


def test_where_scenery_lies_does_not_end_an_episode():
    body = Morphology("among", with_scenery(legged()).compile())
    env = one_row(body, LocomotionTask(max_state=50.0))
    qpos, qvel = body.initial_qpos.copy(), np.zeros(body.model.nv)
    ball = body.model.joint("rolls")
    qpos[ball.qposadr[0]] = 1000.0
    env.set_state(0, qpos, qvel)
    assert not env.step(np.zeros(env.action_space.shape))[2][0]
    qvel[body.model.joint("right_yaw").dofadr[0]] = 60.0  # negative control
    env.set_state(0, qpos, qvel)
    assert env.step(np.zeros(env.action_space.shape))[2][0]


def test_max_state_bounds_every_joint_of_a_fixed_body():
    # The first two positions are where a planar body stands; of a body that stands fast they are joints.
    body = Morphology("arm", arm().compile())
    env = one_row(body, LocomotionTask(max_state=50.0))
    for index in range(3):
        env.reset(seed=0)
        qpos = np.zeros(3)
        qpos[index] = 60.0
        env.set_state(0, qpos, np.zeros(3))
        assert env.step(np.zeros((1, 3, 3)))[2][0], index


def test_where_a_body_stands_is_not_bounded_by_max_state():
    body = Morphology("legged", legged().compile())
    env = one_row(body, LocomotionTask(max_state=50.0))
    qpos = body.initial_qpos.copy()
    qpos[:3] = [300.0, -300.0, 70.0]
    env.set_state(0, qpos, np.zeros(body.model.nv))
    assert not env.step(np.zeros(env.action_space.shape))[2][0]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_limbs_of_a_second_tree_have_their_own_velocity(order):
    # Two bodies of one model. MuJoCo gives velocities at the centre of mass of each tree.
    spec = new_spec()
    for side in order:
        root = spec.worldbody.add_body(name=f"root{side}", pos=[0, 2.0 * side, 1])
        root.add_joint(name=f"free{side}", type=FREE)
        add_capsule(root, (0, 0, 0), (0.2, 0, 0), 0.1)
        add_limb(root, f"leg{side}", [0.2, 0, 0], **{f"hip{side}": [0, 1, 0]})
        add_motor(spec, f"hip{side}")
    body = Morphology("two", spec.compile())
    assert [limb.parent for limb in body.limbs] == [-1, 0, -1, 2]
    qpos, qvel = random_state(body, 1)
    qpos[3:7] = [1, 0, 0, 0]  # the first root, whose yaw frame all are seen in, heads along the world's x
    seen = observed(one_row(body), qpos, qvel)
    data = mujoco.MjData(body.model)
    data.qpos, data.qvel = qpos, qvel
    mujoco.mj_forward(body.model, data)
    for index, limb in enumerate(body.limbs):
        velocity = np.zeros(6)
        kind = mujoco.mjtObj.mjOBJ_XBODY
        mujoco.mj_objectVelocity(body.model, data, kind, limb.bodies[0], velocity, 0)
        np.testing.assert_allclose(token(seen, "velocity")[index], velocity[3:], **CLOSE)


ROOT_JOINTS = {
    "slides, then a hinge": [(SLIDE, [1, 0, 0]), (SLIDE, [0, 0, 1]), (HINGE, [0, 1, 0])],
    "a hinge, then slides": [(HINGE, [0, 1, 0]), (SLIDE, [1, 0, 0]), (SLIDE, [0, 0, 1])],
    "a slide between hinges": [(HINGE, [0, 0, 1]), (SLIDE, [1, 0, 0]), (HINGE, [0.6, 0.8, 0])],
    "slides and a ball": [(SLIDE, [1, 0, 0]), (SLIDE, [0, 1, 0]), (BALL, [0, 0, 1])],
    "a ball": [(BALL, [0, 0, 1])],
    "free": [(FREE, [0, 0, 1])],
    "none": [],
}


@pytest.mark.parametrize("anchor", [(0, 0, 0), (0.1, 0.2, -0.3)])
@pytest.mark.parametrize("joints", ROOT_JOINTS.values(), ids=ROOT_JOINTS)
def test_place_and_tilt_of_any_root_are_those_of_mujocos_kinematics(joints, anchor):
    spec = new_spec()
    drawn = np.array([0.8, 0.3, -0.4, 0.2])
    root = spec.worldbody.add_body(name="root", pos=[0.3, -0.2, 1.1], quat=drawn)
    for index, (kind, axis) in enumerate(joints):
        place = {} if kind == FREE else {"axis": axis, "pos": anchor, "ref": 0.0 if kind == BALL else 0.2}
        root.add_joint(name=f"root{index}", type=kind, **place)
    add_capsule(root, (0, 0, 0), (0.3, 0, 0))
    add_limb(root, "leg", [0.1, 0, 0], hip=[0, 1, 0])
    add_motor(spec, "hip")
    body = Morphology("any", spec.compile())
    env = one_row(body, LocomotionTask(max_tilt=3.0))
    start = mujoco.MjData(body.model)
    mujoco.mj_kinematics(body.model, start)
    up = start.xmat[1].reshape(3, 3).T @ [0, 0, 1]
    for seed in range(3):
        env.set_state(0, *random_state(body, seed, spread=0.7))
        readings, data = env._readings, env.simulated(0)[1]
        np.testing.assert_allclose(readings.root[0], data.xpos[1], atol=1e-12)
        tilt = (data.xmat[1].reshape(3, 3) @ up)[2]
        assert float(readings.cos_tilt[0]) == pytest.approx(tilt, abs=1e-12)


def test_names_do_not_matter():
    other_names, usual = Morphology("x", renamed(legged()).compile()), Morphology("y", legged().compile())
    state = random_state(usual, 0)
    one, other = observed(one_row(usual), *state), observed(one_row(other_names), *state)
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


def refused(spec):
    with pytest.raises(UserError) as error:
        _ = Morphology("x", spec.compile()).limbs
    return str(error.value)


def test_bodies_that_cannot_be_read_are_refused_with_what_is_wrong():
    spec = legged()
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    assert "no actuator" in refused(spec)

    spec = legged()
    spec.worldbody.add_site(name="post")
    push = spec.add_actuator(name="push", trntype=mujoco.mjtTrn.mjTRN_SITE, target="post")
    push.set_to_motor()
    assert "'push' moves no joint" in refused(spec)


def test_an_actuator_without_a_range_is_told_once_and_covers_one():
    spec = legged()
    add_motor(spec, "left_hip", limits=None)
    body = Morphology("x", spec.compile())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = one_row(body)
    assert len([w for w in caught if "has no control range" in str(w.message)]) == 1
    env.step(placed(body, np.full(5, -0.5)))
    assert env._blocks[0].batch.ctrl[0, 4] == -0.5


def test_an_uneven_control_range_is_covered_by_nominal_actions():
    spec = legged()
    add_motor(spec, "left_hip", limits=(-1.0, 3.0))
    body = Morphology("x", spec.compile())
    env = one_row(body)
    for nominal, control in ((-1, -1), (0, 1), (1, 3)):
        env.step(placed(body, np.array([0, 0, 0, 0, nominal])))
        assert env._blocks[0].batch.ctrl[0, 4] == control
    seen = observed(env, *random_state(body, 0))
    index = np.argwhere(joint(seen, "control_range")[..., 1] == 3)
    assert len(index) == 1
    assert physical(seen, "strength")[tuple(index[0])] == pytest.approx(2.0)  # half the span of force
