"""Robots from a file alone: the ground they start on, and the pose they start in."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion import LocomotionTask, RobotSet
from somite.envs.locomotion.bodies.families import build
from somite.envs.locomotion.bodies.user_bodies import CompileGuard
from somite.envs.task_set import task_set_of

from ..helpers import SAMPLED, observed, one_row, token
from ..user_robots import arm, load, walker

PLANE = '<geom name="floor" type="plane" size="1 1 1" pos="{}"/>'
FOOT = 0.38


@pytest.fixture(autouse=True)
def unguarded(monkeypatch):
    """Files are compiled in this process alone: what the guard refuses is tested in `test_mjcf_files`."""
    monkeypatch.setattr(CompileGuard, "check", lambda self, path: None)


def still(body, steps=25):
    """Whether the body lives through ``steps`` at rest without an action."""
    env = one_row(body, LocomotionTask(reset_noise=0, reset_speed_noise=0, relative_height=(0.5, 3.0)))
    return not any(env.step(np.zeros(env.action_space.shape))[2][0] for _ in range(steps))


def lowest(body):
    """The robot's lowest point at its start by MuJoCo's own distances, from a plane far below."""
    spec = body.spec()
    spec.worldbody.add_geom(
        name="far below", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 1], pos=[0, 0, -9]
    )
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:] = body.initial_qpos
    mujoco.mj_forward(model, data)
    plane, line = model.geom("far below").id, np.zeros(6)
    names = ("trunk", "leg")
    return min(mujoco.mj_geomDistance(model, data, plane, model.geom(n).id, 99, line) for n in names) - 9


@pytest.mark.parametrize(
    ("trunk", "leg"), [((1, 1), (1, 1)), ((2, 0), (0, 4)), ((0, 8), (16, 32)), ((3, 0), (0, 0))]
)
def test_a_robot_without_a_floor_gets_one_that_every_colliding_geom_touches(tmp_path, trunk, leg):
    bits = [f'contype="{a}" conaffinity="{b}"' for a, b in (trunk, leg)]
    body = load(tmp_path, walker(height=3.0, trunk=bits[0], leg=bits[1]))
    model, data = body.model, mujoco.MjData(body.model)
    assert any("floor was added" in note for note in body.notes)
    (floor,) = np.flatnonzero(model.geom_type == int(mujoco.mjtGeom.mjGEOM_PLANE))
    bottom = 3.0 - (FOOT if any(leg) else 0.05)
    assert model.geom_pos[floor, 2] == body.ground == pytest.approx(bottom)
    np.testing.assert_allclose(body.initial_qpos[:3], [0, 0, 3.0])  # it starts where the file says
    data.qpos[:] = body.initial_qpos
    data.qpos[2] -= 1.0  # all of it below the floor
    mujoco.mj_forward(model, data)
    touching = {int(g) for pair in data.contact.geom for g in pair if floor in pair} - {int(floor)}
    assert {model.geom(g).name for g in touching} == {
        n for n, b in (("trunk", trunk), ("leg", leg)) if any(b)
    }
    assert still(load(tmp_path, walker(hip='range="-1 1"')))


def test_objects_of_the_scene_lie_on_the_added_floor(tmp_path):
    ball = (
        '<body name="ball" pos="2 0 0.3"><freejoint/><geom size="0.1" contype="64" conaffinity="0"/></body>'
    )
    body = load(tmp_path, walker(scene=ball))
    data = mujoco.MjData(body.model)
    mujoco.mj_step(body.model, data, 1000)
    assert data.body("ball").xpos[2] == pytest.approx(body.ground + 0.1, abs=0.01)


@pytest.mark.parametrize("height", [1.2, 1.38, 4.0])
def test_a_robot_is_put_onto_its_own_floor_and_its_heights_are_above_that(tmp_path, height):
    body = load(tmp_path, walker(PLANE.format("0 0 1"), height))
    assert body.ground == 1.0 and lowest(body) == pytest.approx(1.0, abs=1e-6)
    assert not any("floor was added" in note for note in body.notes)
    said = [note for note in body.notes if "onto the ground" in note]
    assert [("raised" in note, "lowered" in note) for note in said] == (
        {1.2: [(True, False)], 1.38: [], 4.0: [(False, True)]}[height]
    )
    seen = observed(one_row(body), body.initial_qpos, np.zeros(body.model.nv))
    np.testing.assert_allclose(token(seen, "height")[:, 0], [FOOT, FOOT - 0.05], atol=1e-6)
    assert body.standing_height == pytest.approx(FOOT) and still(load(tmp_path, walker(hip='range="-1 1"')))


def test_a_floor_is_there_where_it_is_not_drawn(tmp_path):
    body = load(tmp_path, walker(PLANE.format("50 0 0.2")))
    assert body.ground == 0.2 and not any("floor was added" in note for note in body.notes)
    # Negative control: what lies beside the robot and ends there is no ground.
    body = load(tmp_path, walker('<geom type="box" size="1 1 0.1" pos="50 0 0.1"/>'))
    assert any("floor was added" in note for note in body.notes)


def test_a_plane_that_nothing_touches_is_no_floor(tmp_path):
    drawn = '<geom type="plane" size="1 1 1" pos="0 0 -1" contype="0" conaffinity="0"/>'
    body = load(tmp_path, walker(drawn))
    assert body.ground == pytest.approx(0.0) and any("floor was added" in note for note in body.notes)


def test_terrain_below_the_robot_is_its_ground(tmp_path):
    hill = '<asset><hfield name="hill" nrow="2" ncol="2" size="5 5 2 0.1" elevation="0 0 1 1"/></asset>'
    body = load(tmp_path, walker('<geom type="hfield" hfield="hill"/>', 5.0, first=hill))
    assert body.ground == pytest.approx(1.0, abs=1e-3)  # half way up
    assert lowest(body) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("below", ["", PLANE.format("0 0 0")])
def test_a_table_is_the_ground_of_what_stands_on_it(tmp_path, below):
    table = '<body pos="0 0 0.6"><geom type="box" size="0.5 0.5 0.1"/></body>' + below
    body = load(tmp_path, walker(table, 0.7 + FOOT))
    assert body.ground == pytest.approx(0.7) and lowest(body) == pytest.approx(0.7)


def test_an_object_under_the_robot_is_no_ground(tmp_path):
    ball = '<body name="ball" pos="0 0 0.1"><freejoint/><geom size="0.1"/></body>' + PLANE.format("0 0 0")
    assert load(tmp_path, walker(ball, 0.3 + FOOT)).ground == 0.0


def test_the_ground_under_a_fixed_arm_is_below_its_own_base(tmp_path):
    body = load(tmp_path, arm('<motor joint="elbow" ctrlrange="-1 1"/>'))
    assert body.ground == 0.0 and not body.can_travel
    without = arm('<motor joint="elbow" ctrlrange="-1 1"/>').replace(
        '<geom name="floor" type="plane"', "<site"
    )
    body = load(tmp_path, without.replace('<site size="1 1 1"/>', ""))
    assert not any("floor was added" in note for note in body.notes), "nothing of it can fall"


WATER, WEIGHTLESS, NO_GRAVITY = (
    '<option density="1000" viscosity="0.001"/>',
    '<option gravity="0 0 0"/>',
    '<option><flag gravity="disable"/></option>',
)


@pytest.mark.parametrize("option", [WATER, WEIGHTLESS, NO_GRAVITY])
@pytest.mark.parametrize("scene", ["", PLANE.format("0 0 0")])
def test_what_swims_or_floats_is_left_where_it_is_and_does_not_fall(tmp_path, option, scene):
    body = load(tmp_path, walker(scene, 1.0, first=option))
    assert body.initial_qpos[2] == 1.0 and not any("onto the ground" in note for note in body.notes)
    assert not any("floor was added" in note for note in body.notes)
    task = LocomotionTask(relative_height=(0.5, 3.0), max_tilt=1.2)
    env = one_row(body, task)
    for height in (1.0, 5.0, 0.45):
        qpos = body.initial_qpos.copy()
        qpos[2:7] = [height, 0, 1, 0, 0]  # upside down
        env.set_state(0, qpos, np.zeros(body.model.nv))
        assert not env.step(np.zeros(env.action_space.shape))[2][0], height


def test_what_walks_in_air_stands_on_the_ground(tmp_path):
    body = load(tmp_path, walker(PLANE.format("0 0 0"), 1.0, first='<option density="1.2"/>'))
    assert lowest(body) == pytest.approx(0.0, abs=1e-6) and body.can_fall


def key(name, height, hip=0.3, more=""):
    return f'<key name="{name}" qpos="0 0 {height} 1 0 0 0 {hip}" {more}/>'


def frames(*keys):
    return "<keyframe>" + "".join(keys) + "</keyframe>"


@pytest.mark.parametrize(
    ("keys", "hip", "said"),
    [
        ([key("crouch", FOOT, 0.3)], 0.3, "'crouch'"),
        ([key("jump", FOOT, 0.1), key("Home", FOOT, 0.2)], 0.2, "'Home'"),
        ([key("stand", FOOT, 0.1), key("home", FOOT, 0.2)], 0.2, "'home'"),  # the word that comes first
        ([key("jump", FOOT, 0.1), key("sit", FOOT, 0.2)], 0.0, "none of the"),
    ],
)
def test_the_home_pose_is_a_keyframe(tmp_path, keys, hip, said):
    body = load(tmp_path, walker(PLANE.format("0 0 0"), last=frames(*keys)))
    assert body.initial_qpos[7] == pytest.approx(hip)
    assert any(said in note for note in body.notes)
    env = one_row(body, LocomotionTask(reset_noise=0, reset_speed_noise=0))
    np.testing.assert_array_equal(env.get_state(0)[0], body.initial_qpos)


def test_a_pose_outside_of_a_joints_range_starts_at_its_end(tmp_path):
    body = load(tmp_path, walker(hip='range="20 60"'))
    assert body.initial_qpos[7] == pytest.approx(np.deg2rad(20))
    assert any("qpos0 is outside" in note and "hip" in note for note in body.notes)
    # What is no part of the robot starts as the file says.
    door = '<body pos="5 0 1"><joint name="door" range="20 60"/><geom size="0.1"/></body>'
    body = load(tmp_path, walker(door))
    assert body.initial_qpos[body.model.joint("door").qposadr[0]] == 0


def test_a_keyframe_gives_controls_and_activations(tmp_path):
    servo = (
        '<general joint="hip" gainprm="30" biastype="affine" biasprm="0 -30 -2" ctrlrange="-1 1" '
        'dyntype="filterexact" dynprm="0.05"/>'
    )
    home = frames(key("home", 1.0, 0.3, 'ctrl="0.25" act="0.2"'))
    body = load(tmp_path, walker(PLANE.format("0 0 0"), actuators=servo, last=home))
    env = one_row(body)
    batch = env._blocks[0].batch
    assert batch.act[0] == pytest.approx(0.2)
    env.step(np.zeros(env.action_space.shape))
    assert batch.ctrl[0] == pytest.approx(0.25)
    assert body.initial_qpos[2] == 1.0, "a keyframe in the air is meant"
    for _ in range(50):
        env.step(np.zeros(env.action_space.shape))
    env.reset()
    assert batch.act[0] == pytest.approx(0.2), "and so after every reset"


KEYS = frames(key("home", FOOT, 0.1), key("", FOOT, 0.2), key("Sit", FOOT, 0.3))


@pytest.fixture
def posed(tmp_path):
    path = tmp_path / "robot.xml"
    path.write_text(walker(PLANE.format("0 0 0"), last=KEYS))
    return path


@pytest.mark.parametrize(("keyframe", "hip"), [(None, 0.1), ("Sit", 0.3), (1, 0.2), ("1", 0.2), (2, 0.3)])
def test_the_keyframe_that_is_asked_for_is_the_start_also_of_what_is_saved(posed, keyframe, hip):
    target = "somite.envs.locomotion.RobotSet"
    saved = {"_target_": target, "morphology": str(posed), "keyframe": keyframe}
    bodies = task_set_of(saved)
    assert bodies.morphology("robot").initial_qpos[7] == pytest.approx(hip)


@pytest.mark.parametrize(
    ("keyframe", "said"),
    [
        (
            "Sitt",
            "it has no keyframe 'Sitt'; did you mean 'Sit'? choices: 1, Sit, home; or a number from 0 to 2",
        ),
        (3, "no keyframe 3; "),
        (-1, "env.keyframe must be a text, a whole number of 0 or more, or null, got -1"),
        (True, "got true"),
        (0.5, "got 0.5"),
    ],
)
def test_a_keyframe_that_is_not_there_is_told_with_the_choices(posed, keyframe, said):
    with pytest.raises(UserError) as error:
        RobotSet(str(posed), keyframe=keyframe)
    assert said in str(error.value)


def test_a_robot_without_keyframes_says_so(tmp_path):
    (tmp_path / "robot.xml").write_text(walker())
    with pytest.raises(UserError, match="it has no keyframe, so none that env.keyframe=home could mean"):
        RobotSet(str(tmp_path), keyframe="home")


def option(text):
    return walker(PLANE.format("0 0 0"), first=f"<option {text}/>")


def driven(actuator, **more):
    return walker(PLANE.format("0 0 0"), actuators=actuator, **more)


BALL = '<body name="ball" pos="0 0 -0.3"><joint name="ball" type="ball" {}/><geom size="0.03"/></body>'
CORD = '<tendon><fixed name="cord" {}><joint joint="hip" coef="1"/></fixed></tendon>'
TWO = '<motor joint="shoulder" ctrlrange="-1 1"/><motor joint="elbow" ctrlrange="-1 1"/>'
ENDLESS = {
    "hinge": walker(hip='limited="true" range="-inf inf"'),
    "hinge, huge": walker(hip='limited="true" range="-1e300 1e300"'),
    "hinge, one end": walker(hip='limited="true" range="-1 inf"'),
    "hinge, the other end": walker(hip='limited="true" range="-1e12 1"'),
    "ball": walker(shin=BALL.format('limited="true" range="0 inf"')),
    "locked ball": walker(shin=BALL.format('limited="true" range="0 0"')),
    "fixed root": arm(TWO, shoulder='axis="0 1 0" limited="true" range="-inf inf" damping="0.5"'),
    "slide on a fixed root": arm(TWO, shoulder='type="slide" axis="0 0 1" limited="true" range="0 inf"'),
    "control": driven('<motor joint="hip" ctrllimited="true" ctrlrange="-inf inf"/>'),
    "control, one end": driven('<motor joint="hip" ctrllimited="true" ctrlrange="0 inf"/>'),
    "control, huge": driven('<motor joint="hip" ctrlrange="-1e30 1e30"/>'),
    "servo of an endless joint": driven(
        '<position joint="hip" kp="9"/>', hip='limited="true" range="-inf inf"'
    ),
    "force": driven('<motor joint="hip" forcelimited="true" forcerange="-inf inf"/>'),
    "force, huge": driven('<motor joint="hip" ctrlrange="-1 1" forcerange="-1e300 1e300"/>'),
    "no gear": driven('<motor joint="hip" gear="0" ctrlrange="-1 1"/>'),
    "tendon": driven('<position tendon="cord" kp="1"/>', last=CORD.format('limited="true" range="-inf inf"')),
    "no weight": option('gravity="0 0 0"'),
    "a keyframe that is not the start": walker(
        last='<keyframe><key name="home"/><key name="other" qpos="nan 0 1 1 0 0 0 0"/></keyframe>'
    ),
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=list(ENDLESS))
def test_numbers_that_mean_no_limit_leave_features_and_actions_finite(tmp_path, text):
    body = load(tmp_path, text)
    env = one_row(body)
    assert np.isfinite(body.controls.half).all() and body.controls.half.max() < 100
    for value in (*env.step(np.ones(env.action_space.shape))[0].values(), env._goals.target[:, :0].numpy()):
        assert np.isfinite(value).all() and (np.abs(value) < 1e4).all()
    assert not env.step(np.ones(env.action_space.shape))[4]["diverged"].any()
    env.close()


def at_home(text):
    return walker(last=f'<keyframe><key name="home" {text}/></keyframe>')


MEANINGLESS = {
    "range": (walker(hip='limited="true" range="nan 1"'), "joint 'hip': range is nan 0.0174533"),
    "gear": (driven('<motor joint="hip" gear="inf" ctrlrange="-1 1"/>'), "actuator 0: gear is inf"),
    "gear, huge": (
        driven('<motor name="m" joint="hip" gear="1e12" ctrlrange="-1 1"/>'),
        "actuator 'm': gear, gain, ctrlrange or forcerange gives a strength of 1e+10",
    ),
    "gain": (driven('<position joint="hip" kp="1e300" ctrlrange="-1 1"/>'), "actuator 0: gainprm (kp"),
    "filter": (
        driven('<general joint="hip" dyntype="filter" dynprm="inf" ctrlrange="-1 1"/>'),
        "actuator 0: dynprm (timeconst) is inf",
    ),
    "damping": (walker(hip='damping="inf"'), "joint 'hip': damping is inf"),
    "damping below 0": (walker(hip='damping="-1"'), "joint 'hip': damping is -1; it is not below 0"),
    "armature below 0": (walker(hip='armature="-1"'), "joint 'hip': armature is -1"),
    "frictionloss below 0": (walker(hip='frictionloss="-1"'), "joint 'hip': frictionloss is -1"),
    "friction below 0": (walker(leg='friction="-1"'), "geom 'leg': friction is -1"),
    "tendon's damping below 0": (
        driven('<motor tendon="cord"/>', last=CORD.format('damping="-1"')),
        "tendon 'cord': damping is -1",
    ),
    "inertial mass below 0": (
        walker(shin='<body name="foot"><inertial pos="0 0 0" mass="-1" diaginertia="1 1 1"/></body>'),
        "body 'foot': mass of its inertial is -1",
    ),
    "inertia below 0": (
        walker(shin='<body name="foot"><inertial pos="0 0 0" mass="1" diaginertia="-1 1 1"/></body>'),
        "body 'foot': diaginertia of its inertial is -1 1 1",
    ),
    "filter without a time": (
        driven('<general joint="hip" dyntype="filter" dynprm="0" ctrlrange="-1 1"/>'),
        "actuator 0: dynprm (timeconst) is 0; the time constant of a filter is above 0 s",
    ),
    "armature": (walker(hip='armature="1e300"'), "joint 'hip': armature is 1e+300"),
    "springref": (walker(hip='stiffness="1" springref="inf"'), "joint 'hip': springref is inf"),
    "friction": (walker(leg='friction="1e300"'), "geom 'leg': friction is 1e+300"),
    "mass": (walker(leg='mass="1e30"'), "body 'leg': mass is 1e+30"),
    "mass, large": (walker(leg='mass="1e9"'), "limb 'leg': mass gives a mass of 1e+09"),
    "size": (walker(shin='<geom size="1e7" mass="1e-9"/>'), "limb 'leg': size of its geoms gives a size of"),
    "place": (walker(trunk='pos="nan 0 0" mass="1"'), "geom 'trunk': pos is nan"),
    "tendon": (
        driven('<motor tendon="cord" ctrlrange="-1 1"/>', last=CORD.format('damping="inf"')),
        "tendon 'cord': damping is inf",
    ),
    "keyframe": (at_home('qpos="nan 0 1 1 0 0 0 0"'), "keyframe 'home': qpos is nan 0 1"),
    "controls of a keyframe": (at_home('ctrl="inf"'), "keyframe 'home': ctrl is inf"),
    "timestep 0": (option('timestep="0"'), "option timestep is 0"),
    "timestep, negative": (option('timestep="-1e-3"'), "option timestep is -0.001"),
    "timestep, infinite": (option('timestep="inf"'), "option timestep is inf"),
    "gravity": (option('gravity="0 0 nan"'), "option: gravity is 0 0 nan"),
}


@pytest.mark.parametrize(("text", "said"), MEANINGLESS.values(), ids=list(MEANINGLESS))
def test_a_number_that_cannot_be_simulated_is_told_with_its_element_and_attribute(tmp_path, text, said):
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'robot.xml'}: ") and said in str(error.value)


def test_a_robot_that_diverges_under_random_actions_says_so(tmp_path):
    filtered = '<general joint="hip" dyntype="filter" dynprm="{}" ctrlrange="-1 1"/>'
    notes = [" ".join(load(tmp_path, driven(filtered.format(time))).notes) for time in (1e-9, 0.1)]
    assert ["diverges within 0.2 s of random actions" in note for note in notes] == [True, False]


def test_of_a_control_range_with_one_end_that_end_holds(tmp_path):
    def controls(attributes):
        found = load(tmp_path, driven(f'<motor joint="hip" ctrllimited="true" {attributes}/>')).controls
        return float(found.low[0]), float(found.high[0])

    assert controls('ctrlrange="0 inf"') == (0, 1)
    assert controls('ctrlrange="5 inf"') == (5, 7)
    assert controls('ctrlrange="-inf -2" forcelimited="true" forcerange="-9 9"') == (-9, -2)


LOW = """
<mujoco>
  <worldbody>
    {floor}
    <body pos="0 0 0.02">
      <freejoint/>
      <geom type="box" size="{long} 0.15 0.1" pos="0 0 0.14" mass="5"/>
      <geom size="0.03" pos="0.15 0 0.01"/>
      <geom size="0.03" pos="-0.15 0 0.01"/>
      <body pos="0 0.17 0.03">
        <joint name="left" axis="0 1 0"/><geom type="cylinder" size="0.05 0.02" euler="90 0 0"/>
      </body>
      <body pos="0 -0.17 0.03">
        <joint name="right" axis="0 1 0"/><geom type="cylinder" size="0.05 0.02" euler="90 0 0"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <velocity joint="left" kv="1" ctrlrange="-5 5"/><velocity joint="right" kv="1" ctrlrange="-5 5"/>
  </actuator>
