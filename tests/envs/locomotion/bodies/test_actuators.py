"""Every kind of actuator: what nominal actions mean to it, and what its row observes, as MuJoCo has it."""

from __future__ import annotations

import warnings

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from somite.envs.locomotion import LocomotionTask

from ..helpers import action_places, joint, observed, one_row, physical, placed, random_state
from ..user_robots import arm, load, walker

STILL = LocomotionTask(reset_noise=0, reset_speed_noise=0)
CLOSE = {"rtol": 0, "atol": 1e-5}


def run(body, nominal, steps):
    """(steps, nq) positions under constant nominal actions (nu,), and the environment."""
    env = one_row(body, STILL)
    action = placed(body, np.asarray(nominal, float))
    path = []
    for _ in range(steps):
        env.step(action)
        path.append(env.get_state(0)[0])
    return np.array(path), env


def at(body, text):
    """The position of a joint in ``qpos``."""
    return int(body.model.joint(text).qposadr[0])


def settled(body, qpos, controls):
    """MuJoCo's own data in a state at rest under physical controls."""
    data = mujoco.MjData(body.model)
    data.qpos[:], data.ctrl[:] = qpos, controls
    mujoco.mj_forward(body.model, data)
    return data


def limb_of(body, actuator):
    return body.limbs[int(action_places(body)[0][actuator])].name


def test_a_motor_covers_its_control_range_and_its_strength_is_mujocos_force(tmp_path):
    body = load(tmp_path, arm('<motor joint="elbow" gear="-7" ctrlrange="-1 3"/>'))
    for nominal, control in ((-1, -1), (0, 1), (1, 3)):
        _, env = run(body, [nominal], 1)
        assert env._blocks[0].batch.ctrl[0, 0] == control
    # Strength is half the span of torque; its sign says that a larger control turns it backwards.
    torques = [settled(body, body.initial_qpos, c).qfrc_actuator[1] for c in (-1, 3)]
    seen = observed(one_row(body), *random_state(body, 0))
    strength = physical(seen, "strength")[tuple(a[0] for a in action_places(body))]
    assert strength == pytest.approx((torques[1] - torques[0]) / 2) and strength < 0


SERVOS = {
    "position": '<position joint="elbow" kp="40" kv="4" ctrlrange="-0.5 2"/>',
    "range of the joint": '<position joint="elbow" kp="40" kv="4"/>',
    "geared": '<position joint="elbow" kp="40" kv="4" gear="-2"/>',
    "filtered": '<position joint="elbow" kp="40" kv="4" timeconst="0.2"/>',
    "scaled and offset": '<general joint="elbow" gainprm="80" biastype="affine" biasprm="5 -40 -4"/>',
    "integrated": '<intvelocity joint="elbow" kp="40" kv="4" ctrlrange="-2 2" actrange="-1 2"/>',
    "through a tendon": '<position tendon="both" kp="40" kv="4"/>',
}
TENDON = (
    '<tendon><fixed name="both" limited="true" range="0 2"><joint joint="elbow" coef="1"/></fixed></tendon>'
    '<keyframe><key name="home" qpos="0.1 {}"/></keyframe>'
)


@pytest.mark.parametrize("home", [0.3, 1.4])
@pytest.mark.parametrize("servo", SERVOS.values(), ids=list(SERVOS))
def test_a_servo_holds_the_home_pose_under_action_0(tmp_path, servo, home):
    body = load(tmp_path, arm(servo, last=TENDON.format(home)))
    path, env = run(body, [0], 40)
    np.testing.assert_allclose(path[:, at(body, "elbow")], home, atol=1e-6)
    env.reset()
    for _ in range(20):
        env.step(placed(body, np.array([0.5])))  # negative control
    assert abs(env.get_state(0)[0][at(body, "elbow")] - home) > 0.1


@pytest.mark.parametrize("name", [name for name in SERVOS if name != "integrated"])
def test_actions_of_1_and_minus_1_take_a_servo_to_the_ends_of_its_range(tmp_path, name):
    body = load(tmp_path, arm(SERVOS[name], last=TENDON.format(0.3)))
    low, high = {"position": (0, 2), "through a tendon": (0, 2)}.get(name, np.deg2rad([0, 120]))
    ends = [run(body, [nominal], 80)[0][-1, at(body, "elbow")] for nominal in (-1, 1)]
    np.testing.assert_allclose(sorted(ends), (low, high), atol=0.1)


