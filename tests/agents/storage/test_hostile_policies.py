"""Policy folders from strangers: one of each kind is tried, and nothing of it is run, read or made."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import struct
import sys
import time

import pytest
import safetensors.torch
import torch

from somite.agents import load_policy, policies
from somite.agents.evaluation.runs import beside, task_of
from somite.agents.storage.policy import CheckpointError, save_policy
from somite.agents.storage.untrusted import check_links
from somite.envs.errors import UserError
from somite.envs.locomotion import LIMB_SPEC, BodySet
from somite.envs.task_set import task_set_of

ENVIRONMENT = {
    "config": {
        "_target_": "somite.envs.locomotion.BodySet",
        "family": "cheetah",
        "task": {"_target_": "somite.envs.locomotion.LocomotionTask"},
    },
    "seen": ["cheetah_2_back"],
    "unseen": [],
}


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "run" / "policy"
    made = policies.LimbTransformer(spec=LIMB_SPEC, width=8, feedforward=8)
    save_policy(folder, made, environment=ENVIRONMENT, training={"steps": 1})
    return folder


def rewrite(folder, change):
    values = json.loads((folder / "policy.json").read_text())
    change(values)
    (folder / "policy.json").write_text(json.dumps(values))


def put_tensors(folder, data):
    """Other tensors, with a checksum that fits: a stranger can count, too."""
    (folder / "policy.safetensors").write_bytes(data)
    rewrite(folder, lambda values: values.update(sha256=hashlib.sha256(data).hexdigest()))


def tensors_of(folder):
    return safetensors.torch.load((folder / "policy.safetensors").read_bytes())


def refused(folder):
    """The message, of one line that names the folder; neither much time nor memory was taken."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as error:
        load_policy(folder)
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000, "KiB"
    message = str(error.value)
    assert str(folder) in message and "\n" not in message and len(message) < 1500
    return message


def nested(depth):
    node = {}
    for _ in range(depth):
        node = {"x": node}
    return node


def set_in(part, **values):
    return lambda v: v[part].update(values)


def feature(**values):
    return lambda v: v["spec"]["token"][0].update(values)


HOSTILE = {
    "width for all memory": (
        set_in("policy", width=10**9),
        "policy.width must be a number from -65,536 to 65,536",
    ),
    "width beyond floats": (set_in("policy", width=10**400), "policy.width must be a number"),
    "width that the tensors do not have": (set_in("policy", width=65536, feedforward=65536), "has shape"),
    "negative width": (set_in("policy", width=-8), "cannot be built"),
    "no width": (set_in("policy", width=0), "cannot be built|does not fit"),
    "width that is true": (set_in("policy", width=True), "cannot be built|does not fit"),
    "endless layers": (set_in("policy", layers=10**6), "policy.layers must be a number from -64 to 64"),
    "no heads": (set_in("policy", heads=0), "cannot be built"),
    "NaN": (set_in("policy", initial_log_std=float("nan")), "got nan"),
    "an object as width": (set_in("policy", width={"x": 1}), "policy.width must be a number"),
    "a list as width": (set_in("policy", width=[8] * 1000), "policy.width must be a list"),
    "arguments by place": (set_in("policy", _args_=["x"]), "_args_"),
    "huge feature": (feature(size=10**12), "size must be a whole number from 1 to 65,536, got 1000000000000"),
    "negative feature": (feature(size=-1), "size must be a whole number from 1 to 65,536, got -1"),
    "feature of another kind": (feature(kind="magic"), "kind must be one of state, descriptor, got 'magic'"),
    "feature with code": (feature(_target_="os.system"), "only names that start with somite."),
    "many features": (
        lambda v: v["spec"].update(token=v["spec"]["token"] * 1000),
        "a list of at most 1,000 features",
    ),
    "another part of the spec": (lambda v: v["spec"].update(__class__=[]), "'__class__'"),
    "target in the environment": (
        lambda v: v["environment"]["config"].update(_target_="os.system('true')"),
        "only names that start with somite.",
    ),
    "target deep in it": (
        lambda v: v["environment"]["config"]["task"].update(x=[{"_target_": "subprocess.Popen"}]),
        "only names that start with somite.",
    ),
    "target beside what is known": (lambda v: v.update(x={"_target_": "builtins.exec"}), "only names"),
    "target that is an object": (lambda v: v["training"].update(_target_={"a": 1}), "only names"),
    "path in a target": (lambda v: v["training"].update(_target_="somite./../x"), "only names"),
    "a count as text": (
        lambda v: v["environment"]["config"].update(frame_skip="1e300"),
        "frame_skip is 1e+300",
    ),
    "frame_skip for hours": (
        lambda v: v["environment"]["config"].update(frame_skip=10**9),
        "frame_skip is 1000000000",
    ),
    "depth": (lambda v: v["environment"].update(x=nested(500)), "inside each other"),
    "many values": (lambda v: v["training"].update(x=[0] * 300_000), "more than 200,000 values"),
    "bodies that are numbers": (lambda v: v["environment"].update(seen=[1]), "a list of names"),
    "checksum that is none": (lambda v: v.update(sha256=["x"]), "64 hexadecimal digits"),
    "version that is true": (lambda v: v.update(format=True), "format version True"),
    "control characters": (
        lambda v: v.update({"\x1b]52;c;x\x07": 1, "policy": 1}),
        "policy must be names and values",
    ),
}


