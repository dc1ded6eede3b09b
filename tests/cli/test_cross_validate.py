"""Arms and trainings of ``somite-cross-validate``, and how they go on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from somite.agents.bundled import bundled_folder
from somite.agents.evaluation import cross_validation
from somite.envs.errors import UserError
from somite.scripts import cross_validate
from somite.scripts.cli.arms import read_arms, read_kept, with_arms
from somite.scripts.cli.multirun import Job
from somite.scripts.cross_validate import FILE, main

TINY = (
    "env.task.max_episode_steps=10",
    "agent.width=16",
    "algorithm.num_envs=15",
    "algorithm.n_steps=16",
    "algorithm.batch_size=60",
    "algorithm.n_epochs=1",
    "algorithm.total_steps=240",
    "algorithm.validate_every=0",
    "algorithm.zero_shot_every=0",
    "device=cpu",
    "episodes=1",
)


def test_values_of_a_key_become_arms() -> None:
    assert with_arms(["env=cheetah", "seeds=[0,1]"]) == ["env=cheetah", "seeds=[0,1]"]
    found = with_arms(["agent=smp,mlp", "env=ant", "algorithm.gamma=0.9,0.99", "--cfg", "job"])
    assert found[1:] == ["env=ant", "--cfg", "job"] and found[0].startswith("arms=")
    (arms,) = with_arms(["agent=smp,mlp", "algorithm.gamma=0.9,0.99"])
    names = ["smp-gamma_0.9", "smp-gamma_0.99", "mlp-gamma_0.9", "mlp-gamma_0.99"]
    assert re.findall(r"([\w.-]+): \[", arms) == names
    assert "mlp-gamma_0.9: ['agent=mlp', 'algorithm.gamma=0.9']" in arms
    with pytest.raises(UserError, match=r"seed=0,1: say seeds=\[0,1\]"):
        with_arms(["seed=0,1"])
    with pytest.raises(UserError, match="an arm of each value"):
        with_arms(["agent=smp,mlp", "arms={base: ''}"])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, tuple[str, ...]]]:
    """Nothing is trained or evaluated; the arguments that would have been are kept, by folder."""
    asked: list[dict[str, tuple[str, ...]]] = []

    def train(plan: cross_validate._Plan, jobs: object) -> tuple[dict, None]:
        asked.append({str(job.folder.relative_to(plan.output)): job.overrides for job in plan.to_run()})
        return {}, None

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cross_validate, "_train", train)
    monkeypatch.setattr(cross_validation, "cross_validate", lambda *given: None)
    return asked


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert left.value.code == 2
    return capsys.readouterr().err


def test_arms_are_added_and_stay_as_they_are(trained: list, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["output=out", "folds=[fold_0]", *TINY]
    main([*given, 'arms={base: "", kl: "algorithm.target_kl=0.03"}'])
    jobs, whats = trained.pop(), ("joint", "fold_0")
    assert list(jobs) == [f"{arm}/{what}-0" for arm in ("base", "kl") for what in whats]
    own = ("algorithm.target_kl=0.03", "threads=1", "env.split=fold_0", "seed=0")
    assert jobs["kl/fold_0-0"][-4:] == own
    key = "env.settings.cheetah.split"
    own = f"[env=families, 'env.families=[cheetah,hopper]', agent.width=32, split_key={key}]"
    Path("more.yaml").write_text(f"wide: {own}\n")
    main(["output=out", "arms=more.yaml"])  # with the arguments, folds and seeds of before
    jobs = trained.pop()
    assert list(jobs)[4:] == [f"wide/{what}-0" for what in whats]
    assert json.loads(Path("out", FILE).read_text())["episodes"] == 1
    assert set(TINY[1:-1]) <= set(jobs["wide/joint-0"]) and "agent.width=32" in jobs["wide/joint-0"]
    assert jobs["wide/fold_0-0"][-2:] == (f"{key}=fold_0", "seed=0")
    main([*given, "seeds=[1]", 'arms={kl: "algorithm.target_kl=3e-2"}'])  # the same, in other words
    assert list(trained.pop())[6:] == ["kl/joint-1", "kl/fold_0-1"]

    assert "of which is threads=2? Say arms={<name>" in refused(capsys, "output=out", "threads=2")
    before = Path("out", FILE).read_text()
    wrong = refused(capsys, *given, 'arms={kl: "algorithm.target_kl=0.05"}')
    assert "arm kl" in wrong and "algorithm.target_kl=0.05, was 0.03" in wrong
    assert "algorithm.taget_kl" in refused(capsys, *given, 'arms={new: "algorithm.taget_kl=0.05"}')
    assert json.loads(before) == json.loads(Path("out", FILE).read_text())


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("env.split=smp", "folds="),
        ("reference=limb_transfromer", "did you mean 'limb_transformer'"),
        ("folds=[fold_9]", "no split 'fold_9'"),
        ("folds=[all]", "all holds out no body"),
        ("joint_split=smp", "does not train on all that fold_0 holds out"),
        ("env=cartpole_swingup", "env=cheetah has"),
        ("runs={it: bundled/cheetah-limb_transformer}", "limb_transformer was trained on cheetah_2_back"),
        ("start_from=bundled/cheetah-limb_transformer", "trained on cheetah_2_back, which fold_1 is to hold"),
        ("runs=nowhere", "runs must be names with runs"),
        ("runs={it: bundled/cartpole_swingup-sensor_mlp}", "reads sensors, not limbs"),
        ("runs={it: bundled/walker-mlp}", "MLP has slots for"),
        ("env=hopper", "fold_1 holds out no body; folds=[fold_0,fold_2,fold_3]"),
        ("arms={results.csv: ''}", "another name"),
        ("arms={a: 'agent.width=8', b: '', a: ''}", "two arms are called a"),
        ("agent.width=8,8", "two arms would be called width_8"),
        ("arms={a: 'env=walker'}", "arm a: env.split=all does not train on cheetah_4_front"),
    ],
)
def test_what_it_cannot_do_is_refused_at_once(
    argument: str, why: str, trained: list, capsys: pytest.CaptureFixture[str]
) -> None:
    assert why in refused(capsys, "output=out", argument)
    assert not trained and not list(Path("out").glob("*.json"))


def test_arms_that_cannot_be_read_are_told_how() -> None:
    assert read_arms({"a": "", "b": None, "c": "x=1 y=[1,2]", "d": ["x=1"]}) == {
        "a": [], "b": [], "c": ["x=1", "y=[1,2]"], "d": ["x=1"],
    }  # fmt: skip
    for given, why in (
        ({"new": "seed=3"}, "same for all arms"),
        ({"new": "width"}, "expected as in new: 'agent.width=128'"),
        ({"new": {"agent.width": 3}}, "expected as in new"),
        ("nowhere.yaml", "no such file"),
        (["agent.width=3"], "must be names with arguments"),
    ):
        with pytest.raises(UserError, match=why):
            read_arms(given)


def test_runs_stay_where_they_were_and_may_be_taken_out(
    trained: list, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("elsewhere/out").mkdir(parents=True)
    Path("out").symlink_to("elsewhere/out")
    shutil.copytree(bundled_folder("walker-limb_transformer"), "walker")
    main(["output=out", "folds=[fold_0]", *TINY, "runs={walker: walker}"])
    Path("walker").rename("away")
    assert "has no policy any more; runs={walker: null} takes it out" in refused(capsys, "output=out")
    main(["output=out", "runs={walker: null}"])
    assert json.loads(Path("out", FILE).read_text())["runs"] == {}


def test_what_a_stranger_kept_runs_nothing(trained: list, capsys: pytest.CaptureFixture[str]) -> None:
    main(["output=out", "folds=[fold_0]", *TINY])
    file = Path("out", FILE)
    whole = file.read_text()
    for bad, why, of_arm in (
        ("agent._target_=a.B", "say it again: agent._target_=a.B", True),
        ("agent._target_=a.B", "say it again", False),
        ("hydra.job.name=x", "only keys and groups", True),
    ):
        kept = json.loads(whole)
        place = kept["arms"]["limb_transformer"] if of_arm else kept
        place["arguments"][0] = bad
        file.write_text(json.dumps(kept))
        assert why in refused(capsys, "output=out")
    file.write_text(json.dumps(json.loads(whole) | {"arms": {}}))
    with pytest.raises(UserError, match="damaged: it has no arms"):
        read_kept(file)


WAITS = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
print("ready", flush=True)
time.sleep(60)
"""