def test_a_servo_of_which_nothing_tells_a_range_moves_about_its_home_pose(tmp_path):
    free = 'axis="0 1 0" damping="0.5"'
    key = '<keyframe><key name="home" qpos="0 2.5"/></keyframe>'
    text = arm('<position joint="elbow" kp="40" kv="4"/>', elbow=free, last=key)
    with pytest.warns(UserWarning, match="'?0'? has no control range.*about 2.5") as caught:
        body = load(tmp_path, text, quiet=False)
        path, _ = run(body, [0], 50)
    assert len(caught) == 1, "said once"
    np.testing.assert_allclose(path[:, at(body, "elbow")], 2.5, atol=1e-6)
    assert run(body, [-1], 80)[0][-1, at(body, "elbow")] == pytest.approx(1.5, abs=0.05)


def test_a_force_limited_motor_without_a_control_range_spans_its_force(tmp_path):
    motor = '<general joint="elbow" gainprm="4" forcerange="-6 6" gear="2"/>'
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        body = load(tmp_path, arm(motor), quiet=False)
        _, env = run(body, [1], 1)
    assert env._blocks[0].batch.ctrl[0, 0] == pytest.approx(1.5)
    assert settled(body, np.zeros(2), 99).qfrc_actuator[1] == pytest.approx(12)
    assert physical(observed(env, *random_state(body, 0)), "strength").max() == pytest.approx(12)


def test_a_velocity_servo_turns_at_the_speed_that_is_asked_for(tmp_path):
    body = load(tmp_path, arm('<velocity joint="elbow" kv="50" ctrlrange="-2 2"/>'))
    path, env = run(body, [0.5], 20)
    speed = (path[-1] - path[-2])[1] / env.step_duration
    assert speed == pytest.approx(1.0, rel=0.05)
    seen = observed(env, *random_state(body, 0))
    assert physical(seen, "velocity_gain").max() == pytest.approx(50)
    assert physical(seen, "position_gain").max() == 0


def test_the_state_of_a_filter_is_observed(tmp_path):
    motor = '<general joint="elbow" dyntype="filterexact" dynprm="0.1" gainprm="3" ctrlrange="-1 1"/>'
    other = '<motor joint="shoulder" ctrlrange="-1 1"/>'
    body = load(tmp_path, arm(other + motor))
    env = one_row(body, STILL)
    limb, row = (a[1] for a in action_places(body))
    last = 0.0
    for step in range(1, 6):
        seen = env.step(placed(body, np.array([0.3, 1.0])))[0]
        seen = {name: value[0] for name, value in seen.items()}
        now = joint(seen, "activation")[limb, row, 0]
        assert now == pytest.approx(1 - np.exp(-step * env.step_duration / 0.1), rel=1e-4) and now > last
        last = now
    assert np.count_nonzero(joint(seen, "activation")) == 1
    assert physical(seen, "lag")[limb, row, 0] == pytest.approx(0.1)


def test_a_muscle_pulls_between_slack_and_full_activation(tmp_path):
    flexor = '<muscle joint="elbow" gear="1" force="200"/>'
    body = load(tmp_path, arm(flexor + '<muscle joint="elbow" gear="-1" force="200"/>'))
    _, env = run(body, [-1, 1], 40)
    batch = env._blocks[0].batch
    np.testing.assert_allclose(batch.ctrl[0], [0, 1])
    np.testing.assert_allclose(batch.act[0], [0, 1], atol=0.02)
    seen = {name: value[0].numpy() for name, value in env._observe().items()}
    limb, rows = action_places(body)
    np.testing.assert_allclose(joint(seen, "activation")[limb, rows, 0], batch.act[0], **CLOSE)
    strength = physical(seen, "strength")[limb, rows, 0]
    np.testing.assert_allclose(np.abs(strength), 200, rtol=1e-5)
    assert strength[0] == -strength[1], "antagonists on one joint are told apart"
    torque = [settled_muscle(body, i) for i in range(2)]
    np.testing.assert_array_equal(np.sign(strength), np.sign(torque))


