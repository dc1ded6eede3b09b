"""``-m`` runs every combination; ``resume=<sweep>`` runs what is missing and goes on with the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from somite.agents.storage.run_folder import hold, last_checkpoint, list_checkpoints, step_of
from somite.agents.storage.training_state import read_facts, write_training_state
from somite.envs.errors import UserError
from somite.scripts.cli import command_line
from somite.scripts.cli.multirun import FILE, find_sweep, read_sweep, run_sweep

from .processes import PPO, ROLLOUT, Nursery

SWEEP = ["-m", "agent=smp,mlp", "algorithm.total_steps=1000"]


class Task:
    """Trains nothing: leaves a checkpoint that says how far it came."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.steps: dict[str, int] = {}
        self.interrupt_at: str | None = None

    def __call__(self, config: object) -> None:
        folder = command_line.program_folder()
        key = f"{config.agent._target_.split('.')[-1]} {config.seed}"
        if key == self.interrupt_at:
            raise SystemExit(143)
        self.ran.append((key, folder.name))
        steps = self.steps.get(key, 1000)
        if steps:
            checkpoint = folder / "checkpoints" / str(steps)
            checkpoint.mkdir(parents=True, exist_ok=True)
            write_training_state(checkpoint / "training_state", {}, {"done": steps, "of": "total_steps"})


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.chdir(tmp_path)
    return Task()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two runs, both finished."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command_line.run(Task(), "train", SWEEP)
    return folder


@pytest.fixture
def finished(swept: Path, tmp_path: Path, task: Task) -> Task:
    """A copy of it, in which we stand, and a task to go on with it."""
    shutil.copytree(swept / "runs", tmp_path / "runs")
    return task


def sweep_of(folder: Path) -> Path:
    (found,) = folder.glob(f"runs/*-sweep/{FILE}")
    return found.parent


