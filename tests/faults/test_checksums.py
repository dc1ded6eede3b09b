"""A damaged checkpoint is named in one sentence, with the one before it that is whole and how to use it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from somite.agents.storage.run_folder import (
    go_back_to,
    last_checkpoint,
    list_checkpoints,
    split_checkpoint,
    step_of,
)
from somite.agents.storage.training_state import find_fault, read_facts, read_training_state
from somite.envs.errors import UserError
from somite.scripts import train
from tests.agents.runs import ROLLOUT, TINY, make_run, read_metrics


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of two steps, as the command leaves it."""
    folder = tmp_path_factory.mktemp("checksums")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main(list(TINY))
    (run,) = (folder / "runs").iterdir()
    return run


@pytest.fixture
def run(learnt: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(learnt, tmp_path / "runs" / learnt.name))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_format(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


STATE, ABOUT, TENSORS = "training_state/state.pt", "training_state/state.json", "policy/policy.safetensors"


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (STATE, truncate, "is truncated: it has [0-9,]+ bytes, [0-9,]+ were written"),
        (STATE, flip, "was altered or truncated: its sha256 is"),
        (STATE, Path.unlink, "cannot be read: No such file"),
        (ABOUT, Path.unlink, "is missing: the checkpoint is not whole"),
        (ABOUT, truncate, "is damaged: not JSON"),
        (ABOUT, lambda path: path.write_text("[1]"), "is damaged: it has no format"),
        (ABOUT, other_format, "is of format 99, this version reads 2"),
        (TENSORS, truncate, "was altered or truncated"),
        (TENSORS, flip, "was altered or truncated"),
        ("policy/policy.json", empty, "is damaged: not JSON"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(run: Path, name: str, damage: object, said: str) -> None:
    before, last = list_checkpoints(run)
    assert find_fault(last) is None, "the control"
    damage(last / name)
    with pytest.raises(UserError) as caught:
        make_run(run)
    message = str(caught.value)
    assert re.search(said, message) and str(last / name) in message
    assert message.endswith(f"{before} is whole; go on from it with: somite-train resume={before}")
    assert len(message.splitlines()) == 1


def test_where_none_is_whole_that_is_said(run: Path) -> None:
    for checkpoint in list_checkpoints(run):
        truncate(checkpoint / STATE)
    with pytest.raises(UserError, match="no checkpoint before it that is whole; .*start_from="):
        read_training_state(last_checkpoint(run))


def test_a_state_says_what_it_is_of(run: Path) -> None:
    facts = read_facts(last_checkpoint(run))
    assert (facts["done"], facts["of"], facts["budget"], facts["steps"]) == (384, "total_steps", 384, 384)
    assert facts["device"] == "cpu" and facts["threads"] == 1
    assert {"somite", "torch", "numpy", "mujoco", "stable-baselines3", "cma", "python"} <= set(
        facts["versions"]
    )
    assert facts["size"] == (last_checkpoint(run) / STATE).stat().st_size


def test_the_advice_is_a_command_that_works(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    truncate(last_checkpoint(run) / STATE)
    with pytest.raises(SystemExit) as leaving:
        train.main(["resume=last"])
    assert leaving.value.code == 2
    advice = capsys.readouterr().err.strip().split("somite-train ")[-1]
    assert advice.endswith(f"checkpoints/{2 * ROLLOUT}")
    train.main([advice])
    assert f"set aside: {run}/checkpoints/384.set_aside" in capsys.readouterr().out
    assert [step_of(path) for path in list_checkpoints(run)] == [2 * ROLLOUT, 3 * ROLLOUT]
    assert find_fault(last_checkpoint(run)) is None
    assert [int(row["step"]) for row in read_metrics(run) if row["time/fps"]] == [128, 256, 384]


def test_going_back_deletes_nothing_and_publishes(run: Path) -> None:
    before, last = list_checkpoints(run)
    (aside,) = go_back_to(run, step_of(before))
    assert find_fault(aside) is None and not last.exists() and last_checkpoint(run) == before
    said = json.loads((run / "policy" / "policy.json").read_text())["training"]
    assert said["steps"] == step_of(before)
    make_run(run).learn()
    (again,) = go_back_to(run, step_of(before))
    assert aside.is_dir() and again.name == "384.set_aside-2"
    with pytest.raises(UserError, match="no checkpoint of step 25; did you mean '256'"):
        go_back_to(run, 25)


def test_a_checkpoints_path_is_told_from_a_runs() -> None:
    assert split_checkpoint("runs/a/checkpoints/100") == (Path("runs/a"), 100)
    assert split_checkpoint("last/checkpoints/5") == (Path("last"), 5)
    assert split_checkpoint("runs/100") == (Path("runs/100"), None)
