"""The limb graph of robots as users draw them, and what it observes: no place, heading or order matters."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from somite.envs.locomotion import LocomotionTask, make_vec
from somite.envs.locomotion.pictures.describe import describe

from ..helpers import joint, observed, one_row, random_state, token
from ..user_robots import arm, load, walker

CLOSE = {"rtol": 0, "atol": 1e-5}
FLOOR = '<geom type="plane" size="5 5 1"/>'


@given(seed=st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_a_ball_joint_is_three_rows_of_its_rotation_vector(tmp_path_factory, seed):
    text = arm('<motor joint="shoulder" ctrlrange="-1 1"/>', elbow='type="ball" range="0 90" damping="0.3"')
    body = load(tmp_path_factory.mktemp("ball"), text)
    fore = [limb.name for limb in body.limbs].index("fore")
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(rng.uniform(-2, 2, 3))
    qpos, qvel = body.initial_qpos, rng.standard_normal(4)
    address = int(body.model.joint("elbow").qposadr[0])
    qpos[address : address + 4] = turn.as_quat(scalar_first=True) * rng.choice([-1, 1])  # the same turn
    seen = observed(one_row(body), qpos, qvel)
    np.testing.assert_allclose(joint(seen, "angle")[fore, :, 0], turn.as_rotvec(), **CLOSE)
    np.testing.assert_allclose(joint(seen, "phase")[fore, :, 0], turn.as_rotvec() / (np.pi / 2), **CLOSE)
    np.testing.assert_allclose(joint(seen, "speed")[fore, :, 0], qvel[1:], **CLOSE)
    data = mujoco.MjData(body.model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(body.model, data)
    limb = data.xmat[body.model.body("fore").id].reshape(3, 3)
    np.testing.assert_allclose(joint(seen, "axis_now")[fore], limb.T, **CLOSE)  # the limb's own axes
    # Angular velocity is the sum of axes times speeds, of all joints on the way.
    upper = [limb.name for limb in body.limbs].index("upper")
    spin = joint(seen, "axis_now")[fore].T @ joint(seen, "speed")[fore, :, 0]
    spin = spin + joint(seen, "axis_now")[upper, 0] * joint(seen, "speed")[upper, 0, 0]
    np.testing.assert_allclose(token(seen, "angular_velocity")[fore], spin, rtol=0, atol=1e-4)


SCENE = (
    FLOOR
    + """
