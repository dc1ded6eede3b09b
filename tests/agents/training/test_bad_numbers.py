"""Numbers that are not finite and physics that diverges: what is learnt is never saved broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hydra.errors import InstantiationException

from somite.agents import load_policy
from somite.agents.storage.run_folder import last_checkpoint, list_checkpoints
from somite.agents.training.faults import RunFault
from somite.agents.training.loop import Run
from tests.agents.algorithms.test_clone_run import make_clone, teacher  # noqa: F401 - a fixture
from tests.agents.exact import differences
from tests.agents.runs import ROLLOUT, TINY, compose, make_run, read_metrics

WILD = """<mujoco><option timestep="0.02"/><worldbody><geom type="plane" size="9 9 1"/>
<body name="torso" pos="0 0 1"><freejoint/><geom type="capsule" size="0.05 0.2"/>
<body name="arm"><joint name="elbow" axis="0 1 0"/>
<geom type="capsule" size="0.01" fromto="0 0 0 0.2 0 0"/></body></body></worldbody>
<actuator><motor joint="elbow" gear="{gear}" ctrlrange="-1 1"/></actuator></mujoco>"""
"""A robot whose motor is so strong that its simulation diverges, with a gear of 1e7."""


def robot(tmp_path: Path, gear: float, *settings: str) -> Run:
    file = tmp_path / "robot.xml"
    file.write_text(WILD.format(gear=gear))
    others = [setting for setting in TINY if not setting.startswith("env.bodies")]
    return Run(
        compose(*others, "env=locomotion", f"env.morphology={file}", *settings),
        tmp_path / "run",
        torch.device("cpu"),
    )


def spoil_loss(run: Run, update: int) -> None:
    """The loss is not a number from the given minibatch on."""
    learn, count = run.learner.network.learn, [0]

    def spoilt(batch):
        count[0] += 1
        (outputs, values), auxiliary = learn(batch)
        return (outputs * (np.nan if count[0] >= update else 1), values), auxiliary

    run.learner.network.learn = spoilt


def test_a_loss_that_is_not_a_number_stops_the_run_before_anything_of_it_is_saved(
    learnt: Run, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    spoil_loss(run, 10)  # in the third update, of which the rollout ends at step 384
    with pytest.raises(RunFault) as error:
        run.learn()
    told, folder = str(error.value), tmp_path / "run" / "diagnosis" / "384"
    assert told.startswith("the gradient of ") and "at step 384; nothing of this update was saved" in told
    assert str(folder) in told and str(last_checkpoint(tmp_path / "run")) in told and "resume=" in told
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["128", "256"]
    saved = load_policy(tmp_path / "run").policy.state_dict()
    assert all(torch.isfinite(value).all() for value in saved.values())
    said = json.loads((folder / "what.json").read_text())
    bad = [name for name, found in said["tensors"].items() if found["not_finite"]]
    assert bad and all(name.startswith("gradient/") for name in bad), "parameters and rollout were still good"
    assert said["what"].split(" is not")[0].startswith("the gradient of " + bad[0].removeprefix("gradient/"))
    tensors = safetensors.torch.load_file(folder / "tensors.safetensors")
    assert set(tensors) == set(said["tensors"]) and tensors["rollout/observation/tokens"].shape[0] == 128
    # What is saved is what goes on: without the fault, the rest is that of a run which never had it.
    make_run(tmp_path / "run").learn()
    assert differences(learnt.folder, tmp_path / "run") == []


def test_a_parameter_that_overflows_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.learner._set_rate = lambda rate: run.learner.optimizer.param_groups[0].update(lr=1e39)
    with pytest.raises(RunFault, match=r"^the (parameter|gradient of) \S+.* is not finite at step 128"):
        run.learn()
    assert not (tmp_path / "policy").exists(), "there was nothing good to save"


def test_cloning_notices_a_loss_that_is_not_a_number(tmp_path: Path, teacher: Path) -> None:  # noqa: F811
    run = make_clone(tmp_path, teacher)
    loss, count = run.learner._loss, [0]

    def spoilt(*given):
        count[0] += 1
        return loss(*given) * (np.nan if count[0] > 50 else 1)  # in the fourth rollout's update

    run.learner._loss = spoilt
    with pytest.raises(RunFault, match="the gradient of .* is not finite at step 4,096"):
        run.learn()
    assert last_checkpoint(tmp_path).name == "2048"
    assert all(torch.isfinite(v).all() for v in load_policy(tmp_path).policy.state_dict().values())


def test_a_body_whose_simulation_keeps_diverging_stops_the_run(tmp_path: Path) -> None:
    run = robot(tmp_path, 1e7)
    with pytest.raises(RunFault, match=r"robot diverged in \d+\.\d% of the steps .* step 128, more than"):
        run.learn()
    assert last_checkpoint(tmp_path / "run").name == "0", "what had been learnt before"
    with pytest.raises(InstantiationException, match="max_diverged must be a number from 0 to 1"):
        robot(tmp_path, 1e7, "algorithm.max_diverged=1.5")


def test_below_that_share_it_is_counted_and_the_others_go_on(tmp_path: Path) -> None:
    run = robot(tmp_path, 1e7, "algorithm.max_diverged=1", "algorithm.validate_every=0")
    run.learn()
    told = [row["rollout/diverged"] for row in read_metrics(tmp_path / "run")]
    diverged = [float(value) for value in told if value]
    assert diverged[0] > 0 and diverged == sorted(diverged)
    assert all(torch.isfinite(v).all() for v in run.policy.state_dict().values())


def test_an_error_in_a_rollout_loses_nothing_that_was_learnt(learnt: Run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "algorithm.checkpoint_every=1e6")
    step, count = run.learner.env.step, [0]

    def fails(actions):
        count[0] += 1
        if count[0] == 2 * ROLLOUT // 8 + 5:
            raise RuntimeError("a worker failed")
        return step(actions)

    run.learner.env.step = fails
    with pytest.raises(RuntimeError, match="a worker failed"):
        run.learn()
    assert last_checkpoint(tmp_path / "run").name == str(2 * ROLLOUT)
    make_run(tmp_path / "run").learn()
    assert differences(learnt.folder, tmp_path / "run") == []