def settled_muscle(body, active):
    data = mujoco.MjData(body.model)
    data.qpos[at(body, "elbow")] = 1.0
    data.act[active] = 1
    mujoco.mj_forward(body.model, data)
    return data.qfrc_actuator[int(body.model.joint("elbow").dofadr[0])] - passive(body)


def passive(body):
    data = mujoco.MjData(body.model)
    data.qpos[at(body, "elbow")] = 1.0
    mujoco.mj_forward(body.model, data)
    return data.qfrc_actuator[int(body.model.joint("elbow").dofadr[0])]


CABLES = """
<tendon>
  <spatial name="short"><site site="biceps"/><site site="wrist"/></spatial>
  <spatial name="long"><site site="above"/><site site="wrist"/></spatial>
  <spatial name="upper"><site site="above"/><site site="biceps"/></spatial>
  <fixed name="coupled"><joint joint="shoulder" coef="2"/><joint joint="elbow" coef="-1"/></fixed>
</tendon>
<keyframe><key name="home" qpos="0.2 0.5"/></keyframe>
"""


def test_a_tendons_row_is_on_the_outermost_limb_that_it_moves_and_shows_its_length(tmp_path):
    motors = [
        f'<motor tendon="{name}" gear="{gear}" ctrlrange="-1 1"/>'
        for name, gear in (("short", 3), ("long", -2), ("upper", 1), ("coupled", 4))
    ]
    body = load(tmp_path, arm("".join(motors), last=CABLES))
    assert [limb_of(body, i) for i in range(4)] == ["fore", "fore", "upper", "fore"]
    home = settled(body, body.initial_qpos, 0).actuator_length.copy()
    limb, rows = action_places(body)
    env = one_row(body)
    for seed in range(3):
        qpos, qvel = random_state(body, seed)
        seen = observed(env, qpos, qvel)
        data = mujoco.MjData(body.model)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(body.model, data)
        lengths = [3 * data.tendon("short").length[0], -2 * data.tendon("long").length[0]]
        np.testing.assert_allclose(data.actuator_length[:2], lengths)
        np.testing.assert_allclose(joint(seen, "angle")[limb, rows, 0], data.actuator_length - home, **CLOSE)
        np.testing.assert_allclose(joint(seen, "speed")[limb, rows, 0], data.actuator_velocity, **CLOSE)
    assert (joint(seen, "is_transmission")[limb, rows, 0] == 1).all()
    # Hinges keep rows of their own, which nothing drives.
    assert seen["joint_mask"].sum() == 6 and seen["action_mask"].sum() == 4


def test_antagonistic_cables_are_told_apart_before_they_move(tmp_path):
    guts = """<tendon>
      <fixed name="flexor"><joint joint="elbow" coef="0.02"/></fixed>
      <fixed name="extensor"><joint joint="elbow" coef="-0.02"/></fixed>
    </tendon>"""
    pull = '<motor tendon="{}" ctrlrange="-9 0"/>'
    body = load(tmp_path, arm(pull.format("flexor") + pull.format("extensor"), last=guts))
    seen = observed(one_row(body), body.initial_qpos, np.zeros(2))
    limb, rows = action_places(body)
    flexor, extensor = joint(seen, "axis")[limb, rows]
    np.testing.assert_allclose(flexor, [0, 1, 0], **CLOSE)
    np.testing.assert_allclose(extensor, [0, -1, 0], **CLOSE)


DRONE = walker(
    '<geom type="plane" size="5 5 1"/>',
    1.0,
    trunk="mass='1'",
    shin='<site name="rotor" pos="0.1 0.2 0.3" euler="20 30 40"/>',
    hip='pos="0.02 0 0.01"',
    actuators='<motor joint="hip" ctrlrange="-1 1"/>'
    '<motor name="thrust" site="mount" gear="0 3 4 0 0 0" ctrlrange="0 2"/>'
    '<motor name="spin" site="mount" gear="0 0 0 0 0 2" ctrlrange="-1 1"/>'
    '<motor name="blade" site="rotor" gear="1 0 0 0 0 0" ctrlrange="0 1"/>',
).replace('<body name="leg"', '<site name="mount" pos="0.1 -0.2 0.05" euler="70 10 -30"/><body name="leg"')