<body name="ball" pos="2 0 1.3"><freejoint/><geom size="0.1"/></body>
<body name="hand" mocap="true" pos="1 1 1"><geom size="0.02" contype="0" conaffinity="0"/></body>
<body name="door" pos="-2 0 1"><joint name="door" axis="0 0 1"/><geom type="box" size="0.5 0.02 0.5"/></body>
"""
)
SHELL = '<body name="shell" pos="0 0 -0.1"><geom size="0.04"/><body><geom size="0.02"/></body></body>'


def test_objects_mocap_bodies_and_shells_are_no_limbs_and_start_as_the_file_says(tmp_path):
    body = load(tmp_path, walker(SCENE, shin=SHELL))
    assert [(limb.name, len(limb.bodies)) for limb in body.limbs] == [("trunk", 1), ("leg", 3)]
    notes = " ".join(describe(body, 5).notes)
    assert all(name in notes for name in ("ball", "hand", "door"))
    env = make_vec([body], 3, LocomotionTask(reset_noise=0.1, reset_speed_noise=0.5), threads=1)
    env.reset(seed=0)
    start, model = body.initial_qpos, body.model
    own = np.zeros(model.nq, bool)
    for name, size in (("free", 7), ("hip", 1)):
        own[model.joint(name).qposadr[0] :][:size] = True
    for row in range(3):
        qpos, qvel = env.get_state(row)
        np.testing.assert_array_equal(qpos[~own], start[~own])
        assert (qpos[own] != start[own]).all() and np.count_nonzero(qvel) == 7
    assert start[model.jnt_qposadr[model.body("ball").jntadr[0]] + 2] == 1.3


def test_of_several_trees_the_largest_comes_first(tmp_path):
    tail = '<body name="tail"><joint name="tail" axis="0 1 0"/><geom size="0.2" pos="0.3 0 0"/></body>'
    small = f'<body name="small" pos="3 0 1"><freejoint/><geom size="0.2"/>{tail}</body>'
    motors = '<motor joint="tail" ctrlrange="-1 1"/><motor joint="hip" ctrlrange="-1 1"/>'
    shin = '<body name="shin" pos="0 0 -0.2"><joint name="knee" axis="0 1 0"/><geom size=".05"/></body>'
    body = load(tmp_path, walker(FLOOR + small, shin=shin, actuators=motors))
    assert [limb.name for limb in body.limbs] == ["trunk", "leg", "shin", "small", "tail"]
    assert [limb.parent for limb in body.limbs] == [-1, 0, 1, -1, 3]
    equal = walker(FLOOR + small, actuators=motors)  # as many limbs: the heavier
    assert load(tmp_path, equal).limbs[0].name == "small"


def test_bodies_without_names_are_called_after_their_parents(tmp_path):
    text = walker(FLOOR, shin='<body pos="0 0 -0.2"><joint axis="0 1 0"/><geom size=".05"/></body>')
    text = text.replace('name="trunk" pos', "pos").replace('name="leg" pos', "pos")
    assert [limb.name for limb in load(tmp_path, text).limbs] == ["root/1", "root/1/1", "root/1/1/1"]


PLANAR = (
    '<joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/><joint type="hinge" axis="0 1 0"/>'
)
RAILS = '<joint type="slide" axis="1 0 0" range="-1 1"/><joint type="slide" axis="0 0 1" range="-1 1"/>'
ROOTS = {  # joints of the root, actuators, can_travel, can_fall, limb that reaches
    "free": ('<freejoint name="free"/>', "", True, True, None),
    "planar": (PLANAR, "", True, True, None),
    "level slides": (
        '<joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/>',
        "",
        True,
        False,
        None,
    ),
    "hinge": ('<joint axis="0 1 0"/>', "", False, False, "leg"),
    "ball": ('<joint type="ball"/>', "", False, False, "leg"),
    "fixed": ("", "", False, False, "leg"),
    "vertical slide": ('<joint type="slide" axis="0 0 1"/>', "", False, True, "leg"),
    "actuated lift": (
        '<joint name="lift" type="slide" axis="0 0 1"/>',
        '<motor joint="lift" ctrlrange="-1 1"/>',
        False,
        False,
        "leg",
    ),
    "gantry": (
        RAILS.replace("<joint", '<joint name="x"', 1).replace(
            'type="slide" axis="0 0 1"', 'name="z" type="slide" axis="0 0 1"'
        ),
        '<motor joint="x" ctrlrange="-1 1"/><motor joint="z" ctrlrange="-1 1"/>',
        False,
        False,
        "leg",
    ),
    "held slides": (PLANAR.replace('type="slide"', 'type="slide" damping="1e11"'), "", False, False, "leg"),
}


@pytest.mark.parametrize(("root", "more", "travels", "falls", "tip"), ROOTS.values(), ids=list(ROOTS))
def test_what_a_robot_can_do_is_told_by_its_root(tmp_path, root, more, travels, falls, tip):
    motor = '<motor joint="hip" ctrlrange="-1 1"/>'
    body = load(tmp_path, walker(FLOOR, 1.0, root=root, actuators=motor + more))
    assert (body.can_travel, body.can_fall) == (travels, falls)
    assert (body.limbs[body.tip].name if body.tip >= 0 else None) == tip
    env = one_row(body)
    for _ in range(5):
        seen, reward, *_ = env.step(np.ones(env.action_space.shape))
    assert np.isfinite(seen["tokens"]).all() and np.isfinite(reward).all()


def test_held_slides_stay_where_they_are(tmp_path):
    held = PLANAR.replace('type="slide"', 'type="slide" damping="1e11"')
    body = load(tmp_path, walker(FLOOR, 1.0, root=held))
    env = one_row(body, LocomotionTask(reset_noise=0.1, reset_speed_noise=0.1))
    assert not env.get_state(0)[0][:2].any() and not env.get_state(0)[1][:2].any()
    for _ in range(20):
        env.step(np.ones(env.action_space.shape))
    np.testing.assert_allclose(env.get_state(0)[0][:2], 0, atol=1e-6)


def test_a_robot_that_is_welded_to_a_mocap_body_reaches(tmp_path):
    hand = '<body name="hand" mocap="true" pos="0 0 1"/>'
    weld = '<equality><weld body1="hand" body2="trunk"/></equality>'
    tied = load(tmp_path, walker(FLOOR + hand, 1.0, last=weld))
    assert not tied.can_travel and not tied.can_fall and tied.initial_qpos[2] == 1.0
    loose = load(tmp_path, walker(FLOOR + hand, 1.0))  # negative control
    assert loose.can_travel and loose.can_fall
    env = one_row(tied)
    for _ in range(20):
        env.step(np.ones(env.action_space.shape))
    assert env.get_state(0)[0][2] == pytest.approx(1.0, abs=0.1)


def fingers(order):
    """A hand on a fixed base whose fingers are alike but for their places; ``order`` of their elements."""
    made = "".join(
        f'<body name="{"abc"[i]}{order[0]}" pos="{(0.1, -0.1, 0.0)[i]} {(0.1, 0.1, -0.1)[i]} 0">'
        f'<joint name="j{i}" axis="1 0 0"/><geom type="capsule" fromto="0 0 0 0 0 .3" size=".02"/></body>'
        for i in order
    )
    motors = "".join(f'<motor joint="j{i}" ctrlrange="-1 1"/>' for i in sorted(order, key=lambda i: -i))
    base = f'<body name="base" pos="0 0 1"><geom size="0.1"/>{made}</body>'
    return f"<mujoco><worldbody>{base}</worldbody><actuator>{motors}</actuator></mujoco>"


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 1, 0)])
def test_reordered_and_renamed_limbs_have_the_same_descriptors_and_tip(tmp_path, order):
    first, second = load(tmp_path, fingers((0, 1, 2))), load(tmp_path, fingers(order))
    assert first.hash == second.hash
    place = {limb: k for k, limb in enumerate(order)}
    moved = [0] + [1 + place[i] for i in range(3)]
    np.testing.assert_array_equal(first.limb_descriptors, second.limb_descriptors[moved])
    np.testing.assert_array_equal(
        np.array(first.joint_descriptors[1:]), np.array(second.joint_descriptors[1:])[np.array(moved[1:]) - 1]
    )
    assert moved[first.tip] == second.tip


CREATURE = walker(
    FLOOR,
    1.0,
    leg='density="900"',
    shin="""<site name="foot" pos="0 0.02 -0.3"/>
      <body name="tail" pos="0.1 0 -0.1"><joint name="tail" type="ball" pos="0.01 0 0"/>
      <geom type="capsule" fromto="0 0 0 0.3 0.1 0" size="0.03"/><site name="end" pos="0.3 0.1 0"/></body>""",
    last="""<tendon><spatial name="gut"><site site="foot"/><site site="end"/></spatial></tendon>
      <keyframe><key name="home" qpos="0 0 1 0.9 0.1 -0.2 0.3 0.2 1 0 0 0"/></keyframe>""",
    actuators="""<position joint="hip" kp="20"/><motor tendon="gut" ctrlrange="-1 1"/>
      <motor site="end" gear="0 1 0 0 0 0" ctrlrange="-1 1"/>""",
)


@pytest.fixture(scope="module")
def creature(tmp_path_factory):
    return load(tmp_path_factory.mktemp("creature"), CREATURE)


@given(
    seed=st.integers(0, 5),
    heading=st.floats(-3.2, 3.2),
    shift=st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
)
@settings(max_examples=20, deadline=None)
def test_no_feature_tells_where_a_robot_is_or_where_it_heads(creature, seed, heading, shift):
    qpos, qvel = random_state(creature, seed)
    turn = Rotation.from_euler("z", heading)
    ahead = observed(one_row(creature, LocomotionTask(direction=(1.0, 0.5))), qpos, qvel)
    moved, speeds = qpos.copy(), qvel.copy()
    moved[:3] = turn.apply(qpos[:3]) + [*shift, 0]
    moved[3:7] = (turn * Rotation.from_quat(qpos[3:7], scalar_first=True)).as_quat(scalar_first=True)
    speeds[:3] = turn.apply(qvel[:3])  # in the world's frame; the angular velocity is in the body's
    goal = tuple(turn.apply([1.0, 0.5, 0.0])[:2])
    there = observed(one_row(creature, LocomotionTask(direction=goal)), moved, speeds)
    assert set(ahead) == set(there) and np.abs(ahead["joints"]).max() > 0.1
    for key, value in ahead.items():
        np.testing.assert_allclose(value, there[key], rtol=0, atol=2e-5, err_msg=key)


def test_what_the_invariance_does_not_hide(creature):
    """Negative control: the height, the mass and the direction are seen."""
    qpos, qvel = random_state(creature, 0)
    env = one_row(creature)
    here = observed(env, qpos, qvel)
    lifted = qpos.copy()
    lifted[2] += 0.5
    above = observed(env, lifted, qvel)
    np.testing.assert_allclose(token(above, "height"), token(here, "height") + 0.5, **CLOSE)
    np.testing.assert_allclose(token(above, "position"), token(here, "position"), **CLOSE)
    masses = [creature.model.body(limb.name).mass[0] for limb in creature.limbs]
    np.testing.assert_allclose(token(here, "mass")[:, 0], masses, rtol=1e-6)
    other = observed(one_row(creature, LocomotionTask(direction=(0.0, 1.0))), qpos, qvel)
    assert np.abs(token(other, "direction") - token(here, "direction")).max() > 0.5
