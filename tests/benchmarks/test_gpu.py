"""The benchmark of GPUs, in miniature on a CPU: it measures what it promises, and says what it did not."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: pip install 'somite[gpu]'")

from somite.envs.locomotion import BodySet, LocomotionTask
from somite.envs.locomotion.backends.warp import Launcher
from somite.scripts.benchmark import for_hydra
from somite.scripts.benchmarks import gpu
from somite.scripts.benchmarks.gpu import GPU, SHARES
from somite.scripts.benchmarks.harness import Report, Rival
from tests.benchmarks.conftest import measured, report_of, run

CPU = torch.device("cpu")
BODIES = ["cheetah_2_back", "cheetah_7_full"]
TINY = (
    "device=cpu",
    "tasks.cheetah=['env=cheetah','env.bodies=[cheetah_2_back,cheetah_7_full]']",
    "~tasks.ant",
    "env.task.max_episode_steps=4",
    "worlds=[1,3]",
    "turn=0.02",
    "rounds=2",
    "num_envs=[2]",
    "on_device=['algorithm.batch_size=8']",
    "algorithm.n_steps=4",
    "algorithm.n_epochs=1",
    "candidates=3",
    "episodes=2",
    "steps=20",
    "limbs=['env=cheetah','env.bodies=[cheetah_7_full]','env.task.max_episode_steps=4','agent=smp']",
    "limb_candidates=2",
    "limb_episodes=1",
)
NAMES = {
    "compile",
    "check/cheetah",
    "simulation/cheetah/cpu/2",
    *(f"simulation/cheetah/{worlds}/{who}" for worlds in (2, 3) for who in ("somite", "bare")),
    *(f"ppo/cheetah/{where}" for where in ("cpu", 2)),
    *(f"population/{kind}/{who}" for kind in ("swingup", "limbs") for who in ("cpu", "somite")),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A whole run with a tiny budget."""
    machine, rows = measured(tmp_path_factory.mktemp("benchmark"), "gpu", *TINY)
    assert machine["device"] == "cpu"
    assert set(machine["versions_of_simulation"]) == {"warp-lang", "mujoco-warp"}
    return rows


@pytest.mark.slow
def test_everything_is_measured_and_compared_with_what_was_measured(rows):
    assert set(rows) == NAMES
    assert not [row for row in rows.values() if "failed" in row or "not_run" in row]
    for ours, rivals in (
        ("simulation/cheetah/3/somite", {"simulation/cheetah/3/bare", "simulation/cheetah/cpu/2"}),
        ("ppo/cheetah/2", {"ppo/cheetah/cpu"}),
        ("population/swingup/somite", {"population/swingup/cpu"}),
        ("population/limbs/somite", {"population/limbs/cpu"}),
    ):
        assert set(rows[ours]["ratios"]) == rivals
    assert rows["simulation/cheetah/3/bare"]["ratios"] == rows["ppo/cheetah/cpu"]["ratios"] == {}


@pytest.mark.slow
def test_each_part_tells_what_it_should(rows):
    assert rows["compile"]["seconds_of_bodies"].keys() >= {"cheetah_2_back", "round:cheetah_2_back"}
    rewards = rows["check/cheetah"]
    assert len(rewards["differences"]) == 5
    assert 0 < rewards["largest_difference"] == max(rewards["differences"]) <= 1e-3
    for name, simulation, num_envs in (("ppo/cheetah/cpu", "cpu", 192), ("ppo/cheetah/2", "warp", 2)):
        assert sum(rows[name]["shares"].values()) == pytest.approx(1)
        assert (rows[name]["simulation"], rows[name]["num_envs"]) == (simulation, num_envs)
    for kind, steps in (("swingup", 3 * 2 * 20), ("limbs", 2 * 4)):
        assert all(rows[f"population/{kind}/{who}"]["steps"] == [steps] * 2 for who in ("cpu", "somite"))
    assert "mib" not in rows["simulation/cheetah/2/somite"], "of a CPU it is not known"


def test_what_there_is_no_time_for_is_told(tmp_path, capsys):
    assert (
        run("gpu", "output=new/report.json", *TINY, "seconds=1e-6", "parts=[simulation,ppo]", folder=tmp_path)
        == 0
    )
    _, rows = report_of(tmp_path)
    assert set(rows) > {"simulation/cheetah/cpu/2", "simulation/cheetah/3/bare", "ppo/cheetah/2"}
    assert all(row.get("not_run") == "no time left" for name, row in rows.items() if name != "compile")
    assert capsys.readouterr().out.count("not run: no time left") == len(rows)


def test_device_is_the_sections_own_key_and_env_is_trainings():
    given = for_hydra(["gpu", "device=cpu", "env.task.max_episode_steps=4"])
    assert given == ["benchmark=gpu", "gpu.device=cpu", "gpu.train=['env.task.max_episode_steps=4']"]
    assert for_hydra(["locomotion", "device=cpu"])[1:] == ["locomotion.train=['device=cpu']"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_says_so(tmp_path, capsys):
    assert run("gpu", "output=report.json", folder=tmp_path) == 2
    error = capsys.readouterr().err
    assert "device=cuda was asked for, but torch" in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seconds=0", "seconds must be a number above 0"),
        ("parts=[simulatoin]", "parts must be"),
        ("worlds=[0]", "worlds must be a list of at least 1 (each a whole number from 1 to 1,000,000)"),
        ("turn=.nan", "turn must be a number"),
    ],
)
def test_invalid_settings_are_refused(argument, message, tmp_path, capsys):
    assert run("gpu", argument, folder=tmp_path) == 2
    assert message in capsys.readouterr().err