def test_a_thruster_of_a_drone_pushes_along_its_axis_at_its_anchor(tmp_path):
    body = load(tmp_path, DRONE)
    assert [limb_of(body, i) for i in range(4)] == ["leg", "trunk", "trunk", "leg"]
    limb, rows = action_places(body)
    env = one_row(body)
    for seed in range(3):
        qpos, _ = random_state(body, seed)
        seen = observed(env, qpos, np.zeros(body.model.nv))
        turn = Rotation.from_quat(qpos[3:7], scalar_first=True)
        push = settled(body, qpos, [0, 1, 0, 0]).qfrc_actuator[:6]
        axis = joint(seen, "axis")[limb, rows][1]
        np.testing.assert_allclose(turn.apply(axis) * 5, push[:3], **CLOSE)
        anchor = physical(seen, "anchor")[limb, rows][1]
        np.testing.assert_allclose(np.cross(anchor, 5 * axis), push[3:], **CLOSE)
        np.testing.assert_allclose(anchor, [0.1, -0.2, 0.05], **CLOSE)
        spin = settled(body, qpos, [0, 0, 1, 0]).qfrc_actuator[:6]
        np.testing.assert_allclose(joint(seen, "axis")[limb, rows][2] * 2, spin[3:], **CLOSE)
        np.testing.assert_array_equal(joint(seen, "is_rotation")[limb, rows, 0], [1, 0, 1, 0])
        np.testing.assert_allclose(physical(seen, "strength")[limb, rows, 0][1:3], [5, 2], **CLOSE)


def test_a_thruster_on_a_spinning_rotor_belongs_to_the_rotor(tmp_path):
    rotors = "".join(
        f'<body name="rotor{i}" pos="{0.3 * x} {0.3 * y} 0.1"><joint name="spin{i}" axis="0 0 1"/>'
        f'<geom type="cylinder" size="0.1 0.01"/><site name="hub{i}"/></body>'
        for i, (x, y) in enumerate([(1, 1), (1, -1), (-1, 1), (-1, -1)])
    )
    lift = "".join(f'<motor site="hub{i}" gear="0 0 1 0 0 0" ctrlrange="0 9"/>' for i in range(4))
    text = walker(actuators=lift).replace('<body name="leg"', rotors + '<body name="leg"')
    body = load(tmp_path, text)
    assert [limb_of(body, i) for i in range(4)] == [f"rotor{i}" for i in range(4)]
    seen = observed(one_row(body), body.initial_qpos, np.zeros(body.model.nv))
    np.testing.assert_allclose(joint(seen, "axis")[action_places(body)], [[0, 0, 1]] * 4, **CLOSE)


def test_adhesion_belongs_to_its_body_and_sticks_between_0_and_its_range(tmp_path):
    grip = '<adhesion body="leg" ctrlrange="0 3" gain="100"/><motor joint="hip" ctrlrange="-1 1"/>'
    body = load(tmp_path, walker('<geom type="plane" size="5 5 1"/>', actuators=grip))
    assert limb_of(body, 0) == "leg"
    for nominal, control in ((-1, 0), (1, 3)):
        _, env = run(body, [nominal, 0], 1)
        assert env._blocks[0].batch.ctrl[0, 0] == control
    seen = observed(env, *random_state(body, 0))
    assert np.isfinite(seen["joints"]).all()


@pytest.mark.parametrize("kind", ["joint", "jointinparent"])
def test_motors_on_a_ball_joint_turn_about_their_axes(tmp_path, kind):
    motors = "".join(
        f'<motor {kind}="elbow" gear="{gear}" ctrlrange="-1 1"/>' for gear in ("5 0 0", "0 5 0", "3 0 4")
    )
    body = load(tmp_path, arm(motors, elbow='type="ball" pos="0.01 0 0"'))
    assert [limb_of(body, i) for i in range(3)] == ["fore"] * 3
    seen = observed(one_row(body), body.initial_qpos, np.zeros(body.model.nv))
    assert seen["joint_mask"].sum() == 3 + 3 + 1 and seen["action_mask"].sum() == 3
    dof = int(body.model.joint("elbow").dofadr[0])
    limb, rows = action_places(body)
    for index, axis in enumerate(joint(seen, "axis")[limb, rows]):
        torque = settled(body, body.initial_qpos, np.eye(3)[index]).qfrc_actuator[dof : dof + 3]
        np.testing.assert_allclose(5 * axis, torque, **CLOSE)
    np.testing.assert_array_equal(joint(seen, "is_rotation")[limb, rows, 0], 1)


