"""A run that is gone on with under other conditions works, and says what it is not any more."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from somite.agents.algorithms.on_policy import OnPolicyLearner
from somite.agents.storage.run_folder import last_checkpoint
from somite.agents.storage.training_state import DESCRIPTION, FOLDER
from somite.agents.training.loop import Run
from somite.envs.snapshots import Misfit
from tests.agents.exact import differences
from tests.agents.runs import ROLLOUT, make_run, read_metrics

LONGER = f"algorithm.total_steps={4 * ROLLOUT}"


@pytest.fixture
def finished(learnt: Run, tmp_path: Path) -> Path:
    return shutil.copytree(learnt.folder, tmp_path / "run")


def notes_of(folder: Path, *settings: str) -> str:
    run = make_run(folder, *settings)
    run.learn()
    assert int(read_metrics(folder)[-1]["step"]) >= 4 * ROLLOUT
    return "; ".join(run.changes.notes)


def test_a_longer_budget_is_another_schedule(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert notes_of(finished, LONGER) == "algorithm.total_steps is 512, was 384"
    assert "not what it would be had it never stopped: algorithm.total_steps is 512, was 384" in caplog.text


def test_with_a_constant_rate_a_run_that_is_extended_is_the_longer_one(tmp_path: Path) -> None:
    constant = "algorithm.learning_rate_schedule=constant"
    make_run(tmp_path / "long", LONGER, constant).learn()
    make_run(tmp_path / "short", constant).learn()
    assert notes_of(tmp_path / "short", LONGER, constant) == ""
    assert differences(tmp_path / "long", tmp_path / "short") == []


def test_what_is_only_shown_or_saved_may_change(finished: Path) -> None:
    changed = ("algorithm.checkpoint_every=1e4", "algorithm.keep_checkpoints=1", "algorithm.validate_every=0")
    assert notes_of(finished, LONGER, *changed) == "algorithm.total_steps is 512, was 384"


@pytest.mark.parametrize(
    "setting, told",
    [
        ("algorithm.num_envs=4", "algorithm.num_envs is 4, was 8"),
        ("env.task.control_cost=0.5", "env.task.control_cost is 0.5, was 0.1"),
        ("seed=3", "seed is 3, was 0"),
    ],
)
def test_other_environments_begin_new_episodes(
    finished: Path, caplog: pytest.LogCaptureFixture, setting: str, told: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert told in notes_of(finished, LONGER, setting)
    assert "all environments begin new episodes" in caplog.text


def test_another_precision_is_said_and_episodes_go_on(finished: Path) -> None:
    run = make_run(finished, LONGER, "precision=bf16")
    assert "precision is bf16, was float32" in run.changes.notes and not run.changes.new_episodes


def test_what_was_simulated_elsewhere_begins_new_episodes(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = last_checkpoint(finished) / FOLDER / DESCRIPTION
    file.write_text(json.dumps(json.loads(file.read_text()) | {"simulation": "warp"}))
    with caplog.at_level(logging.WARNING):
        assert "simulation is cpu, was warp" in notes_of(finished, LONGER)
    assert "all environments begin new episodes" in caplog.text


def test_what_it_was_trained_with_is_told_beside_the_policy(finished: Path) -> None:
    training = json.loads((finished / "policy" / "policy.json").read_text())["training"]
    assert (training["precision"], training["simulation"]) == ("float32", "cpu")


def test_another_machine_and_other_versions_are_said(finished: Path) -> None:
    file = last_checkpoint(finished) / FOLDER / DESCRIPTION
    said = json.loads(file.read_text())
    said |= {"device": "cuda:0", "processor": "an abacus", "threads": 64}
    said["versions"]["mujoco"] = "3.1.6"
    file.write_text(json.dumps(said))
    notes = notes_of(finished, LONGER)
    assert "device is cpu, was cuda:0" in notes and "processor is " in notes and "was an abacus" in notes
    assert "threads is 1, was 64" in notes and "was 3.1.6" in notes


def test_scales_of_rewards_that_were_not_kept_are_learnt_anew(finished: Path) -> None:
    unscaled = "algorithm.normalize_returns=false"
    assert "algorithm.normalize_returns is False, was True" in notes_of(finished, LONGER, unscaled)
    run = make_run(finished, LONGER.replace("512", "640"))
    assert not run.changes.new_episodes
    run.learn()


def test_rows_of_a_snapshot_that_does_not_fit_begin_new_episodes(
    finished: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self, taken):
        raise Misfit("the snapshot is of an older version")

    monkeypatch.setattr(OnPolicyLearner, "_go_on", refuse)
    with caplog.at_level(logging.WARNING):
        assert "the snapshot is of an older version" in notes_of(finished, LONGER)
    assert "all environments begin new episodes" in caplog.text
