"""The benchmark of GPUs, in miniature on a CPU: it measures what it promises, and says what it did not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("mujoco_warp", reason="needs MuJoCo Warp: pip install 'somite[gpu]'")

from somite.envs.errors import UserError
from somite.scripts import benchmark
from somite.scripts.benchmarks.arguments import for_hydra
from somite.scripts.benchmarks.gpu import GPU, SHARES
from somite.scripts.benchmarks.gpu_device import body_of

TINY = (
    "device=cpu",
    "workers=1",
    "tasks.cheetah=['env=cheetah','env.bodies=[cheetah_2_back,cheetah_7_full]']",
    "~tasks.ant",
    "env.task.max_episode_steps=4",
    "worlds=[1,3]",
    "cpu_rows=2",
    "turn=0.02",
    "rounds=2",
    "num_envs=[2]",
    "on_device=['algorithm.batch_size=8']",
    "algorithm.n_steps=4",
    "algorithm.n_epochs=1",
    "iterations=2",
    "target=1e9",
    "seconds_to_return=1",
    "candidates=3",
    "episodes=2",
    "steps=20",
    "limbs=['env=cheetah','env.bodies=[cheetah_7_full]','env.task.max_episode_steps=4','agent=smp']",
    "limb_candidates=2",
    "limb_episodes=1",
    "memory_bodies=[cheetah_7_full]",
    "memory_worlds=2",
    "memory_populations=[2,3]",
)
NAMES = [
    "compile",
    "check/graph/cheetah",
    "check/rewards/cheetah",
    "simulation/cheetah/cpu/2",
    "simulation/cheetah/2/somite",
    "simulation/cheetah/2/bare",
    "simulation/cheetah/3/somite",
    "simulation/cheetah/3/bare",
    "ppo/cheetah/cpu",
    "ppo/cheetah/2",
    "population/swingup/cpu",
    "population/swingup/somite",
    "population/limbs/cpu",
    "population/limbs/somite",
    "memory/worlds/cheetah/2",
    "memory/worlds/cheetah/3",
    "memory/limbs/cheetah_7_full/2",
    "memory/population/swingup/2",
    "memory/population/swingup/3",
    "learning/cheetah/2",
    "learning/cheetah/cpu",
]


def run(folder, *arguments):
    command = [sys.executable, benchmark.__file__, "gpu", "output=report.json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return done, json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run with a tiny budget, and its report."""
    folder = tmp_path_factory.mktemp("benchmark")
    done, report = run(folder, *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in folder.iterdir()] == ["report.json"]
    return done.stdout, report


@pytest.mark.slow
def test_everything_is_measured_and_printed(finished):
    printed, report = finished
    assert [row["name"] for row in report["rows"]] == NAMES
    assert not [row for row in report["rows"] if "failed" in row or "not_run" in row]
    for name in NAMES[1:]:
        assert name in printed
    assert report["machine"]["device"] == "cpu"
    assert set(report["machine"]["versions_of_simulation"]) == {"warp-lang", "mujoco-warp"}


