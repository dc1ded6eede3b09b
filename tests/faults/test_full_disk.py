"""Saving on a disk that is full, on a folder that is read-only, under a limit of file size: really so."""

from __future__ import annotations

import csv
import errno
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard.summary import scalar, text

from somite.agents import load_policy
from somite.agents.storage.run_folder import last_checkpoint, list_checkpoints, step_of
from somite.agents.storage.save_errors import EXIT_UNSAVED, SaveErrors
from somite.agents.storage.training_state import find_fault
from somite.agents.training import records
from somite.agents.training.records import EventFile, MetricsCsv
from somite.envs.errors import UserError

from .processes import PPO, ROLLOUT, Nursery, Started, listing, only_run

SAVE = "somite.agents.training.loop:Run.save"
LENGTH = 4
RUN = (*PPO, f"algorithm.total_steps={LENGTH * ROLLOUT}")
DISK = {"name": "full_disk", "size": "6m", "what": SAVE}
READ_ONLY = {"name": "read_only", "what": SAVE}
LIMIT = {"name": "small_files", "what": SAVE, "size": 20_000}


def steps_of(run: Path, tag: str) -> list[int]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


def finished(nursery: Nursery, folder: Path, mishap: dict, *arguments: str) -> tuple[int, Started, Path]:
    """Exit code, output and run of a run to which something happens."""
    folder.mkdir()
    if "size" not in mishap or mishap["name"] == "full_disk":
        mishap = mishap | {"folder": str(folder)}
    started = nursery.start(folder, *RUN, *arguments, mishaps=[mishap])
    code = started.wait()
    if code == 99:
        pytest.skip("this machine allows no user and mount namespaces")
    left = folder.with_name(f"{folder.name}-after") if mishap["name"] == "full_disk" else folder
    return code, started, only_run(left)


@pytest.mark.parametrize(
    ("mishap", "reason"),
    [
        (DISK, "No space left on device"),
        (READ_ONLY, "Read-only file system"),
        pytest.param(LIMIT, "File too large", marks=pytest.mark.slow),
    ],
    ids=["full", "read-only", "limit"],
)
def test_a_run_that_cannot_save_stops_and_the_old_checkpoint_stays_whole(
    nursery: Nursery, tmp_path: Path, mishap: dict, reason: str
) -> None:
    until = {"until": 99} if mishap is LIMIT else {}
    code, started, run = finished(nursery, tmp_path / "w", mishap | {"call": 3} | until)
    assert code == EXIT_UNSAVED, started.printed
    assert "Traceback" not in started.printed and reason in started.printed
    assert "the run stops (on_save_error=stop)" in started.printed
    checkpoint = last_checkpoint(run)
    assert find_fault(checkpoint) is None and "is whole; when there is room again" in started.printed
    assert f"of step {step_of(checkpoint):,}" in started.printed
    assert load_policy(run).description["training"]["steps"] == step_of(checkpoint)
    if mishap is not READ_ONLY:
        assert not list(run.rglob("*.writing"))


@pytest.mark.parametrize(
    "mishap",
    [DISK, pytest.param(READ_ONLY, marks=pytest.mark.slow), pytest.param(LIMIT, marks=pytest.mark.slow)],
    ids=["full", "read-only", "limit"],
)
def test_a_run_that_goes_on_saves_again_and_has_every_scalar(
    nursery: Nursery, tmp_path: Path, mishap: dict
) -> None:
    code, started, run = finished(
        nursery, tmp_path / "w", mishap | {"call": 2, "until": 3}, "on_save_error=continue"
    )
    assert code == 0, started.printed
    assert "Traceback" not in started.printed
    assert "the checkpoint of" in started.printed and "the run goes on and tries again" in started.printed
    assert "is written again" in started.printed
    assert step_of(last_checkpoint(run)) == LENGTH * ROLLOUT
    assert all(find_fault(checkpoint) is None for checkpoint in list_checkpoints(run))
    assert load_policy(run).description["training"]["steps"] == LENGTH * ROLLOUT
    steps = [ROLLOUT * i for i in range(1, LENGTH + 1)]
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["time/fps"]]
    assert [int(row["step"]) for row in rows] == steps
    shares = [float(row["time/save_share"]) for row in rows]
    assert all(0 <= share < 1 for share in shares) and shares[-1] > 0
    assert steps_of(run, "time/fps") == steps
    assert not list(run.rglob("*.writing"))


