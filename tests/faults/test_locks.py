"""Two runs never write into one folder: not by name, not by chance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from somite.agents.storage import run_folder as run_lock
from somite.agents.storage.run_folder import (
    checkpoint_folder,
    claim_folder,
    find_run,
    hold,
    holder,
    list_checkpoints,
    step_of,
    tidy,
)
from somite.envs.errors import UserError
from somite.scripts.cli import command_line
from somite.scripts.cli.jobs import own_folder

from .processes import LONG, PPO, Nursery, listing, only_run

HOLD = (
    "import sys, time; from somite.agents.storage.run_folder import hold; "
    "h = hold(sys.argv[1]); h.__enter__(); "
    "print('held', flush=True); time.sleep(60)"
)


def test_a_second_process_stops_before_it_has_written_anything(
    nursery: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = nursery.start(tmp_path, *PPO, LONG["ppo"])
    first.until(lambda: list(tmp_path.glob("runs/*/policy")))
    run = only_run(tmp_path)
    first.send(signal.SIGSTOP)
    try:
        time.sleep(0.2)
        before = listing(run)
        for arguments in ([f"hydra.run.dir={run}"], ["resume=last"], [f"hydra.run.dir='{run}'", "agent=smp"]):
            with pytest.raises(SystemExit) as leaving:
                command_line.run(lambda config: None, "train", arguments)
            said = capsys.readouterr().err
            assert leaving.value.code == 2 and len(said.splitlines()) == 1
            assert f"{run} is in use by process {first.pid} on {os.uname().nodename}" in said
        assert listing(run) == before
    finally:
        first.send(signal.SIGCONT)
    first.kill()
    resumed = nursery.start(tmp_path, f"resume={run}")  # what a dead process held is free
    step = step_of(list_checkpoints(run)[-1])
    resumed.until(lambda: step_of(list_checkpoints(run)[-1]) > step)
    resumed.send(signal.SIGTERM)
    assert resumed.wait() == 143, resumed.printed


def test_a_lock_ends_with_its_process_and_children_do_not_keep_it(tmp_path: Path) -> None:
    child = "import subprocess; subprocess.Popen(['sleep', '5'])"
    script = HOLD.replace("print('held'", f"{child}; print('held'")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    assert holder(tmp_path).startswith(f"process {process.pid} on ")
    with pytest.raises(UserError, match=f"is in use by process {process.pid} on .*, since "), hold(tmp_path):
        pass
    process.kill()
    process.wait()
    assert holder(tmp_path) is None
    with hold(tmp_path), hold(tmp_path):  # within one process, a run may hold what its command holds
        assert holder(tmp_path) == f"this process ({os.getpid()})"
    assert holder(tmp_path) is None


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lockf(file: object, flags: int) -> None:
        raise OSError(run_lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "lockf", lockf)
    with hold(tmp_path):
        assert "cannot be locked (No locks available): nothing keeps a second run out of it" in caplog.text


def claimed(path: Path) -> str:
    return claim_folder(path).name


def test_the_same_microsecond_gives_folders_of_their_own(tmp_path: Path) -> None:
    name = "2026-01-02_03-04-05-999998-cheetah-smp-ppo"
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(claimed, [tmp_path / name] * 24))
    assert len(set(names)) == 24 == len(list(tmp_path.iterdir()))
    assert min(names) == name and max(names) == "2026-01-02_03-04-06-000021-cheetah-smp-ppo"
    with pytest.raises(UserError, match="is there already; choose another"):
        claim_folder(tmp_path)


class _Frozen(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5, 6)


def test_two_commands_in_the_same_microsecond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hydra.core.utils.datetime", _Frozen)
    folders = []

    def task(config: object) -> None:
        folders.append(command_line.program_folder())
        (folders[-1] / "policy").mkdir()

    for _ in range(2):
        command_line.run(task, "train", ["agent=smp"])
    assert [folder.name for folder in folders] == [
        "2026-01-02_03-04-05-000006-cheetah-smp-ppo",
        "2026-01-02_03-04-05-000007-cheetah-smp-ppo",
    ]
    assert find_run("last").name == folders[1].name


def test_a_run_that_fails_before_it_begins_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroDivisionError), own_folder(["agent=smp"], "train") as arguments:
        (run,) = (tmp_path / "runs").iterdir()
        assert arguments == ["agent=smp", f"hydra.run.dir='runs/{run.name}'"] and holder(run)
        raise ZeroDivisionError
    assert not list((tmp_path / "runs").iterdir())


def test_a_configuration_that_was_cut_short_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = []

    def task(config: object) -> None:
        configs.append(config)
        checkpoint_folder(command_line.program_folder(), 100).mkdir(parents=True, exist_ok=True)

    command_line.run(task, "train", ["agent=smp", "seed=3"])
    run = only_run(tmp_path)
    (run / ".hydra.1").mkdir()
    (run / ".hydra.1" / "config.yaml").write_text("seed: 4\nag")  # killed while Hydra wrote it
    command_line.run(task, "train", ["resume=last"])
    assert configs[1].seed == 3 and (run / ".hydra.2" / "overrides.yaml").is_file()


def test_what_a_kill_left_is_put_in_order(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    for name in (".100.previous", "200", ".200.previous", ".300.abc.writing", ".50.xyz.removing"):
        (checkpoints / name).mkdir(parents=True)
        (checkpoints / name / "of").write_text(name)
    (tmp_path / ".policy.previous").mkdir()
    (tmp_path / ".metrics.csv.writing").write_text("half")
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == [100, 200], "before it is tidy, too"
    tidy(tmp_path)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["100", "200"]
    assert (checkpoints / "200" / "of").read_text() == "200"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "policy"]