@pytest.mark.parametrize(("change", "said"), HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_description_is_refused(saved, change, said):
    rewrite(saved, change)
    message = refused(saved)
    assert any(part in message for part in said.split("|")), message


def test_a_description_of_gigabytes_is_not_read(saved):
    with (saved / "policy.json").open("r+b") as file:
        file.truncate(20 * 2**30)  # holes take no room
    assert "at most 8,388,608 are read" in refused(saved)


def test_tensors_of_gigabytes_are_not_read(saved):
    with (saved / "policy.safetensors").open("r+b") as file:
        file.truncate(20 * 2**30)
    assert "at most 268,435,456 are read" in refused(saved)


def header(text):
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(data)) + data


TENSORS = {
    "header of exabytes": (struct.pack("<Q", 2**63) + b"{}", "is damaged: it says that its header has"),
    "header that is no JSON": (header(b"\xff\xfe{"), "is damaged"),
    "header that is deep": (header(b"[" * 100_000), "is damaged"),
    "header that is a list": (header([1]), "is damaged"),
    "many tensors": (header({f"t{n}": {} for n in range(20_000)}), "is damaged"),
    "tensor without a shape": (header({"log_std": {"dtype": "F32"}}), "is damaged"),
    "negative side": (header({"log_std": {"dtype": "F32", "shape": [-1]}}), "is damaged"),
    "huge tensor": (
        header({"log_std": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}),
        "is damaged",
    ),
    "side beyond every integer": (
        header({"log_std": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}),
        "is damaged",
    ),
    "empty": (b"", "is damaged"),
    "a pickle": (pickle.dumps({"a": 1}), "is damaged"),
}


@pytest.mark.parametrize(("data", "said"), TENSORS.values(), ids=list(TENSORS))
def test_hostile_tensors_are_refused(saved, data, said):
    put_tensors(saved, data)
    assert said in refused(saved)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.fill_(float("nan")), "contains NaN or infinite"),
        (lambda t: t.fill_(float("inf")), "contains NaN or infinite"),
        (lambda t: t.half(), "dtype float16, wanted float32"),
        (lambda t: t.double(), "dtype float64, wanted float32"),
        (lambda t: t.to(torch.complex64), "wanted float32"),
        (lambda t: t.int(), "dtype int32"),
        (lambda t: t.reshape(-1), "has shape ("),
        (lambda t: t.new_zeros(0), "has shape"),
    ],
)
def test_other_numbers_are_refused(saved, change, said):
    tensors = tensors_of(saved)
    name = "trunk.reader.token.weight"
    tensors[name] = change(tensors[name]).contiguous()
    put_tensors(saved, safetensors.torch.save(tensors))
    message = refused(saved)
    assert said in message and name in message