def test_an_end_that_could_not_be_saved_is_no_success(nursery: Nursery, tmp_path: Path) -> None:
    code, started, run = finished(
        nursery, tmp_path / "w", LIMIT | {"call": 3, "until": 99}, "on_save_error=continue"
    )
    assert code == EXIT_UNSAVED and "the end of this run could not be saved" in started.printed
    assert find_fault(last_checkpoint(run)) is None


def test_where_nothing_can_be_written_a_run_does_not_begin(nursery: Nursery, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    (folder / "runs").mkdir(parents=True)
    mishap = {"name": "read_only", "folder": str(folder), "call": 1}
    mishap["what"] = "somite.scripts.cli.command_line:check_names"
    started = nursery.start(folder, *RUN, mishaps=[mishap])
    if started.wait() == 99:
        pytest.skip("this machine allows no user and mount namespaces")
    assert started.wait() == 2 and started.printed.count("\n") == 1
    assert "cannot be made: Read-only file system" in started.printed


@pytest.mark.slow
def test_where_nothing_can_be_written_a_run_does_not_go_on(nursery: Nursery, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    assert nursery.start(folder, *RUN).wait() == 0
    run = only_run(folder)
    before = listing(run)
    mishap = {"name": "read_only", "folder": str(folder), "call": 1}
    mishap["what"] = "somite.scripts.cli.command_line:check_names"
    started = nursery.start(folder, "resume=last", "algorithm.total_steps=1e4", mishaps=[mishap])
    if started.wait() == 99:
        pytest.skip("this machine allows no user and mount namespaces")
    assert started.wait() == 2 and started.printed.count("\n") == 1
    assert "cannot be written into: Read-only file system" in started.printed
    assert listing(run) == before


def test_a_fault_of_ours_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), SaveErrors(tmp_path, "continue").attempt("x"):
        raise ZeroDivisionError


class Full:
    """A file that takes some bytes and then says that the disk is full, until it has room."""

    def __init__(self, file: object, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def test_events_wait_and_no_half_record_stays(tmp_path: Path) -> None:
    """TensorBoard reads nothing behind half a record."""
    errors = SaveErrors(tmp_path, "continue")
    events = EventFile(tmp_path, 0, errors)
    events.add(scalar("a", 1.0), 1)
    whole = events._file
    events._file = Full(whole, room=10)
    events.add(scalar("a", 2.0), 2)
    events.add(scalar("a", 3.0), 3)
    assert errors._failing and steps_of(tmp_path, "a") == [1], "readable in between"
    events._file = whole
    events.add(scalar("a", 4.0), 4)
    events.close()
    assert not errors._failing and steps_of(tmp_path, "a") == [1, 2, 3, 4]


def test_pictures_that_wait_are_bounded_by_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_WAITING", 10_000)
    events = EventFile(tmp_path, 0, SaveErrors(tmp_path, "continue"))
    whole, events._file = events._file, Full(events._file, room=0)
    for step in range(9):
        events.add(text("picture", 3000 * "x"), step)
    events._file = whole
    events.add(scalar("a", 1.0), 9)
    events.close()
    found = Path(next(tmp_path.glob("events.*"))).stat().st_size
    assert 9_000 < found < 10_500 and steps_of(tmp_path, "a") == [9]


def test_a_row_that_was_half_written_by_a_killed_run_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,a\n128,1.0\n256,2.0\n38")
    MetricsCsv(path, 1000, SaveErrors(tmp_path)).close()
    assert path.read_text().split() == ["step,a", "128,1.0", "256,2.0"]
    path.write_text("step,a\n128,1.0\nnonsense\n256,2.0\n")
    with pytest.raises(UserError, match="is damaged at line 3; move it away"):
        MetricsCsv(path, 1000, SaveErrors(tmp_path))
    assert "nonsense" in path.read_text(), "left as it was"
