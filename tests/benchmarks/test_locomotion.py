import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from somite.scripts import benchmark

TINY = (
    "seconds=0.02",
    "rounds=2",
    "num_envs=2",
    "rows_per_body=1",
    "iterations=2",
    "algorithm.num_envs=12",
    "algorithm.n_steps=4",
    "algorithm.batch_size=24",
    "algorithm.n_epochs=1",
)
SIMULATIONS = (
    "ant/bare",
    "ant/somite",
    "ant/gymnasium_async",
    "ant/sb3_subproc",
    "cheetahs/bare",
    "cheetahs/somite",
)
VARIANTS = (
    "limb_transformer",
    "limb_transformer_bf16",
    "limb_transformer_1_core",
    "smp",
    "mlp",
    "naive_1_core",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run with a tiny budget, and its report."""
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, benchmark.__file__, "locomotion", "output=new/report.json", *TINY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["new"], "only the report is left behind"
    assert [path.name for path in (folder / "new").iterdir()] == ["report.json"]
    return done.stdout, json.loads((folder / "new" / "report.json").read_text())


def test_the_report_tells_the_machine(finished):
    machine = finished[1]["machine"]
    assert {"cpu", "cores", "memory_gib", "python", "versions", "load_average_at_start"} <= machine.keys()
    assert {"torch", "mujoco", "gymnasium", "stable-baselines3"} <= machine["versions"].keys()
    assert machine["cores"] >= 1


def test_every_rival_has_a_row(finished):
    rows = finished[1]["rows"]
    assert [row["name"] for row in rows] == [*SIMULATIONS, *(f"ppo/{name}" for name in VARIANTS)]
    for row in rows:
        assert 0 < row["minimum"] <= row["steps_per_second"] <= row["maximum"]
        assert len(row["rounds"]) == 2 and all(isinstance(rate, float) for rate in row["rounds"])


def test_ours_is_compared_with_each_rival_round_by_round(finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    ratios = rows["ant/somite"]["ratios"]
    assert set(ratios) == {"ant/bare", "ant/gymnasium_async", "ant/sb3_subproc"}
    own, rival = rows["ant/somite"]["rounds"], rows["ant/sb3_subproc"]["rounds"]
    ratio = ratios["ant/sb3_subproc"]
    assert ratio["minimum"] == pytest.approx(min(a / b for a, b in zip(own, rival, strict=True)))
    assert ratio["minimum"] <= ratio["median"] <= ratio["maximum"]
    assert set(rows["cheetahs/somite"]["ratios"]) == {"cheetahs/bare"}
    assert rows["cheetahs/somite"]["num_envs"] == 12
    assert set(rows["ppo/limb_transformer"]["ratios"]) == {"ppo/naive_1_core"}
    assert rows["ant/bare"]["ratios"] == rows["ppo/naive_1_core"]["ratios"] == {}


def test_ppo_tells_its_phases_and_settings(finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    for name in VARIANTS:
        shares = rows[f"ppo/{name}"]["shares"]
        assert list(shares) == ["env", "policy", "update", "rest"]
        assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0
    assert rows["ppo/naive_1_core"]["agent"] == "NaiveTransformer"
    assert rows["ppo/naive_1_core"]["torch_threads"] == 1
    assert rows["ppo/limb_transformer_bf16"]["precision"] == "bf16"
    assert rows["ppo/mlp"]["bodies"] == 12


def test_the_tables_show_the_rows(finished):
    for text in (*SIMULATIONS, "ppo/smp", "update", "steps/s", "median of 2 rounds", "torch "):
        assert text in finished[0]


def test_the_variants_are_those_of_the_configuration():
    command = [sys.executable, benchmark.__file__, "locomotion", "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert tuple(OmegaConf.create(done.stdout).locomotion.ppo) == VARIANTS, done.stderr