def test_tensors_that_overlap_are_refused(saved):
    data = (saved / "policy.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    told = json.loads(data[8 : 8 + size])
    names = [name for name in told if told[name]["shape"] == told["trunk.blocks.0.up.weight"]["shape"]]
    told[names[1]]["data_offsets"] = told[names[0]]["data_offsets"]
    put_tensors(saved, header(told) + data[8 + size :])
    assert "is damaged" in refused(saved)


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors"])
def test_a_file_that_is_a_link_to_elsewhere_is_not_read(saved, name):
    outside = saved.parent.parent / "outside"
    os.replace(saved / name, outside)
    (saved / name).symlink_to(outside)
    assert "is a link that leads out of" in refused(saved)
    (saved / name).unlink()
    os.replace(outside, saved / "inside")
    (saved / name).symlink_to("inside")
    load_policy(saved)


def test_a_policy_that_is_a_link_out_of_its_run_is_not_read(saved):
    os.rename(saved, saved.parent.parent / "elsewhere")
    saved.symlink_to(saved.parent.parent / "elsewhere")
    with pytest.raises(CheckpointError, match="leads out of"):
        load_policy(saved.parent)


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors"])
def test_nobody_waits_for_a_pipe_or_a_device(saved, name):
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(CheckpointError):
        load_policy(saved)
    (saved / name).unlink()
    (saved / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError):
        load_policy(saved)


def test_what_is_evaluated_is_written_beside_the_policy_and_nowhere_else(saved):
    target = saved.parent.parent / "victim"
    target.mkdir()
    (target / "results.csv").write_text("mine")
    (saved.parent / "evaluation").symlink_to(target)
    with pytest.raises(UserError, match="evaluation is a link that leads out of"):
        beside(saved, "evaluation")
    (saved.parent / "report").mkdir()
    (saved.parent / "report" / "results.csv").symlink_to(target / "results.csv")
    with pytest.raises(UserError, match="results.csv is a link that leads out of"):
        beside(saved, "report")
    (saved.parent / "report" / "results.csv").unlink()
    assert beside(saved, "report") == saved.parent / "report"
    assert (target / "results.csv").read_text() == "mine"


def test_links_are_followed_inside_a_folder_only(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to("b")
    check_links(tmp_path / "a")
    check_links(tmp_path / "missing")
    (tmp_path / "a" / "b" / "up").symlink_to("../..")
    with pytest.raises(UserError, match="b/up is a link that leads out of"):
        check_links(tmp_path / "a")
    (tmp_path / "a" / "b" / "up").unlink()
    os.mkfifo(tmp_path / "a" / "b" / "pipe")
    with pytest.raises(UserError, match="pipe is neither a file nor a folder"):
        check_links(tmp_path / "a")


def test_what_the_maker_allowed_his_robots_does_not_count_here(saved, tmp_path):
    robot, outside = tmp_path / "robot", tmp_path / "outside.xml"
    robot.mkdir()
    outside.write_text("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    (robot / "r.xml").write_text('<mujoco><include file="../outside.xml"/></mujoco>')
    config = {
        "_target_": "somite.envs.locomotion.RobotSet",
        "morphology": str(robot / "r.xml"),
        "files_from": "/",
        "compile_seconds": 10**6,
    }
    rewrite(saved, lambda values: values["environment"].update(config=config))
    agent = load_policy(saved)
    with pytest.raises(UserError, match="outside.xml.* lies outside"):
        task_of(agent)
    with pytest.raises(UserError, match="no actuator"):
        task_of(agent, {"files_from": str(tmp_path)})  # allowed by the user, and read


@pytest.mark.parametrize(
    "change",
    [
        {"family": ["x"]},
        {"family": None},
        {"family": 3},
        {"split": {"a": 1}},
        {"bodies": {"a": 1}},
        {"bodies": [{"_target_": "somite.envs.locomotion.BodySet"}]},
        {"bodies": 5},
        {"frame_skip": "five"},
        {"task": []},
        {"task": {"goal": {}}},
        {"task": {"control_cost": {}}},
        {"task": {"reset_noise": "x"}},
        {"task": {"height": "ab"}},
        {"variation": {"mass": "x"}},
        {"variation": {"variants": 10**9}},
        {"damage": {"step": "x"}},
        {"world": {"strips": -1, "step_height": [0, 1]}},
        {"_target_": "somite.envs.locomotion.RobotSet", "morphology": "/dev/zero"},
        {"_target_": "somite.envs.locomotion.RobotSet", "morphology": "/proc/self/mem", "family": None},
        {"unknown": 1},
    ],
)
def test_an_environment_that_cannot_be_is_refused_in_one_message(change):
    config = {**ENVIRONMENT["config"], **change}
    with pytest.raises(UserError) as error:
        task_set_of(config).make_vec(["cheetah_2_back"], 1, threads=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["os.system", "os.PathLike", "somite.envs.errors.UserError", "evil.Task"])
def test_an_environment_that_is_no_task_is_refused(target):
    with pytest.raises(UserError, match="say env._target_=|this environment is a '(os|somite)"):
        task_set_of({"_target_": target})
    assert "evil" not in sys.modules


def test_a_policy_without_an_environment_is_told(saved):
    rewrite(saved, lambda values: values.update(environment={}))
    with pytest.raises(UserError, match="does not say in which environment"):
        task_of(load_policy(saved))


def test_a_policy_of_ours_is_loaded_as_before(saved):
    """The negative control of all of the above."""
    agent = load_policy(saved)
    assert isinstance(task_of(agent), BodySet)
    assert tensors_of(saved).keys() == agent.policy.state_dict().keys()