</mujoco>
"""


@pytest.mark.parametrize("long", [0.2, 2.0])
def test_a_base_whose_root_lies_near_the_ground_does_not_fall(tmp_path, long):
    body = load(tmp_path, LOW.format(floor=PLANE.format("0 0 0"), long=long))
    assert body.standing_height < 0.1 < body.height_unit and still(body, 100)


def test_a_legged_body_falls_at_the_same_heights_as_before():
    task = LocomotionTask(relative_height=(0.64, 1.6))
    for name in SAMPLED:
        body = build(name)
        if not name.startswith(("ant", "swimmer", "centipede")):  # whose limits are absolute, or none
            stands = body.standing_height
            assert task.height_range(stands, body.height_unit) == (0.64 * stands, 1.6 * stands), name


FALLS = {
    "height": ({"relative_height": (0.9, 3)}, "not between 0.342 and 1.14 m (env.task.relative_height)"),
    "absolute height": ({"height": (0.35, 3)}, "not between 0.35 and 3 m (env.task.height)"),
    "tilt": ({"max_tilt": 0.01}, "rad, more than 0.01 (env.task.max_tilt)"),
    "state": ({"max_state": 0.1}, "more than 0.1 (env.task.max_state)"),
    "nothing": ({}, ""),
    "time": ({"max_episode_steps": 3}, ""),
    "time, at once": ({"max_episode_steps": 1}, ""),
}


ODD = {
    "range": (walker(hip='range="60 -60"'), "joint 'hip': range 60 -60 limits nothing"),
    "ctrlrange": (driven('<motor joint="hip" ctrlrange="1 -1"/>'), "actuator 0: ctrlrange 1 -1 limits"),
    "keyframe in the air": (
        walker(PLANE.format("0 0 0"), last='<keyframe><key qpos="0 0 1000 1 0 0 0 0"/></keyframe>'),
        "the start is 1e+03 m above the ground",
    ),
    "time step": (option('timestep="1e-9"'), "a step lasts 2.5e-08 s only, as option timestep is 1e-09 s"),
}


@pytest.mark.parametrize(("text", "said"), ODD.values(), ids=list(ODD))
def test_what_can_be_simulated_and_is_odd_is_noted(tmp_path, text, said):
    notes = load(tmp_path, text).notes + RobotSet(str(tmp_path / "robot.xml")).start_notes()
    assert sum(said in note for note in notes) == 1, notes


SOFT = """<flexcomp name="f" type="grid" count="3 3 3" spacing=".05 .05 .05" pos="0 0 .2" radius=".01" dim="3"
  mass=".5"><elasticity young="1e4"/><pin id="0 1 2"/></flexcomp>"""


def test_a_robot_with_a_soft_part_starts_in_its_shape(tmp_path):
    env = one_row(load(tmp_path, walker(PLANE.format("0 0 0"), root="<freejoint/>" + SOFT)))
    assert not env.step(np.zeros(env.action_space.shape))[4]["diverged"].any()
    env.close()


@pytest.mark.parametrize(("limits", "said"), FALLS.values(), ids=list(FALLS))
def test_what_ends_an_episode_at_action_0_is_said_with_its_key(tmp_path, limits, said):
    path = tmp_path / "robot.xml"
    path.write_text(walker(PLANE.format("0 0 0"), hip='range="-60 60"', trunk='pos="0.1 0 0"'))
    notes = RobotSet(str(path), task=LocomotionTask(**limits)).start_notes()
    assert [said in note and "robot: at action 0 an episode ends after" in note for note in notes] == [
        True
    ] * bool(said)