def test_what_is_finished_is_skipped_and_the_rest_goes_on(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    task.steps, task.interrupt_at = {"SMP 1": 400}, "MLP 0"
    with pytest.raises(SystemExit) as leaving:
        command_line.run(task, "train", [*SWEEP, "seed=0,1"])
    sweep = sweep_of(tmp_path)
    assert leaving.value.code == 143
    assert f"the sweep goes on with: somite-train resume={sweep}" in capsys.readouterr().err
    first = dict(task.ran)
    assert list(first) == ["SMP 0", "SMP 1"]

    task.ran, task.steps, task.interrupt_at = [], {"SMP 1": 1001}, None
    with hold(read_sweep(sweep)[2].folder):
        command_line.run(task, "train", ["resume=last_sweep"])
    said = capsys.readouterr().out
    assert [key for key, _ in task.ran] == ["SMP 1", "MLP 1"], "what is in use is left alone"
    assert dict(task.ran)["SMP 1"] == first["SMP 1"], "in its own folder"
    lines = [line.split() for line in said.splitlines()]
    assert [line[0] for line in lines[:4]] == ["finished", "goes", "in", "begins"]
    assert "(1,000 steps)" in said and "(from step 400, 400 of 1,000 steps)" in said
    assert "4 runs, 1 finished, 1 in use, 2 to run" in said
    assert len(list((tmp_path / "runs").iterdir())) == 5, "four runs and the sweep"
    run = tmp_path / "runs" / first["SMP 1"]
    assert (run / ".hydra" / "config.yaml").is_file() and (run / ".hydra.1" / "config.yaml").is_file()


def test_a_finished_sweep_has_nothing_to_run_until_its_budget_is_raised(
    finished: Task, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command_line.run(finished, "train", [f"resume={sweep_of(tmp_path)}"])
    assert not finished.ran and "2 finished, 0 in use, 0 to run" in capsys.readouterr().out
    finished.steps = dict.fromkeys(("SMP 0", "MLP 0"), 2000)
    command_line.run(finished, "train", ["resume=last_sweep", "algorithm.total_steps=2000"])
    assert len(finished.ran) == 2 and "1,000 of 2,000" in capsys.readouterr().out


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def unlucky(config: object) -> None:
        if config.agent._target_.endswith("SMP"):
            raise UserError("the first is unlucky")
        task(config)

    with pytest.raises(SystemExit) as leaving:
        command_line.run(unlucky, "train", SWEEP)
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and said.count("failed: the first is unlucky") == 1
    assert "1 failed; try these again with: somite-train resume=" in said and "Traceback" not in said
    assert [key for key, _ in task.ran] == ["MLP 0"], "the others went on"
    task.ran = []
    command_line.run(task, "train", ["resume=last_sweep"])
    assert [key for key, _ in task.ran] == ["SMP 0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["agent=mlp"], "agent=mlp: a sweep goes on with its own runs; single keys that it does not vary"),
        (["agent=smp"], "agent=smp: a sweep goes on"),
        (["-m"], "-m: a sweep goes on"),
        (["algorithm.totl_steps=7"], "did you mean 'algorithm.total_steps'"),
    ],
)
def test_what_a_sweep_cannot_do(
    finished: Task, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as leaving:
        command_line.run(finished, "train", ["resume=last_sweep", *arguments])
    assert leaving.value.code == 2 and message in capsys.readouterr().err and not finished.ran


HOSTILE = {
    "hydra": {"overrides": ["hydra.job_logging.handlers.x={(): os.system}"], "folder": "a"},
    "launcher": {"overrides": ["+hydra/launcher=x"], "folder": "a"},
    "option": {"overrides": ["--config-dir=/tmp"], "folder": "a"},
    "outside": {"overrides": ["seed=1"], "folder": "../../a"},
    "absolute": {"overrides": ["seed=1"], "folder": "/a"},
    "itself": {"overrides": ["seed=1"], "folder": "."},
    "words": {"overrides": "seed=1", "folder": "a"},
    "number": 7,
    "module": {"overrides": ["env=gymnasium", "env.imports=[os]"], "folder": "a"},
    "folder": {"overrides": ["env=locomotion", "env.files_from=/"], "folder": "a"},
    "module in a part": {"overrides": ["env=gymnasium", "+env.kwargs={imports: os}"], "folder": "a"},
}


@pytest.mark.parametrize("job", list(HOSTILE.values()), ids=list(HOSTILE))
def test_a_sweep_from_a_stranger_runs_nothing_and_writes_nowhere_else(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture, job: object
) -> None:
    folder = tmp_path / "runs" / "theirs-sweep"
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps({"format": 1, "jobs": [job]}))
    with pytest.raises(SystemExit) as leaving:
        command_line.run(task, "train", ["resume=theirs-sweep"])
    said = capsys.readouterr().err
    assert leaving.value.code == 2 and str(FILE) in said and len(said.splitlines()) == 1
    assert not task.ran and [path.name for path in folder.iterdir()] == [FILE]


def test_what_a_sweep_may_not_ask_for_itself_is_said_again(task: Task, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "own-sweep"
    folder.mkdir(parents=True)
    jobs = [{"overrides": ["env=gymnasium", f"env.imports=[{m}]"], "folder": m} for m in ("os", "json")]
    (folder / FILE).write_text(json.dumps({"format": 1, "jobs": jobs}))
    command_line.run(task, "train", ["resume=own-sweep", "env.imports=[os,json]"])
    assert len(task.ran) == 2


def test_sweeps_are_found_by_name_and_damaged_ones_are_named(finished: Task, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no sweep in"):
        find_sweep("last_sweep", tmp_path / "nowhere")
    sweep = sweep_of(tmp_path)
    for name in (sweep.name, f"runs/{sweep.name}", str(sweep), str(sweep / FILE), "last_sweep"):
        assert find_sweep(name).resolve() == sweep
    run = read_sweep(sweep)[0].folder
    assert find_sweep("last") is None and find_sweep(run.name) is None and find_sweep(str(run)) is None
    (sweep / FILE).write_text("{")
    with pytest.raises(UserError, match="is damaged: not JSON"):
        read_sweep(sweep)


def test_a_folder_for_two_runs_is_refused(task: Task, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command_line.run(task, "train", [*SWEEP, "hydra.sweep.subdir=same"])
    assert "gives two runs of this sweep the folder runs/same" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists() and not task.ran


def test_helps_and_listings_start_no_sweep(task: Task, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / FILE).write_text("{")  # not even in the folder of one
    command_line.run(task, "train", ["--cfg", "job", "seed=3"])
    assert "seed: 3" in capsys.readouterr().out and not task.ran
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on(nursery: Nursery, tmp_path: Path) -> None:
    """Real runs: killed in the second of four, then to the end; the first is not touched again."""
    total = f"algorithm.total_steps={3 * ROLLOUT}"
    started = nursery.start(tmp_path, "-m", *PPO, total, "seed=0,1", "agent=smp,limb_transformer")
    started.until(lambda: list(tmp_path.glob(f"runs/*-1/checkpoints/{ROLLOUT}")))
    started.kill()
    jobs = read_sweep(sweep_of(tmp_path))
    first = (jobs[0].folder / "metrics.csv").read_bytes()
    resumed = nursery.start(tmp_path, "resume=last_sweep")
    assert resumed.wait(300) == 0, resumed.printed
    words = [line.split("  ")[0].strip() for line in resumed.printed.splitlines()[:4]]
    assert words[0] == "finished" and words[1] in ("goes on", "finished") and words[2:] == ["begins"] * 2
    assert (jobs[0].folder / "metrics.csv").read_bytes() == first
    for job in jobs:
        assert step_of(last_checkpoint(job.folder)) == 3 * ROLLOUT
        assert read_facts(last_checkpoint(job.folder))["done"] == 3 * ROLLOUT


@pytest.mark.slow
def test_the_console_command_itself(tmp_path: Path) -> None:
    """Not forked: SIGTERM to a sweep ends it with 143, and it says how it goes on."""
    command = [
        sys.executable,
        "-m",
        "somite.scripts.train",
        "-m",
        *PPO,
        "algorithm.total_steps=1e9",
        "seed=0,1",
    ]
    started = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while not list(tmp_path.glob("runs/*-0/policy")):
        assert started.poll() is None
    started.send_signal(signal.SIGTERM)
    _, said = started.communicate(timeout=120)
    sweep = sweep_of(tmp_path)
    assert started.returncode == 143 and f"the sweep goes on with: somite-train resume={sweep}\n" in said
    assert not list_checkpoints(read_sweep(sweep)[1].folder)


def test_a_sweep_with_an_invalid_value_is_refused_as_a_whole(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.run(task, "train", ["-m", "seed=0,-1"])
    assert ended.value.code == 2 and not task.ran and not (tmp_path / "runs").exists()
    assert capsys.readouterr().err == "seed must be a whole number from 0 to 4,294,967,295, got -1\n"


@pytest.mark.parametrize("given", [["hydra/sweeper=mine"], ["experiment=searched"]])
def test_a_plugin_that_decides_which_jobs_come_next_is_left_to_hydra(
    task: Task, tmp_path: Path, given: list[str]
) -> None:
    for file, text in {
        "hydra/sweeper/mine.yaml": "_target_: my_plugin.Sweeper\n",
        "experiment/searched.yaml": "# @package _global_\ndefaults:\n  - override /hydra/sweeper: mine\n",
    }.items():
        (tmp_path / "own" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / file).write_text(text)
    assert run_sweep(task, "train", [f"--config-dir={tmp_path / 'own'}", "-m", "seed=0,1", *given]) is None
    assert not task.ran and not (tmp_path / "runs").exists()
