"""``somite-export``: what it writes and describes, what it refuses, and what a failure leaves."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from somite.agents import Agent, load_policy
from somite.agents.bundled import bundled_folder
from somite.agents.evaluation.runs import task_of
from somite.agents.export import export
from somite.agents.export.check import random_observation
from somite.agents.export.graph import Sizes
from somite.agents.storage.atomic import replace_files
from somite.agents.storage.policy import save_policy
from somite.envs.errors import UserError
from somite.scripts import export as script
from tests.agents.export.exports import TOLERANCE, build, exported

pytest.importorskip("onnxruntime", reason="the export needs its extra")

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "docs" / "results" / "cheetah_smp_split"


@pytest.fixture
def saved(tmp_path):
    """A run with an ordinary network of limbs, which is soon exported."""
    save_policy(tmp_path / "run" / "policy", build("limbs/mlp"), environment={}, training={"steps": 7})
    return tmp_path / "run"


def command(monkeypatch, *arguments):
    """Runs ``somite-export`` here; the exit code."""
    monkeypatch.setattr(sys, "argv", ["somite-export", *map(str, arguments)])
    try:
        script.main()
    except SystemExit as leaving:
        return leaving.code
    return 0


def test_a_kept_policy_is_exported_for_one_body_from_the_command_line(tmp_path, monkeypatch, capsys):
    import onnx
    import onnxruntime

    file = tmp_path / "new" / "cheetah.onnx"
    assert command(monkeypatch, f"run={KEPT / 'smp-0'}", f"output={file}", "body=cheetah_4_front") == 0
    said = capsys.readouterr().out
    assert "fixed tokens=4, joints=1: those of cheetah_4_front" in said and "largest difference" in said
    assert {path.name for path in file.parent.iterdir()} == {"cheetah.onnx", "cheetah.onnx.json"}
    onnx.checker.check_model(str(file))
    session = onnxruntime.InferenceSession(str(file))
    about = json.loads(session.get_modelmeta().custom_metadata_map["somite"])
    assert about == json.loads(export.described(file).read_text())
    assert [i.name for i in session.get_inputs()] == ["tokens", "joints"], "the rest is known of a body"

    agent = load_policy(KEPT / "smp-0")
    assert about["sha256"] == agent.description["sha256"] and about["policy"] == "SMP"
    assert about["bodies"] == {side: agent.environment[side] for side in ("seen", "unseen")}
    assert about["check"]["largest_difference"] < TOLERANCE and about["memory"] == {}
    token = about["features"]["token"]
    assert [f["name"] for f in token] == [f.name for f in agent.policy.spec.token] and token[0]["unit"] == "m"
    assert token[-1]["columns"][1] == agent.policy.spec.token_size
    names = [limb["name"] for limb in about["body"]["limbs"]]
    assert names == ["torso", "bthigh", "fthigh", "fshin"]
    assert about["body"]["limbs"][3]["joints"][0]["actuator"]["range"] == [-1.0, 1.0]

    env = task_of(agent).make_vec(["cheetah_4_front"], 5, threads=1)
    observation, _ = env.reset(seed=1)
    for _ in range(20):
        actions = session.run(["action"], {key: observation[key] for key in ("tokens", "joints")})[0]
        np.testing.assert_allclose(actions, agent.act(observation), atol=TOLERANCE)
        observation, *_ = env.step(actions)
    assert np.abs(actions).max() > 0.1
    env.close()
    inputs, outputs = (
        {key: np.array(value, np.float32) for key, value in about["example"][side].items()}
        for side in ("inputs", "outputs")
    )
    np.testing.assert_allclose(session.run(["action"], inputs)[0], outputs["action"], atol=TOLERANCE)


def test_memory_and_discrete_actions_are_described(tmp_path, caplog, monkeypatch):
    file, name = tmp_path / "policy.onnx", "decisions/deep_set"
    monkeypatch.setattr(export, "to_onnx", lambda *given: copy.deepcopy(exported(name)[2]))
    with caplog.at_level(logging.INFO):
        export.export_policy(Agent(build(name)), file)
    about = json.loads(export.described(file).read_text())
    assert about["memory"]["hidden"] == {
        "input": "memory.hidden",
        "output": "memory.hidden.next",
        "start": 0.0,
    }
    assert about["free_axes"] == ["batch", "tokens"] and about["fixed_axes"] == {}
    assert [o["name"] for o in about["outputs"]][:2] == ["action", "choice"]
    assert about["outputs"][1]["shape"] == ["batch", 3] and "[2, 3, 1]" in about["outputs"][1]["meaning"]
    assert "logits" in about["outputs"][0]["meaning"] and about["body"] is None
    assert "any size of batch, tokens" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["format=onx"], "format must be onnx, got 'onx'; did you mean 'onnx'?"),
        (["run=nobody"], "There is no run 'nobody'"),
        (["output=policy.pt"], "policy.pt must be a file that ends in .onnx, such as policy.onnx"),
        (["output=a_folder.onnx"], "a_folder.onnx is a folder"),
        (["tolerance=0"], "tolerance must be a number above 0 and at most 1,000,000, got 0"),
        (["tolernce=1"], "did you mean 'tolerance'?"),
    ],
)
def test_wrong_arguments_say_so(saved, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(saved.parent)
    Path("a_folder.onnx").mkdir()
    before = sorted(saved.parent.rglob("*"))
    assert command(monkeypatch, "run=run", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert sorted(saved.parent.rglob("*")) == before


def test_bodies_that_are_not_there_say_so(tmp_path):
    with pytest.raises(UserError, match="did you mean 'cheetah_4_front'"):
        export.export_policy(load_policy(KEPT / "smp-0"), tmp_path / "a.onnx", body="cheetah_4_frnt")
    with pytest.raises(UserError, match="body=unseen means 3 bodies"):
        export.export_policy(load_policy(KEPT / "smp-0"), tmp_path / "a.onnx", body="unseen")
    with pytest.raises(UserError, match="AttentionNeuron reads sensors, which no body tells; leave body out"):
        export.export_policy(Agent(build("sensors/neuron")), tmp_path / "a.onnx", body="ant")
    assert not list(tmp_path.iterdir())


def test_missing_packages_say_what_to_install(saved, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert command(monkeypatch, f"run={saved}") == 2
    assert "format=onnx needs onnxruntime: pip install 'somite[export]'" in capsys.readouterr().err


def test_a_graph_that_acts_otherwise_is_not_written(saved, monkeypatch, capsys):
    old = saved / "policy.onnx"
    old.write_text("old")
    runner = export.runner

    def another(model):
        run = runner(model)
        return lambda inputs: {"action": run(inputs)["action"] + np.float32(1e-4)}

    monkeypatch.setattr(export, "to_onnx", lambda *given: copy.deepcopy(exported("limbs/mlp")[2]))
    monkeypatch.setattr(export, "runner", another)
    assert command(monkeypatch, f"run={saved}") == 2
    assert "the exported MLP differs from torch by 1.0e-04, allowed is 1.0e-05" in capsys.readouterr().err
    assert old.read_text() == "old" and {p.name for p in saved.iterdir()} == {"policy", "policy.onnx"}
    assert command(monkeypatch, f"run={saved}", "tolerance=1e-3") == 0
    assert {p.name for p in saved.iterdir()} == {"policy", "policy.onnx", "policy.onnx.json"}
    assert len(old.read_bytes()) > 1000 and load_policy(saved), "nothing else was touched"


@pytest.mark.parametrize("fails", ["replace", "fsync"])
def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch, fails):
    files = {tmp_path / "a.json": b"new", tmp_path / "a.onnx": b"new"}
    for file in files:
        file.write_bytes(b"old")

    def full(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="the disk is full"):
        replace_files(files)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(files, b"old")


def test_a_link_in_a_strangers_folder_leads_nothing_elsewhere(tmp_path):
    victim, stranger = tmp_path / "victim", tmp_path / "stranger"
    victim.write_text("mine")
    stranger.mkdir()
    (stranger / ".policy.onnx.writing").symlink_to(victim)
    replace_files({stranger / "policy.onnx": b"new"})
    assert victim.read_text() == "mine" and (stranger / "policy.onnx").read_bytes() == b"new"


def test_the_exporter_is_silent_and_logging_is_as_before(caplog):
    with pytest.raises(ZeroDivisionError), export._quiet():
        logging.getLogger("onnxscript.something").warning("noise")
        raise ZeroDivisionError
    logging.getLogger("onnxscript.something").warning("heard again")
    assert "noise" not in caplog.text and "heard again" in caplog.text


def test_the_page_tells_how_to_run_a_file_with_memory(tmp_path, monkeypatch):
    name, rng = "sensors/neuron", np.random.default_rng(2)
    monkeypatch.setattr(export, "to_onnx", lambda *given: copy.deepcopy(exported(name)[2]))
    monkeypatch.chdir(tmp_path)
    policy = build(name)
    export.export_policy(Agent(policy), "policy.onnx")
    agent, told, moved = Agent(policy), [], []

    def read_sensors():
        observation = random_observation(policy, Sizes(1, 7), rng)
        told.append(observation)
        return observation

    class Over(Exception):
        pass

    def move(action):
        moved.append(action)
        if len(moved) == 4:
            raise Over
        return read_sensors()

    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    assert len(block.splitlines()) <= 16
    with pytest.raises(Over):
        exec(compile(block, "export.md", "exec"), {"read_sensors": read_sensors, "move": move})
    for observation, action in zip(told, moved, strict=True):
        np.testing.assert_allclose(action, agent.act(observation), atol=TOLERANCE)


def test_a_bundled_agent_is_written_here_and_not_where_the_package_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = bundled_folder("cheetah-smp")
    assert export._output(None, folder).resolve() == tmp_path.resolve() / "cheetah-smp.onnx"
    assert export._output(None, Path("runs/mine/best")) == Path("runs/mine/best.onnx")