def test_ctrl_c_reaches_every_training_once_and_a_failure_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job((), tmp_path / name) for name in ("fails", "waits", "too", "never")]
    started, logs = [], [job.folder.with_name(f"{job.folder.name}.log") for job in jobs]

    class Plan:
        further = ()

        def to_run(self) -> list[Job]:
            return list(jobs)

        def states(self, jobs: list[Job]) -> list[tuple[str, str]]:
            return [("goes on", "")]

    def start(job: Job, further: object) -> subprocess.Popen:
        code = "raise SystemExit('out of luck')" if job is jobs[0] else WAITS
        started.append(job)
        with logs[jobs.index(job)].open("w") as file:
            command = [sys.executable, "-c", code]
            return subprocess.Popen(command, stdout=file, stderr=file, process_group=0)

    def interrupt() -> None:
        while not all(log.is_file() and "ready" in log.read_text() for log in logs[1:3]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(cross_validate, "_start", start)
    monkeypatch.setattr("somite.agents.device.thread_limit", lambda _: 2)
    threading.Thread(target=interrupt, daemon=True).start()
    failed, received = cross_validate._train(Plan(), 2)
    assert failed == {jobs[0]: "out of luck"} and received == signal.SIGINT
    assert started == jobs[:3], "nothing begins after the signal"


@pytest.mark.slow
def test_it_trains_evaluates_and_reports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["output=out", "folds=[fold_0,fold_1]", "jobs=2", *TINY])
    assert "3 trainings, 3 finished" in capsys.readouterr().out
    results = json.loads(Path("out/results.json").read_text())
    (arm,) = results["arms"]
    assert (arm["runs"], arm["bodies"]) == (1, 6)
    assert "## Bodies" in Path("out/report.md").read_text()
    with pytest.raises(SystemExit):  # one of its trainings fails at once, the others are finished
        main(["output=out", "arms={few: 'algorithm.num_envs=12'}"])
    told = capsys.readouterr().err
    assert "few/joint-0 failed: " in told and "12" in told and "1 failed; try these again" in told
    seen = "runs={seen: out/limb_transformer/joint-0}"
    assert "was trained on cheetah_" in refused(capsys, "output=out", seen)
    results = json.loads(Path("out/results.json").read_text())
    assert [(arm["arm"], arm["bodies"]) for arm in results["arms"]] == [("limb_transformer", 6), ("few", 6)]
