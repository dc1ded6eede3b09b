"""MJCF files: any file is a robot, or is refused in one sentence, whatever MuJoCo makes of it."""

from __future__ import annotations

import random
import re
import warnings
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings

from somite.envs.errors import UserError
from somite.envs.locomotion.bodies.user_bodies import UserBodies

from .mutations import INTERESTING, from_random, mutated_bytes

ROBOT = """<mujoco model="seed">
  <compiler angle="radian" meshdir="parts"/>
  <option timestep="0.005" integrator="implicitfast" iterations="20"/>
  <size memory="1M" nuserdata="2"/>
  <default>
    <geom friction="1 0.1 0.1"/>
    <default class="leg"><joint damping="0.1" range="-1 1"/></default>
  </default>
  <asset>
    <texture name="t" type="2d" builtin="checker" width="16" height="16" rgb1="1 0 0" rgb2="0 1 0"/>
    <material name="m" texture="t"/>
    <mesh name="shell" file="shell.obj" scale="1 1 1"/>
    <mesh name="own" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1" face="0 2 1 0 1 3 0 3 2 1 2 3"/>
    <hfield name="h" nrow="4" ncol="4" size="2 2 0.1 0.1" elevation="0 0 0 0 0 1 1 0 0 1 1 0 0 0 0 0"/>
  </asset>
  <worldbody>
    <include file="parts/floor.xml"/>
    <geom type="hfield" hfield="h" pos="9 0 0"/>
    <replicate count="3" offset="0.5 0 0"><geom name="post" size="0.05" pos="0 5 0"/></replicate>
    <body name="trunk" pos="0 0 0.5">
      <freejoint name="free"/>
      <geom type="box" size="0.2 0.1 0.05" material="m"/>
      <geom type="mesh" mesh="shell" contype="0" conaffinity="0"/>
      <site name="eye" pos="0.2 0 0"/>
      <camera name="cam" pos="0 0 1"/>
      <body name="leg" pos="0 0 -0.05" childclass="leg">
        <joint name="hip" type="hinge" axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.2" size="0.03"/>
        <body name="shin" pos="0 0 -0.2" quat="1 0 0 0">
          <joint name="knee" type="hinge" axis="0 1 0" armature="0.01"/>
          <geom type="capsule" fromto="0 0 0 0 0 -0.2" size="0.03"/>
          <body name="foot" pos="0 0 -0.2">
            <joint name="ankle" type="ball" range="0 1"/>
            <geom size="0.04" mass="0.1"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <tendon><fixed name="both"><joint joint="hip" coef="1"/><joint joint="knee" coef="-1"/></fixed></tendon>
  <actuator>
    <motor joint="hip" gear="5" ctrlrange="-1 1"/>
    <position joint="knee" kp="3" ctrlrange="-1 1"/>
    <general tendon="both" dyntype="filter" dynprm="0.1" gainprm="2" ctrlrange="-1 1"/>
  </actuator>
  <sensor><accelerometer site="eye"/><jointpos joint="hip"/></sensor>
  <keyframe><key name="home" qpos="0 0 0.5 1 0 0 0 0.1 -0.1 1 0 0 0"/></keyframe>
</mujoco>"""
SHELL = "v 0 0 0\nv .2 0 0\nv 0 .2 0\nv 0 0 .2\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
FLOOR = '<mujocoinclude><geom name="floor" type="plane" size="5 5 1"/></mujocoinclude>'
NUMBER = re.compile(r"(?<![\w.])-?\d*\.?\d+")


def changed_tree(rng: random.Random) -> bytes:
    """Elements and attributes removed, doubled, moved, nested and given other values."""
    root = ElementTree.fromstring(ROBOT)
    for _ in range(rng.choice([1, 1, 2, 4])):
        parents = {child: parent for parent in root.iter() for child in parent}
        node = rng.choice(list(parents) or [root])
        parent, kind = parents.get(node, root), rng.randrange(8)
        if kind == 0 and node in parents:
            parent.remove(node)
        elif kind == 1:
            parent.extend([node] * rng.choice([1, 2, 30]))
        elif kind == 2:
            other = rng.choice(list(root.iter()))
            if node not in other.iter() and other not in node.iter():
                other.append(node)
        elif kind == 3:
            for _ in range(rng.choice([1, 10, 300])):
                inner = ElementTree.SubElement(node, node.tag, dict(node.attrib))
                node = inner
        elif kind == 4 and node.attrib:
            del node.attrib[rng.choice(list(node.attrib))]
        elif kind == 5 and node.attrib:
            node.set(rng.choice(list(node.attrib)), re.sub(r"[\x00-\x1f]", "", rng.choice(INTERESTING)))
        elif kind == 6 and node.attrib:
            name = rng.choice(list(node.attrib))
            bad = rng.choice(["nan", "1e30", "-1", "0", "1e9", "65537", "1e-300", "inf"])
            node.set(name, NUMBER.sub(bad, node.get(name), count=1))
        else:
            donor = rng.choice(list(root.iter()))
            node.attrib.update(donor.attrib)
    return ElementTree.tostring(root)


def hostile(rng: random.Random) -> bytes:
    if rng.random() < 0.25:
        return mutated_bytes(ROBOT.encode(), rng)
    return changed_tree(rng)


@pytest.fixture
def robot(tmp_path):
    """Where a file is to be, with what it reads."""
    folder = tmp_path / "robot"
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "shell.obj").write_text(SHELL)
    (folder / "parts" / "floor.xml").write_text(FLOOR)
    (folder / "parts" / "circle.xml").write_text('<mujoco><include file="../robot.xml"/></mujoco>')
    return folder / "robot.xml"


def read(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bodies = UserBodies(str(file))
        assert bodies.build("robot").n_limbs > 0


def test_the_file_that_is_changed_is_a_robot(robot):
    robot.write_text(ROBOT)
    read(robot)


@pytest.mark.parametrize(
    "count", [25, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])]
)
def test_any_file_is_a_robot_or_is_refused(watch, robot, count):
    @settings(settings.get_profile("fuzz"), max_examples=count)
    @given(from_random(hostile))
    def each(data):
        robot.write_bytes(data)
        watch(lambda: read(robot), UserError, robot)

    each()
    assert 0 < watch.refused < watch.inputs, "some are robots still"


@pytest.mark.parametrize("count", [6, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("part", ["shell.obj", "floor.xml"])
def test_any_part_of_a_robot_is_read_or_refused(watch, robot, part, count):
    robot.write_text(ROBOT)
    whole = (robot.parent / "parts" / part).read_bytes()

    @settings(settings.get_profile("fuzz"), max_examples=count)
    @given(from_random(lambda rng: mutated_bytes(whole, rng)))
    def each(data):
        (robot.parent / "parts" / part).write_bytes(data)
        watch(lambda: read(robot), UserError, robot.parent)

    each()