@pytest.mark.slow
def test_the_checks_tell_what_differs(finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    assert rows["compile"]["seconds_of_bodies"].keys() >= {"cheetah_2_back", "round:cheetah_2_back"}
    graph, rewards = rows["check/graph/cheetah"], rows["check/rewards/cheetah"]
    assert {"rewards", "tokens", "qpos/0", "qvel/1"} <= set(graph["differences"])
    assert len(rewards["differences"]) == 5
    assert 0 < rewards["largest_difference"] <= rewards["tolerance"] == 1e-3


@pytest.mark.slow
def test_ratios_are_of_numbers_that_were_measured(finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    for ours, rivals in (
        ("simulation/cheetah/3/somite", {"simulation/cheetah/3/bare", "simulation/cheetah/cpu/2"}),
        ("ppo/cheetah/2", {"ppo/cheetah/cpu"}),
        ("population/swingup/somite", {"population/swingup/cpu"}),
        ("population/limbs/somite", {"population/limbs/cpu"}),
    ):
        assert set(rows[ours]["ratios"]) == rivals
        for rival in rivals:
            ratio = rows[ours]["ratios"][rival]
            theirs = rows[rival]["rounds"] * (2 if "population" in ours else 1)
            each = [own / other for own, other in zip(rows[ours]["rounds"], theirs, strict=True)]
            assert (ratio["minimum"], ratio["maximum"]) == pytest.approx((min(each), max(each)))
    assert rows["simulation/cheetah/3/bare"]["ratios"] == rows["ppo/cheetah/cpu"]["ratios"] == {}


@pytest.mark.slow
def test_ppo_tells_its_phases_and_where_it_ran(finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    for name, simulation, num_envs in (("ppo/cheetah/cpu", "cpu", 192), ("ppo/cheetah/2", "warp", 2)):
        row = rows[name]
        assert list(row["shares"]) == ["env", "rollout", "update"]
        assert sum(row["shares"].values()) == pytest.approx(1) and min(row["shares"].values()) > 0
        assert (row["simulation"], row["num_envs"]) == (simulation, num_envs)
        assert len(row["rounds"]) == 2


@pytest.mark.slow
def test_learning_tells_what_was_reached_where_the_return_was_not(finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    for name in ("learning/cheetah/2", "learning/cheetah/cpu"):
        row = rows[name]
        assert row["seconds_to_return"] is None and row["target"] == 1e9 and row["limit"] == 1
        assert row["return"] is not None and abs(row["return"]) < 100  # of four steps
        assert row["steps"] == row["curve"][-1][1] > 0


@pytest.mark.slow
def test_populations_tell_seconds_of_the_same_work(finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    for kind, steps in (("swingup", 3 * 2 * 20), ("limbs", 2 * 4)):
        for who, times in (("cpu", 1), ("somite", 2)):
            row = rows[f"population/{kind}/{who}"]
            assert row["steps"] == [steps] * times and len(row["seconds"]) == times
            assert row["rounds"] == pytest.approx([steps / each for each in row["seconds"]])


@pytest.mark.slow
def test_memory_is_told_by_what_it_grows_with(finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    two, three = (rows[f"memory/worlds/cheetah/{n}"] for n in (2, 3))
    assert 1.2 < three["bytes_of_arrays"] / two["bytes_of_arrays"] < 1.8
    assert two["bytes"] is None, "of a CPU it is not known"
    assert rows["memory/limbs/cheetah_7_full/2"]["limbs"] == 7


def test_what_there_is_no_time_for_is_told(tmp_path):
    done, report = run(tmp_path, *TINY, "seconds=1e-6", "parts=[simulation,ppo]")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) > {"simulation/cheetah/cpu/2", "simulation/cheetah/3", "ppo/cheetah/2"}
    assert all(row.get("not_run") == "no time left" for name, row in rows.items() if name != "compile")
    assert done.stdout.count("not run: no time left") == len(report["rows"])


def test_device_is_the_sections_own_key_and_env_is_trainings():
    given = for_hydra(["gpu", "device=cpu", "env.task.max_episode_steps=4"])
    assert given == ["benchmark=gpu", "gpu.device=cpu", "gpu.train=['env.task.max_episode_steps=4']"]
    assert for_hydra(["locomotion", "device=cpu"])[1:] == ["locomotion.train=['device=cpu']"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_says_so(tmp_path):
    command = [sys.executable, benchmark.__file__, "gpu", "output=report.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "device=cuda was asked for, but torch" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds must be a number above 0"),
        ({"parts": ["simulatoin"]}, "parts must be .* got ..simulatoin.."),
        ({"target_task": "chetah"}, "did you mean 'cheetah'"),
        ({"worlds": [0]}, "worlds must be a list of any length .each a whole number from 1 to 1,000,000."),
        ({"target": float("nan")}, "target must be a number"),
        ({"seconds": float("inf")}, "seconds must be a number above 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(options, message):
    with pytest.raises(UserError, match=message):
        GPU(**options)


def test_the_configuration_has_every_key_and_every_part():
    command = [sys.executable, benchmark.__file__, "gpu", "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True)
    section = OmegaConf.create(done.stdout).gpu
    assert list(section.parts) == list(SHARES), done.stderr
    assert set(section) - {"_target_"} == {field.name for field in dataclasses.fields(GPU)}
    assert max(body_of(name).n_limbs for name in section.memory_bodies) >= 64
    assert section.seconds + 60 <= 600, "a call has ten minutes, and starts and ends in them"