def test_the_configuration_has_every_key_and_every_part(capsys):
    assert run("gpu", "--cfg", "job") == 0
    section = OmegaConf.create(capsys.readouterr().out).gpu
    assert list(section.parts) == list(SHARES)
    assert set(section) - {"_target_"} == {field.name for field in dataclasses.fields(GPU)}
    assert section.seconds + 60 <= 600, "a call has ten minutes, and starts and ends in them"


@pytest.fixture
def timed(tmp_path):
    clock, console = SimpleNamespace(now=100.0), Console(record=True, width=200, quiet=True)
    timed = Report(tmp_path / "report.json", {}, console, lambda: clock.now)
    timed.limit(10.0)
    timed.clock = clock
    return timed


def test_parts_share_what_is_left(timed):
    timed.begin("one", 0.5)
    assert timed.left == 5
    timed.clock.now += 9  # longer than it should
    assert timed.left < 0
    timed.begin("two", 0.5)
    assert timed.left == 0.5


def fails(*_):
    raise RuntimeError("out of something")


def test_what_fails_is_kept_and_the_others_go_on(timed):
    timed.begin("one", 1.0)
    rivals = [
        Rival("first", fails, (), {"num_envs": 1}),
        Rival("later", lambda _: fails, (), {"num_envs": 1}),
        Rival("good", lambda _: lambda: 1.0, ["first", "later"], {"num_envs": 1}),
    ]
    (good,) = timed.compare("Speed", rivals, 2)
    assert good["rounds"] == [1.0, 1.0] and good["ratios"] == {}
    assert timed.keep("second", lambda: {"x": 1}) == [{"name": "second", "x": 1}]
    timed.clock.now += 11
    assert timed.keep("third", fails) == []
    rows = {row["name"]: row for row in json.loads(timed.path.read_text())["rows"]}
    assert (
        rows["first"]["failed"] == "RuntimeError: out of something"
        and "in fails" in rows["first"]["traceback"]
    )
    assert rows["second"] == {"name": "second", "x": 1}
    assert rows["third"] == {"name": "third", "not_run": "no time left"}
    assert timed.failures == ["first", "later"]


def test_rounds_that_there_is_no_time_for_are_left_out(timed):
    timed.begin("one", 1.0)

    def turn():
        timed.clock.now += 6
        return 1.0

    rivals = [Rival(name, lambda _: turn, (), {"num_envs": 1}) for name in "ab"]
    rows = timed.compare("Speed", rivals, 3)
    assert [row["rounds"] for row in rows] == [[1.0], [1.0]] and timed.failures == []


def test_a_stop_by_the_user_is_no_failure(timed):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        timed.keep("first", stopped)
    assert timed.failures == []


def test_a_simulation_that_leaves_something_out_fails_the_check(monkeypatch):
    bodies, run = BodySet("cheetah", bodies=BODIES), Launcher._run
    few = lambda self, name, work: run(self, name, work) if name == "kinematics" else None  # noqa: E731
    monkeypatch.setattr(Launcher, "_run", few)
    assert gpu.reward_differences(bodies, CPU)["largest_difference"] > 1e-2


def test_another_reward_fails_the_check(monkeypatch):
    bodies = BodySet("cheetah", bodies=BODIES)
    other = BodySet("cheetah", bodies=BODIES, task=LocomotionTask(control_cost=0.11))
    make_env = gpu.make_env
    monkeypatch.setattr(gpu, "make_env", lambda _, *given: make_env(other, *given))
    assert gpu.reward_differences(bodies, CPU)["largest_difference"] > 1e-3


def test_nan_is_the_largest_difference_and_fails_the_check(timed, monkeypatch):
    rewards = iter((torch.zeros(2, 3), torch.tensor([[1.0, 1, 1], [0, np.nan, 0]])))
    monkeypatch.setattr(gpu, "_rewards", lambda env: next(rewards))
    monkeypatch.setattr(gpu, "make_env", lambda *given: None)
    timed.begin("check", 1.0)
    GPU._check(None, timed, CPU, {"cheetah": BodySet("cheetah", bodies=BODIES)})
    assert timed.failures == ["check/cheetah/too_large"]
    assert timed.rows[0]["differences"][0] == 1 and timed.rows[-1]["failed"] == "nan, allowed are 0.001"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1e-3, BODIES[:1]), pytest.param(120, BODIES, marks=pytest.mark.slow)]
)
def test_kernels_are_compiled_beside_each_other_while_there_is_time(seconds, expected):
    found, missing = gpu.compile_kernels(BODIES, CPU, 2, seconds)
    assert sorted(found) == expected and sorted([*found, *missing]) == BODIES
