"""What is told of a body, against a hand-made robot of which every number is known."""

from __future__ import annotations

import warnings

import mujoco
import numpy as np
import pytest

from somite.envs.locomotion import LIMB_SPEC, Morphology, build
from somite.envs.locomotion.bodies.mjcf import load_morphology
from somite.envs.locomotion.pictures.describe import actuator_kind, describe, start_tokens

ROBOT = """
<mujoco model="made by hand">
  <compiler angle="radian"/>
  <option timestep="0.004"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1"/>
    <body name="wall" pos="9 0 0"><geom type="box" size="1 1 1"/></body>
    <body name="ball" pos="3 0 1"><freejoint/><geom size="0.1"/></body>
    <body name="trunk" pos="0 0 1">
      <freejoint name="free"/>
      <geom type="box" size="0.2 0.1 0.05" mass="2"/>
      <body name="helmet" pos="0 0 0.1"><geom type="sphere" size="0.05" mass="0.5"/></body>
      <body name="arm" pos="0.2 0 0">
        <joint name="shoulder" type="ball" range="0 1.5" limited="true"/>
        <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.4"/>
        <site name="palm" pos="0.3 0 0"/>
      </body>
      <body name="leg" pos="-0.2 0 0">
        <joint name="hip" axis="0 1 0" range="-0.5 1"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.4" size="0.03" mass="0.7"/>
        <body name="foot" pos="0 0 -0.4">
          <joint name="ankle" axis="0 1 0"/>
          <joint name="toe" type="slide" axis="0 0 1" range="0 0.05"/>
          <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.03" mass="0.2"/>
          <site name="sole"/>
        </body>
      </body>
    </body>
  </worldbody>
  <tendon>
    <fixed name="calf" range="-2 2" limited="true">
      <joint joint="hip" coef="1"/>
      <joint joint="ankle" coef="-1"/>
    </fixed>
  </tendon>
  <actuator>
    <position name="hip_servo" joint="hip" kp="40" ctrlrange="-0.5 1" forcerange="-9 9"/>
    <motor name="pull" tendon="calf" gear="3" ctrlrange="-2 2"/>
    <velocity joint="toe" kv="5" ctrlrange="-1 1"/>
    <motor name="[bold]thrust[/]" site="palm" gear="0 0 10 0 0 0"/>
  </actuator>
  <sensor><accelerometer site="sole"/></sensor>
</mujoco>
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "robot.xml"
    path.write_text(ROBOT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return describe(load_morphology("robot", path), 5)


def test_limbs_have_parent_merged_bodies_mass_and_size(made):
    told = {limb.name: limb for limb in made.limbs}
    assert [limb.name for limb in made.limbs][0] == "trunk" and set(told) == {"trunk", "arm", "leg", "foot"}
    assert [told[name].parent for name in ("trunk", "arm", "leg", "foot")] == ["", "trunk", "trunk", "leg"]
    assert told["trunk"].merged == ("helmet",) and told["leg"].merged == ()
    assert told["trunk"].mass == pytest.approx(2.5) and made.mass == pytest.approx(3.8)
    np.testing.assert_allclose(told["trunk"].size, (0.4, 0.2, 0.2), atol=1e-6)
    np.testing.assert_allclose(told["foot"].size, (0.26, 0.06, 0.06), atol=1e-6)


def test_joint_rows_have_kind_range_and_what_drives_them(made):
    rows = {(row.name, row.kind): row for limb in made.limbs for row in limb.joints}
    assert {name for name, _ in rows} == {"shoulder", "hip", "ankle", "toe", "calf", "palm"}
    for axis in "xyz":
        row = rows["shoulder", f"ball {axis}"]
        assert row.limits == (-1.5, 1.5) and row.unit == "rad" and row.actuator is None
    hip = rows["hip", "hinge"]
    assert hip.limits == (-0.5, 1.0) and hip.unit == "rad"
    servo = hip.actuator
    assert (servo.name, servo.kind, servo.control, servo.control_unit) == (
        "hip_servo",
        "position servo",
        (-0.5, 1.0),
        "rad",
    )
    assert (servo.strength, servo.strength_unit) == (9.0, "N m")
    assert rows["ankle", "hinge"].limits is None and rows["ankle", "hinge"].actuator is None
    toe = rows["toe", "slide"]
    assert toe.unit == "m" and toe.limits == (0.0, 0.05)
    assert (toe.actuator.kind, toe.actuator.control_unit) == ("velocity servo", "m/s")
    assert (toe.actuator.strength, toe.actuator.strength_unit) == (5.0, "N")
    assert toe.actuator.name == "actuator 2", "one without a name has its number"
    calf = rows["calf", "tendon"]
    assert calf.limits == (-2.0, 2.0) and calf.unit == "m" and calf.actuator.kind == "motor"
    assert (calf.actuator.strength, calf.actuator.strength_unit) == (6.0, "N")
    thrust = rows["palm", "site"].actuator
    assert (thrust.strength, thrust.strength_unit, thrust.control) == (10.0, "N", (-1.0, 1.0))


def test_totals(made):
    assert made.n_joint_rows == 8 and made.n_actuators == 4
    assert (made.timestep, made.frame_skip) == (0.004, 5) and len(made.hash) == 16
    assert made.motion == "travels" and made.totals[:3] == ("4 limbs", "8 joint rows", "4 actuators")
    assert "timestep 0.004 s × frame skip 5 = 0.02 s a step" in made.totals
    assert describe(build("cheetah_2_back"), 5).totals[1] == "1 joint row"


def test_what_was_left_out_is_told(made):
    notes = "\n".join(made.notes)
    assert "without an actuator, so scenery and no limb: 'ball'" in notes
    assert "without joints, so scenery and no limb: 'wall'" in notes
    assert "free only places 'trunk' in the world: no joint row" in notes
    assert "'[bold]thrust[/]' has no control range; actions -1 to 1 mean" in notes
    assert "sensors are not observed (1)" in notes
    assert notes.count("'ball'") == 1, "once, by whoever read the file or looked at the model"


def test_a_body_that_cannot_travel_tells_what_it_reaches_with():
    spec = mujoco.MjSpec()
    upper = spec.worldbody.add_body(name="upper", mass=1, inertia=[1, 1, 1])
    upper.add_joint(name="shoulder", axis=[0, 1, 0])
    lower = upper.add_body(name="lower", mass=1, inertia=[1, 1, 1], pos=[0.5, 0, 0])
    lower.add_joint(name="elbow", axis=[0, 1, 0])
    motor = spec.add_actuator(trntype=mujoco.mjtTrn.mjTRN_JOINT, target="elbow", ctrlrange=[-1, 1])
    motor.ctrllimited = True
    told = describe(Morphology("arm", spec.compile()), 1)
    assert told.tip == "lower" and told.motion == "reaches with lower, 0.5 m"


@pytest.mark.parametrize(
    ("element", "kind"),
    [
        ('<motor joint="j"/>', "motor"),
        ('<position joint="j" kp="3"/>', "position servo"),
        ('<velocity joint="j" kv="3"/>', "velocity servo"),
        ('<intvelocity joint="j" kp="3" actrange="-1 1"/>', "velocity servo"),
        ('<muscle joint="j" lengthrange="0 1"/>', "muscle"),
        ('<damper joint="j" kv="2" ctrlrange="0 1"/>', "damper"),
        ('<adhesion body="b" ctrlrange="0 1" gain="2"/>', "adhesion"),
        ('<general joint="j" biastype="affine" biasprm="1 0 0"/>', "general"),
    ],
)
def test_kinds_of_actuators(element, kind):
    xml = (
        '<mujoco><worldbody><body name="b"><joint name="j" range="0 1"/><geom size="1"/></body></worldbody>'
        f"<actuator>{element}</actuator></mujoco>"
    )
    assert actuator_kind(mujoco.MjModel.from_xml_string(xml), 0) == kind


def test_tokens_are_those_of_the_start_pose():
    body = build("ant")
    tokens = start_tokens(body)
    assert tokens.shape == (body.n_limbs, LIMB_SPEC.token_size)
    assert tokens[0, LIMB_SPEC.token_slice("height")] == pytest.approx(0.75)
    assert not tokens[:, LIMB_SPEC.token_slice("velocity")].any()