@pytest.mark.parametrize("kind", ["joint", "jointinparent"])
def test_motors_on_a_free_joint_push_and_turn_the_root(tmp_path, kind):
    motors = "".join(
        f'<motor {kind}="free" gear="{gear}" ctrlrange="-1 1"/>' for gear in ("0 3 4 0 0 0", "0 0 0 5 0 0")
    )
    text = walker('<geom type="plane" size="5 5 1"/>', actuators=motors)
    text = text.replace('name="trunk" pos', 'name="trunk" euler="0 0 70" pos')
    body = load(tmp_path, text)
    assert [limb_of(body, i) for i in range(2)] == ["trunk"] * 2
    seen = observed(one_row(body), body.initial_qpos, np.zeros(body.model.nv))
    limb, rows = action_places(body)
    axes = joint(seen, "axis")[limb, rows]
    turn = Rotation.from_quat(body.initial_qpos[3:7], scalar_first=True)
    push = settled(body, body.initial_qpos, [1, 0]).qfrc_actuator[:3]
    np.testing.assert_allclose(5 * turn.apply(axes[0]), push, **CLOSE)
    torque = settled(body, body.initial_qpos, [0, 1]).qfrc_actuator[3:6]
    np.testing.assert_allclose(5 * axes[1], torque, **CLOSE)


def test_a_hand_that_is_moved_along_a_reference_site_has_an_axis_for_each_direction(tmp_path):
    moves = "".join(
        f'<motor site="wrist" refsite="above" gear="{gear} 0 0 0" ctrlrange="-1 1"/>'
        for gear in ("1 0 0", "0 0 1")
    )
    body = load(tmp_path, arm(moves))
    assert [limb_of(body, i) for i in range(2)] == ["fore"] * 2
    seen = observed(one_row(body), np.zeros(2), np.zeros(2))
    limb, rows = action_places(body)
    np.testing.assert_allclose(joint(seen, "axis")[limb, rows], [[1, 0, 0], [0, 0, 1]], **CLOSE)
    np.testing.assert_allclose(physical(seen, "anchor")[limb, rows], [[0.3, 0, 0]] * 2, **CLOSE)


def test_several_actuators_of_one_joint_have_rows_with_its_state(tmp_path):
    both = '<motor joint="elbow" gear="4" ctrlrange="-1 1"/><position joint="elbow" kp="30"/>'
    body = load(tmp_path, arm(both + '<velocity joint="elbow" kv="2" ctrlrange="-3 3"/>'))
    limb, rows = action_places(body)
    assert len(set(zip(limb, rows, strict=True))) == 3 and len(set(limb)) == 1
    seen = observed(one_row(body), np.array([0.1, 0.7]), np.array([0.2, -0.4]))
    np.testing.assert_allclose(joint(seen, "angle")[limb, rows, 0], 0.7, **CLOSE)
    np.testing.assert_allclose(joint(seen, "speed")[limb, rows, 0], -0.4, **CLOSE)
    np.testing.assert_allclose(physical(seen, "position_gain")[limb, rows, 0], [0, 30, 0], **CLOSE)
    env = one_row(body, STILL)
    env.step(placed(body, np.array([0.5, 0, -1.0])))
    np.testing.assert_allclose(env._blocks[0].batch.ctrl[0], [0.5, 0, -3])


def test_actuators_without_a_range_are_told_of_in_one_line_for_each_kind(tmp_path):
    kinds = '<motor name="{0}" joint="elbow"/><position name="servo_{0}" joint="shoulder" kp="40" kv="4"/>'
    free = 'axis="0 1 0" damping="0.5"'
    text = arm("".join(kinds.format(name) for name in "abcdefgh"), shoulder=free)
    with pytest.warns(UserWarning) as caught:
        _ = load(tmp_path, text, quiet=False).controls
    motors, servos = sorted(str(warning.message) for warning in caught)
    assert motors.startswith("8 actuators ('a', 'b', 'c', 'd', 'e' and 3 more) have no control range")
    assert "'servo_a'" in servos and servos.endswith("about those that hold the home pose")
