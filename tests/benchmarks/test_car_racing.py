"""The benchmark of CarRacing: what it compares, and that its report says so."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("Box2D")

from somite.envs.cores import available_cores
from somite.envs.errors import UserError
from somite.scripts import benchmark
from somite.scripts.benchmarks.car_racing import GYMNASIUM, CarRacingSpeed

TINY = (
    "num_envs=4",
    "seconds=0.05",
    "rounds=2",
    "iterations=1",
    "algorithm.num_envs=2",
    "algorithm.n_steps=4",
    "algorithm.batch_size=4",
    "algorithm.n_epochs=1",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run with a tiny budget, and its report."""
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, benchmark.__file__, "car_racing", "output=report.json", *TINY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["report.json"]
    rows = json.loads((folder / "report.json").read_text())["rows"]
    return done.stdout, {row["name"]: row for row in rows}


def test_ours_is_compared_with_gymnasiums_own_picture(finished):
    printed, rows = finished
    cores = available_cores()
    frames = {GYMNASIUM, "frames/somite_1_core", f"frames/somite_{cores}_cores", "state/somite_1_core"}
    several = cores > 1
    assert {name for name in rows if not name.startswith("ppo/")} == {
        name for name in frames if several or not name.endswith("_1_cores")
    }
    for name, row in rows.items():
        assert name in printed and 0 < row["minimum"] <= row["steps_per_second"] <= row["maximum"]
    assert rows[GYMNASIUM]["ratios"] == {} and rows[GYMNASIUM]["num_envs"] == 1
    ours = rows["frames/somite_1_core"]
    assert ours["ratios"].keys() == {GYMNASIUM} and ours["num_envs"] == 4
    for own, theirs, ratio in zip(
        ours["rounds"], rows[GYMNASIUM]["rounds"], [ours["ratios"][GYMNASIUM]] * 2, strict=True
    ):
        assert ratio["minimum"] * 0.999 <= own / theirs <= ratio["maximum"] * 1.001


def test_ppo_tells_its_phases(finished):
    _, rows = finished
    ppo = [row for name, row in rows.items() if name.startswith("ppo/")]
    assert {row["agent"] for row in ppo} == {"PatchJigsaw", "PatchTransformer", "PatchCNN"}
    assert all(sum(row["shares"].values()) == pytest.approx(1) for row in ppo)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(UserError, match="seconds must be a number above 0"):
        CarRacingSpeed(seconds=0)
    with pytest.raises(UserError, match="num_envs must be a whole number from 1 to 1,000,000"):
        CarRacingSpeed(num_envs=0)
