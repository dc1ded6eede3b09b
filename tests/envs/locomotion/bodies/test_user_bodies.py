"""Where a user's robots are found, and what is said of those that are none."""

from __future__ import annotations

import importlib.machinery
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

from somite.agents.evaluation.runs import trained_on
from somite.envs.errors import UserError
from somite.envs.locomotion import RobotSet
from somite.envs.locomotion.bodies import user_bodies
from somite.envs.locomotion.bodies.user_bodies import CompileGuard, UserBodies, menagerie_file

from ..user_robots import MOTOR, load, walker

FLOOR = '<geom type="plane" size="5 5 1"/>'
TETRAHEDRON = "v 0 0 0\nv .2 0 0\nv 0 .2 0\nv 0 0 .2\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


@pytest.fixture(autouse=True)
def unguarded(monkeypatch):
    """Files are compiled in this process alone: what the guard refuses is tested in `test_mjcf_files`."""
    monkeypatch.setattr(CompileGuard, "check", lambda self, path: None)


def robots(folder, **texts):
    """A folder of files, and what reads them."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def refused(source, **options):
    with pytest.raises(UserError) as error:
        RobotSet(str(source), **options)
    message = str(error.value)
    assert "\n" not in message
    return message


URDF = '<robot name="r"><link name="base"/></robot>'
TOLD = {
    "r.urdf": (URDF, "is a URDF; MJCF is read. MuJoCo converts many of them: python -c 'import mujoco;"),
    "named.xml": (f"<!-- by hand --> {URDF}", "is a URDF"),
    "r.urdf.xacro": (URDF, "is a xacro, of which ROS makes a URDF: xacro "),
    "macros.xml": ('<robot><xacro:macro name="leg"/></robot>', "is a xacro"),
    "world.sdf": ('<?xml version="1.0"?><sdf version="1.9"/>', "is an SDF of Gazebo"),
    "scene.usda": ("#usda 1.0", "is a USD scene"),
    "scene.usdz": (b"PK\x03\x04 and more", "is a USD scene"),
    "robots.zip": (b"PK\x03\x04 and more", "is an archive; unpack it"),
    "robots.tar.gz": (b"\x1f\x8b and more", "is an archive"),
    "robots.7z": (b"7z\xbc\xaf and more", "is an archive"),
    "robots.tar": (b"\0" * 257 + b"ustar", "is an archive"),
    "archive.xml": (b"PK\x03\x04 and more", "is an archive"),
    "robot.mjb": (b"\x10\0\0\0", "is a compiled model"),
    "leg.STL": (
        b"\0" * 80,
        'is a mesh, the shape of a part; name the MJCF file that has it as <mesh file="leg.STL"',
    ),
    "leg.obj": ("v 0 0 0", "is a mesh"),
    "empty.xml": ("", "is empty"),
    "blank.xml": (" \n", "is empty"),
    "part.xml": ("<mujocoinclude/>", "is a part of a robot"),
    "robot.mjcf": ("<mujoco/>", "is MJCF, but MuJoCo reads files whose names end in .xml only"),
    "notes.txt": ("walk", "is no MJCF"),
}


@pytest.mark.parametrize(
    ("name", "content", "said"), [(name, *told) for name, told in TOLD.items()], ids=list(TOLD)
)
def test_what_is_no_mjcf_is_told_with_what_can_be_done(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    assert f"{tmp_path / name} {said}" in refused(tmp_path / name)
    if not name.endswith((".xml", ".txt")):
        inside = refused(tmp_path)
        assert inside.startswith(f"{tmp_path} holds no .xml file; {name} is ")


def test_a_package_of_ros_is_told_of_its_urdf(tmp_path):
    (robots(tmp_path, package="<package/>") / "urdf").mkdir()
    (tmp_path / "urdf" / "dog.urdf").write_text(URDF)
    message = refused(tmp_path)
    assert "package.xml is no MJCF" in message and "urdf/dog.urdf is a URDF" in message


def test_what_is_said_of_a_urdf_makes_a_robot(tmp_path):
    """The script of docs/robots.md."""
    script = Path("docs/robots.md").read_text().split("```python\n")[1].split("```")[0]
    inertial = (
        '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
    )
    box = '<collision><geometry><box size=".2 .2 .2"/></geometry></collision>'
    links = "".join(f'<link name="{name}">{inertial}{box}</link>' for name in ("base", "leg"))
    joint = (
        '<joint name="hip" type="revolute"><parent link="base"/><child link="leg"/><axis xyz="0 1 0"/>'
        '<limit lower="-1" upper="1" effort="7" velocity="5"/></joint>'
    )
    (tmp_path / "robot.urdf").write_text(f'<robot name="r">{links}{joint}</robot>')
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    body = RobotSet(str(tmp_path / "robot.xml")).morphology("robot")
    assert body.can_travel and body.n_limbs == 2
    assert (body.controls.low, body.controls.high) == (-7, 7)


def of_height(height):
    """Robots that differ."""
    return walker(FLOOR, height, trunk=f'density="{1000 * height}"')


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path):
    robots(tmp_path, spider=of_height(1), dog=of_height(2))
    assert "did you mean 'spider.xml'?" in refused(tmp_path / "spidr.xml")
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere" / "dog.xml")
    assert "env.morphology=" in pytest.raises(UserError, RobotSet, None).value.args[0]


def test_a_folder_without_files_is_told(tmp_path):
    (tmp_path / "readme.txt").write_text("none")
    assert refused(tmp_path) == f"{tmp_path} holds no .xml file"


HUGE = 'gainprm="1" ctrlrange="-1 1" biastype="affine" biasprm="1e13 0 0"'
BROKEN = {
    "invalid XML": (walker(FLOOR)[:-20], ["no MJCF that MuJoCo reads", "XML"]),
    "unknown element": (walker(FLOOR + "<geoom/>"), ["no MJCF that MuJoCo reads", "geoom", "line"]),
    "unknown attribute": (walker('<geom typo="1"/>'), ["no MJCF that MuJoCo reads", "typo", "line"]),
    "no mass": (walker(FLOOR, leg='mass="0"'), ["does not compile", "mass", "leg"]),
    "unknown joint": (walker(FLOOR, actuators='<motor joint="hop"/>'), ["does not compile", "hop"]),
    "missing mesh": (
        walker('<geom type="mesh" mesh="shell"/>', first='<asset><mesh name="shell" file="a.obj"/></asset>'),
        ["does not compile", "a.obj"],
    ),
    "missing include": (walker('<include file="legs.xml"/>'), ["no MJCF that MuJoCo reads", "legs.xml"]),
    "no actuator": (walker(FLOOR, actuators=""), ["no actuator"]),
    "moves nothing": (
        walker(FLOOR + '<site name="post"/>', actuators=MOTOR + '<motor name="push" site="post"/>'),
        ["'push' moves no joint"],
    ),
    "diverges": (
        walker(FLOOR, actuators=f'<general joint="hip" {HUGE}/>'),
        ["simulation diverges", "joint '", "timestep (now 0.002 s)"],
    ),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=list(BROKEN))
def test_a_file_that_is_no_robot_is_told_with_its_name_the_reason_and_the_element(tmp_path, text, said):
    folder = robots(tmp_path, broken=text)
    message = refused(folder / "broken.xml")
    for part in [str(folder / "broken.xml"), *said]:
        assert part in message, message


def test_a_broken_robot_of_a_folder_is_left_out_with_a_warning_that_says_why(tmp_path):
    folder = robots(tmp_path, good=of_height(1), no_motor=walker(FLOOR, actuators=""), bad="<mujoco>")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bodies = RobotSet(str(folder))
    assert bodies.seen == ("good",)
    said = sorted(str(w.message) for w in caught if "left out" in str(w.message))
    assert len(said) == 2 and "bad.xml" in said[0]
    assert "no_motor.xml" in said[1] and "no actuator" in said[1]


def test_a_folder_of_broken_robots_is_an_error_that_tells_every_reason(tmp_path):
    message = refused(robots(tmp_path, a=walker(FLOOR, actuators=""), b="<mujoco>"))
    assert "a.xml: this model has no actuator" in message and "b.xml is no MJCF" in message


def test_patterns_tell_which_bodies_are_held_out(tmp_path):
    folder = robots(tmp_path, a_short=of_height(1), a_long=of_height(2), b_long=of_height(3), c=of_height(4))
    bodies = RobotSet(str(folder), unseen="*_long")
    assert bodies.unseen == ("a_long", "b_long") and bodies.seen == ("a_short", "c")
    bodies = RobotSet(str(folder), unseen=["c", "a_[ls]*"])
    assert bodies.seen == ("b_long",) and bodies.choose("unseen") == ("a_long", "a_short", "c")
    assert RobotSet(str(folder), unseen="c", bodies="a_long").seen == ("a_long",)
    assert "did you mean 'a_long'?" in refused(folder, unseen="a_lonk")
    assert "did you mean 'b_long'?" in refused(folder, bodies="b_lon")
    assert "holds out every body" in refused(folder, unseen="*")
    assert "leaks" in refused(folder, unseen="c", bodies="c")


def test_equal_robots_on_both_sides_are_a_leak(tmp_path):
    twin = of_height(1).replace('"hip"', '"HIP"').replace('"leg"', '"left leg"')
    folder = robots(tmp_path, first=of_height(1), second=twin, third=of_height(2))
    message = refused(folder, unseen="second")
    assert "leaks" in message and "'second'" in message and "'first'" in message
    assert RobotSet(str(folder), unseen="third").unseen == ("third",)  # negative control


SPIDER = walker(FLOOR)
COPIES = {
    "another scene": walker('<geom type="box" size="1 1 .1" pos="0 0 -.1"/><light pos="0 0 3"/><camera/>'),
    "other names": SPIDER.replace('"hip"', '"h"').replace('"leg"', '"l"').replace('"trunk"', '"t"'),
    "a comment": SPIDER.replace("<worldbody>", "<!-- of a mirror --><worldbody>"),
    "visuals": walker(FLOOR, shin='<geom size=".1" mass="0" contype="0" conaffinity="0" rgba="1 0 0 1"/>'),
    "a body for visuals": walker(
        FLOOR, shin='<body><geom size=".1" mass="0" contype="0" conaffinity="0"/><site/><camera/></body>'
    ),
    "another place and heading": SPIDER.replace('pos="0 0 0.38"', 'pos="3 2 1" euler="0 0 50"'),
    "options": walker(FLOOR, first='<option timestep="0.001" gravity="0 0 -3.7"/>'),
    "a keyframe": walker(FLOOR, last='<keyframe><key qpos="0 0 .6 1 0 0 0 .2"/></keyframe>'),
    "a hand that holds it": walker(
        FLOOR + '<body name="hand" mocap="true"/>',
        last='<equality><weld body1="hand" body2="trunk"/></equality>',
    ),
    "something passive beside it": walker(FLOOR + '<body pos="2 0 1"><freejoint/><geom size=".1"/></body>'),
}
TOE = '<body name="toe" pos="0 0 -.3"><joint name="toe" axis="0 1 0"/><geom size=".03"/></body>'
COUPLED = '<equality><joint joint1="toe" joint2="hip" polycoef="0 1"/></equality>'
CORD = """<tendon><fixed stiffness="5"><joint joint="toe" coef="1"/><joint joint="hip" coef="1"/></fixed>
  </tendon>"""
THRUST = MOTOR + '<motor site="tip" gear="0 0 1" ctrlrange="0 1"/>'
OTHERS = {
    "a toe": walker(FLOOR, shin=TOE),
    "mass": walker(FLOOR, leg='mass="3"'),
    "gear": walker(FLOOR, actuators='<motor joint="hip" gear="6" ctrlrange="-1 1"/>'),
    "range": walker(FLOOR, hip='range="-50 60"'),
    "friction": walker(FLOOR, leg='friction="0.5"'),
    "a thruster": walker(
        FLOOR,
        shin='<site name="tip"/>',
        actuators=THRUST,
    ),
    "a coupling of its joints": walker(FLOOR, shin=TOE, last=COUPLED),
    "a coupling of another ratio": walker(FLOOR, shin=TOE, last=COUPLED.replace("0 1", "0 2")),
    "a spring between joints": walker(FLOOR, shin=TOE, last=CORD),
    "a stiffer spring": walker(FLOOR, shin=TOE, last=CORD.replace('"5"', '"6"')),
    "parts that do not touch": walker(
        FLOOR, shin=TOE, last='<contact><exclude body1="trunk" body2="toe"/></contact>'
    ),
    "a thruster elsewhere": walker(FLOOR, shin='<site name="tip" pos="0 0 -.1"/>', actuators=THRUST),
    "a second robot": walker(
        FLOOR + '<body><joint name="turn"/><geom size=".1"/></body>',
        actuators=MOTOR + '<motor joint="turn" ctrlrange="-1 1"/>',
    ),
}


@pytest.mark.parametrize(
    ("text", "same"),
    [*((text, True) for text in COPIES.values()), *((text, False) for text in OTHERS.values())],
    ids=[*COPIES, *OTHERS],
)
def test_what_a_robot_is_depends_on_what_moves_alone(tmp_path, text, same):
    assert (load(tmp_path, SPIDER).identity == load(tmp_path, text).identity) is same


def test_no_two_different_robots_are_taken_for_one(tmp_path):
    assert len({load(tmp_path, text).identity for text in OTHERS.values()}) == len(OTHERS)


@pytest.fixture
def with_scene(tmp_path):
    """A robot, a scene that includes it, and another robot."""
    scene = f'<mujoco><include file="spider.xml"/><worldbody>{FLOOR}</worldbody></mujoco>'
    return robots(tmp_path, a_scene=scene, spider=walker(), dog=of_height(2))


def test_of_a_robot_and_its_scene_in_a_folder_one_is_trained_on(with_scene):
    with pytest.warns(UserWarning, match="left out: a_scene is the same robot as spider"):
        assert RobotSet(str(with_scene)).seen == ("dog", "spider")
    with pytest.warns(UserWarning, match="left out: a_scene is the same robot as spider"):
        assert RobotSet(str(with_scene), bodies=["a_scene", "spider"]).seen == ("spider",)
    assert RobotSet(str(with_scene), bodies="a_scene").seen == ("a_scene",), "by its name it is found"
    assert RobotSet(str(with_scene), unseen="*s[cp]*").unseen == ("spider",)


@pytest.mark.parametrize("name", ["a_floor", "An_Arena"])
def test_the_name_of_a_robot_stays_though_a_floor_is_added_to_it(tmp_path, name):
    scene = f'<mujoco><include file="spider.xml"/><worldbody>{FLOOR}</worldbody></mujoco>'
    with pytest.warns(UserWarning, match=f"{name} is the same robot as spider"):
        assert RobotSet(str(robots(tmp_path, spider=walker(), **{name: scene}))).seen == ("spider",)


def test_a_robot_and_its_scene_on_both_sides_are_a_leak(with_scene):
    message = refused(with_scene, unseen="a_scene")
    assert "leaks" in message and "'a_scene' is the seen body 'spider'" in message


def test_a_policy_knows_the_robot_it_was_trained_on_in_another_scene(with_scene):
    trained = RobotSet(str(with_scene / "spider.xml"))
    saved = {"seen": ["spider"], "hashes": trained.hashes()}
    agent = types.SimpleNamespace(environment=saved | {"identities": trained.identities()})
    former = types.SimpleNamespace(environment=saved)  # of a version without identities
    scene, dog = RobotSet(str(with_scene / "a_scene.xml")), RobotSet(str(with_scene / "dog.xml"))
    assert trained_on(agent, scene) == {"a_scene"} and not trained_on(agent, dog)
    assert trained_on(former, trained) == {"spider"} and not trained_on(former, dog)


def test_robots_of_one_file_name_are_told_apart_by_their_folders(tmp_path):
    folder = robots(tmp_path, a__robot=of_height(1), b__robot=of_height(2), b__other=of_height(3))
    assert set(UserBodies(str(folder)).names) == {"a/robot", "b/robot", "other"}
    bodies = RobotSet(str(folder), unseen="b/*")
    assert bodies.unseen == ("b/robot",)


def test_meshes_and_includes_are_found_beside_the_file_from_another_folder(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "robot", tmp_path / "elsewhere"
    (folder / "meshes").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "meshes" / "shell.obj").write_text(TETRAHEDRON)
    (folder / "assets.xml").write_text(
        '<mujoco><compiler meshdir="meshes"/><asset><mesh name="shell" file="shell.obj"/></asset></mujoco>'
    )
    shell = '<geom type="mesh" mesh="shell" contype="0" conaffinity="0"/>'
    text = walker(FLOOR, first='<include file="assets.xml"/>', shin=shell)
    (folder / "robot.xml").write_text(text)
    monkeypatch.chdir(folder)
    near = RobotSet("robot.xml").morphology("robot")
    monkeypatch.chdir(elsewhere)
    far = RobotSet("../robot/robot.xml").morphology("robot")
    assert far.model.nmesh == 1 and far.hash == near.hash
    np.testing.assert_array_equal(far.spec().compile().geom_size, far.model.geom_size)  # and again
    # A link to the file is the file: caches keep them elsewhere, under other names.
    (folder / "link.xml").symlink_to(folder / "robot.xml")
    (elsewhere / "1234").write_text(text)
    (folder / "cached.xml").symlink_to(elsewhere / "1234")
    for name in ("link", "cached"):
        assert RobotSet(f"../robot/{name}.xml").seen == (name,)


def test_a_file_that_is_edited_is_read_again(tmp_path):
    path = robots(tmp_path, robot=of_height(1)) / "robot.xml"
    first = RobotSet(str(path)).morphology("robot")
    assert RobotSet(str(path)).morphology("robot") is first, "read once"
    robots(tmp_path, robot=of_height(2))
    assert RobotSet(str(path)).morphology("robot").mass > first.mass


class FakeRobot:
    entry_names = ("scene", "robot")

    def __init__(self, path, errors):
        self.path, self.errors, self.asked = path, errors, []

    def xml(self, entry=None, cache=None):
        self.asked.append(entry)
        if self.errors:
            raise self.errors[0]
        return self.path


@pytest.fixture
def menagerie(tmp_path, monkeypatch):
    """A stand-in for the package `mujoco_menagerie`, with the interface of its version 2026.10.4."""
    (tmp_path / "go.xml").write_text(of_height(1))
    module = types.ModuleType("mujoco_menagerie")
    module.__spec__ = importlib.machinery.ModuleSpec("mujoco_menagerie", None)
    module.MenagerieError = type("MenagerieError", (Exception,), {})
    module.robot = FakeRobot(tmp_path / "go.xml", [])
    module.names = lambda: ["acme_go", "acme_arm"]
    module.get = {"acme_go": module.robot}.__getitem__
    monkeypatch.setitem(sys.modules, "mujoco_menagerie", module)
    user_bodies._read.cache_clear()
    yield module
    user_bodies._read.cache_clear()


def test_a_robot_of_menagerie_is_resolved_by_name_and_entry(menagerie):
    bodies = RobotSet("menagerie:acme_go")
    assert bodies.seen == ("acme_go",) and bodies.morphology("acme_go").n_limbs == 2
    assert RobotSet("menagerie:acme_go/robot").seen == ("acme_go/robot",)
    assert menagerie.robot.asked == [None, "robot"]


def test_what_menagerie_does_not_have_is_told_with_the_nearest_name(menagerie):
    assert "did you mean 'acme_go'?" in refused("menagerie:acme_goo")
    assert "did you mean 'scene'?" in refused("menagerie:acme_go/scen")
    assert not menagerie.robot.asked, "nothing was fetched"


def test_a_failed_download_is_told(menagerie):
    for error in (menagerie.MenagerieError("HTTP Error 503"), OSError("no route to host")):
        menagerie.robot.errors[:] = [error]
        with pytest.raises(UserError, match=f"menagerie:acme_go could not be fetched: {error}"):
            menagerie_file("acme_go")


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_menagerie", None)
    with pytest.raises(UserError, match=re.escape("pip install 'somite[menagerie]'")):
        menagerie_file("acme_go")


def test_nothing_is_fetched_or_imported_without_the_word(tmp_path, monkeypatch):
    asked = []

    class Watch:
        def find_spec(self, name, path=None, target=None):
            asked.append(name)

    monkeypatch.setattr(sys, "meta_path", [Watch(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "mujoco_menagerie", raising=False)
    RobotSet(str(robots(tmp_path, robot=of_height(1))))
    assert "mujoco_menagerie" not in asked
    with pytest.raises(UserError):
        menagerie_file("no robot at all")
    assert "mujoco_menagerie" in asked  # negative control
    for path in Path(user_bodies.__file__).parents[2].rglob("*.py"):
        assert not re.search(r"^\s*(import|from) mujoco_menagerie", path.read_text(), re.MULTILINE), path
