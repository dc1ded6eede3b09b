"""Robots from strangers: what they may read, and what becomes of those that MuJoCo cannot bear."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import subprocess
import sys
import time

import mujoco
import pytest

from somite.envs.errors import UserError
from somite.envs.locomotion import RobotSet
from somite.envs.locomotion.bodies import compile_child
from somite.envs.locomotion.bodies.mjcf_files import MOST_DEPTH, MOST_ELEMENTS, check_files
from somite.envs.locomotion.bodies.user_bodies import CompileGuard
from somite.envs.sensors import GymnasiumTask

SHELL = "v 0 0 0\nv .2 0 0\nv 0 .2 0\nv 0 0 .2\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
ROBOT = """<mujoco>
  {first}
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body name="trunk" pos="0 0 0.5">
      <freejoint/>
      <geom type="box" size="0.2 0.1 0.05"/>
      {more}
      <body name="leg" pos="0 0 -0.05">
        <joint name="hip" axis="0 1 0" range="-60 60"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.3" size="0.03"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="hip" gear="5" ctrlrange="-1 1"/></actuator>
</mujoco>"""
INCLUDED = '<mujoco><worldbody><geom name="secret" size="1"/></worldbody></mujoco>'
MESH = '<asset><mesh name="m" file="{}"/></asset>'
INCLUDE = '<include file="{}"/>'


@pytest.fixture
def home(tmp_path):
    """The folder of a robot, beside which lies what it may not read."""
    folder = tmp_path / "robot"
    (folder / "parts").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for place in (folder, folder / "parts", tmp_path / "outside"):
        (place / "shell.obj").write_text(SHELL)
        (place / "secret.xml").write_text(INCLUDED)
    (folder / "link.obj").symlink_to(tmp_path / "outside" / "shell.obj")
    (folder / "link.xml").symlink_to(tmp_path / "outside" / "secret.xml")
    (folder / "away").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "pipe.obj")
    return folder


def write(folder, first="", more=""):
    path = folder / "robot.xml"
    path.write_text(ROBOT.format(first=first, more=more))
    return path


OUTSIDE = {
    "mesh": MESH.format("../outside/shell.obj"),
    "mesh with the other separator": MESH.format("..\\outside\\shell.obj"),
    "mesh through a folder that is there": MESH.format("parts/../../outside/shell.obj"),
    "mesh by meshdir": '<compiler meshdir="../outside"/>' + MESH.format("shell.obj"),
    "mesh by assetdir": '<compiler assetdir="../outside"/>' + MESH.format("shell.obj"),
    "mesh without its path": '<compiler meshdir="../outside" strippath="true"/>'
    + MESH.format("/x/shell.obj"),
    "mesh by a link": MESH.format("link.obj"),
    "mesh by a linked folder": MESH.format("away/shell.obj"),
    "absolute mesh": MESH.format("{outside}/shell.obj"),
    "texture": '<asset><texture name="t" type="2d" file="../outside/t.png"/></asset>',
    "side of a cube": '<asset><texture name="t" type="cube" fileup="../outside/t.png"/></asset>',
    "height field": '<asset><hfield name="h" size="1 1 1 1" file="../outside/h.png"/></asset>',
    "skin": '<deformable><skin name="s" file="../outside/s.skn"/></deformable>',
    "flexible body": '<worldbody><flexcomp name="f" type="mesh" file="../outside/shell.obj"/></worldbody>',
    "include": INCLUDE.format("../outside/secret.xml"),
    "include by a link": INCLUDE.format("link.xml"),
    "absolute include": INCLUDE.format("{outside}/secret.xml"),
    "model that is attached": '<asset><model name="m" file="../outside/secret.xml"/></asset>',
    "system file": INCLUDE.format("/etc/passwd"),
    "option of a plugin": '<extension><plugin plugin="mujoco.pid"><instance name="i"><config key="file" '
    'value="../outside/x"/></instance></plugin></extension>',
}
"""Each is what MuJoCo would read, or look for."""


@pytest.mark.parametrize("first", OUTSIDE.values(), ids=list(OUTSIDE))
def test_a_robot_reads_nothing_outside_its_folder(home, first):
    path = write(home, first.replace("{outside}", str(home.parent / "outside")))
    with pytest.raises(UserError) as error:
        RobotSet(str(path))
    message = str(error.value)
    assert str(path) in message and "line 2" in message and "\n" not in message
    assert "lies outside" in message and "env.files_from" in message


def test_what_a_robot_includes_is_held_to_the_same(home):
    (home / "parts" / "first.xml").write_text('<mujoco><include file="second.xml"/></mujoco>')
    (home / "parts" / "second.xml").write_text(f"<mujoco>{MESH.format('../../outside/shell.obj')}</mujoco>")
    with pytest.raises(UserError, match=r"second.xml, line 1: <mesh file=.* lies outside"):
        RobotSet(str(write(home, INCLUDE.format("parts/first.xml"))))
    (home / "parts" / "child.xml").write_text(
        '<mujoco><compiler meshdir="../../outside"/><asset><mesh name="k" file="shell.obj"/></asset></mujoco>'
    )
    with pytest.raises(UserError, match=r"child.xml, line 1: <mesh file=.* lies outside"):
        RobotSet(str(write(home, '<asset><model name="c" file="parts/child.xml"/></asset>')))


@pytest.mark.parametrize(
    "first",
    [
        MESH.format("shell.obj"),
        MESH.format("parts/shell.obj"),
        MESH.format("parts\\shell.obj"),
        MESH.format("parts/../shell.obj"),
        '<compiler meshdir="parts"/>' + MESH.format("shell.obj"),
        '<compiler meshdir="parts"/>' + MESH.format("../shell.obj"),
        INCLUDE.format("parts/secret.xml"),
        "<!-- -- a comment that is no XML -- --->" + MESH.format("shell.obj"),
        '<!-- <include file="/etc/passwd"/> -->',
    ],
)
def test_what_lies_in_its_folder_is_read(home, first):
    """The negative control: MuJoCo finds there what the check has found."""
    path = write(home, first)
    assert RobotSet(str(path)).seen == ("robot",)


def test_another_folder_is_allowed_by_one_key(home):
    path = write(home, MESH.format("../outside/shell.obj"), '<geom type="mesh" mesh="m"/>')
    assert RobotSet(str(path), files_from=str(home.parent)).seen == ("robot",)
    with pytest.raises(UserError, match="lies outside"):
        RobotSet(str(path), files_from=str(home / "parts"))
    with pytest.raises(UserError, match="is no folder"):
        RobotSet(str(path), files_from=str(home / "nowhere"))


def test_a_folder_of_robots_is_read_as_a_whole_and_not_beyond(home):
    (home / "a").mkdir()
    (home / "a" / "one.xml").write_text(ROBOT.format(first=MESH.format("../parts/shell.obj"), more=""))
    (home / "b.xml").symlink_to(home.parent / "robot.xml")
    (home.parent / "robot.xml").write_text(ROBOT.format(first="", more=""))
    with pytest.warns(UserWarning) as told:
        assert RobotSet(str(home)).seen == ("one",)
    told = [str(warning.message) for warning in told]
    assert any("b.xml is a link out of" in message for message in told), told


def test_a_file_that_never_ends_is_not_waited_for(home):
    began = time.monotonic()
    with pytest.raises(UserError, match="pipe.obj is no regular file"):
        RobotSet(str(write(home, MESH.format("pipe.obj"))))
    (home / "endless.obj").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="lies outside"):
        RobotSet(str(write(home, MESH.format("endless.obj"))))
    assert time.monotonic() - began < 5


LAUGHS = '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><mujoco>&b;</mujoco>'
NO_XML = {
    "entities": (LAUGHS, "document types"),
    "an entity from a file": (
        '<!DOCTYPE m [<!ENTITY x SYSTEM "/etc/passwd">]><mujoco>&x;</mujoco>',
        "document",
    ),
    "an include that only one parser sees": (
        "<!DOCTYPE m [<!ENTITY x '> <include file=\"/etc/passwd\"/>'>]><mujoco/>",
        "document types",
    ),
    "an include in an attribute": ("<mujoco><a b=\"<include file='x'/>\"/></mujoco>", "no well-formed XML"),
    "an include behind a false comment": (
        '<mujoco><a b="<!--"/><include file="/etc/passwd"/><a b="-->"/></mujoco>',
        "no well-formed XML",
    ),
    "UTF-16": ('<?xml version="1.0" encoding="utf-16"?><mujoco/>'.encode("utf-16"), "not UTF-8"),
    "a name with a tab": ('<mujoco><include file="a\tb.xml"/></mujoco>', "plain characters"),
    "a name with an entity": ('<mujoco><include file="a&#46;xml"/></mujoco>', "plain characters"),
    "an address": (
        '<mujoco><asset><mesh name="m" file="file:///etc/passwd"/></asset></mujoco>',
        "a plain path",
    ),
    "depth": ("<mujoco>" + "<body>" * (MOST_DEPTH + 1), "inside each other"),
    "length": ("<mujoco>" + "<a/>" * MOST_ELEMENTS, f"{MOST_ELEMENTS:,} elements"),
    "many comments": ("<mujoco>" + "<!---->" * (MOST_ELEMENTS - 2) + "<b", "no well-formed XML"),
    "another language": ('<robot name="urdf"/>', "is a URDF"),
    "nothing": ("", "is empty"),
    "zeros": (b"\0" * 100, "no well-formed XML"),
}


@pytest.mark.parametrize(("text", "said"), NO_XML.values(), ids=list(NO_XML))
def test_text_that_could_be_read_in_two_ways_is_refused_before_mujoco_reads_it(
    tmp_path, text, said, monkeypatch
):
    monkeypatch.setattr(CompileGuard, "check", lambda self, path: pytest.fail("MuJoCo was asked"))
    path = tmp_path / "robot.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.process_time()
    with pytest.raises(UserError) as error:
        RobotSet(str(path))
    assert said in str(error.value) and str(path) in str(error.value)
    assert time.process_time() - began < 5


def test_files_in_a_circle_end(home):
    (home / "a.xml").write_text('<mujoco><include file="b.xml"/></mujoco>')
    (home / "b.xml").write_text('<mujoco><include file="a.xml"/></mujoco>')
    with pytest.raises(UserError, match="already included"):
        RobotSet(str(write(home, INCLUDE.format("a.xml"))))
    (home / "m.xml").write_text('<mujoco><asset><model name="m" file="m.xml"/></asset></mujoco>')
    with pytest.raises(UserError):
        RobotSet(str(write(home, '<asset><model name="m" file="m.xml"/></asset>')))


def world(content, first=""):
    return f"<mujoco>{first}<worldbody>{content}</worldbody></mujoco>"


BOMBS = {
    "a size that overflows (a crash)": (
        world("", '<asset><hfield name="h" nrow="65536" ncol="65537" size="1 1 1 1"/></asset>'),
        "MuJoCo crashes on it",
    ),
    "a million copies": (
        world('<replicate count="100000000" offset="1 0 0"><geom size="1"/></replicate>'),
        "of computation",
    ),
    "copies of copies": (
        world('<replicate count="1000" offset="1 0 0">' * 3 + '<geom size="1"/>' + "</replicate>" * 3),
        "of computation",
    ),
    "keyframes": (
        world("<body><joint/><geom size='1'/></body>", '<size nkey="100000000"/>'),
        "of computation",
    ),
    "memory": (world("", '<size memory="1000G"/>'), "allocate memory"),
    "a picture": (
        world("", '<asset><texture name="t" type="2d" builtin="flat" width="60000" height="60000"/></asset>'),
        "allocate memory",
    ),
    "iterations": (world("", '<option iterations="2000000000"/>'), "option iterations is 2,000,000,000"),
    "contacts": (world("<body><joint/><geom size='.1'/></body>" * 1500), "does not compile|of computation"),
    "bodies": (world("<body><joint/><geom size='.1'/></body>" * 2500), "of computation|nbody"),
}


@pytest.mark.parametrize(("text", "said"), BOMBS.values(), ids=list(BOMBS))
def test_a_file_that_mujoco_cannot_bear_is_refused_in_time(tmp_path, text, said):
    path = tmp_path / "robot.xml"
    path.write_text(text)
    check_files(path)
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    with CompileGuard(seconds=1) as guard, pytest.raises(UserError, match=said) as error:
        guard.check(path)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 4
    assert [file.name for file in tmp_path.iterdir()] == ["robot.xml"]


def test_one_guard_outlives_the_files_it_refuses(tmp_path):
    bad, good = tmp_path / "bad.xml", tmp_path / "good.xml"
    bad.write_text(BOMBS["a size that overflows (a crash)"][0])
    good.write_text(ROBOT.format(first="", more=""))
    with CompileGuard() as guard:
        for _ in range(2):
            guard.check(good)
            with pytest.raises(UserError, match="crashes"):
                guard.check(bad)


def test_a_lower_limit_of_the_user_stays(tmp_path):
    """Of addresses, as batch systems set it: it cannot be raised."""
    path, limit = tmp_path / "robot.xml", (6 * 2**30, 6 * 2**30)
    path.write_text(ROBOT.format(first="", more=""))
    found = subprocess.run(
        [sys.executable, "-P", compile_child.__file__],
        input=json.dumps([str(path), 5, 8 * 2**30]),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
        capture_output=True,
        text=True,
    )
    assert found.stdout == '""\n'


def test_without_the_guard_the_process_would_end(tmp_path):
    """The negative control: the file is a fault of the version that is installed."""
    path = tmp_path / "bad.xml"
    path.write_text(BOMBS["a size that overflows (a crash)"][0])
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        faulthandler.disable()  # pytest's, which would print a trace into the log of a test that passes
        try:
            mujoco.MjSpec.from_file(str(path)).compile()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def test_a_gymnasium_task_reads_no_stranger_file_either(home):
    path = write(home, INCLUDE.format("../outside/secret.xml"))
    with pytest.raises(UserError, match="lies outside"):
        GymnasiumTask(id="Ant-v5", kwargs={"xml_file": str(path)})
    relative = os.path.relpath(
        path, os.path.join(os.path.dirname(__import__("gymnasium").__file__), "envs/mujoco/assets")
    )
    with pytest.raises(UserError, match="lies outside"):
        GymnasiumTask(id="Ant-v5", kwargs={"xml_file": relative})
