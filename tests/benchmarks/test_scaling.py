"""The benchmark of scaling: what it reports adds up, and says what it assumes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from somite.envs.errors import UserError
from somite.scripts import benchmark
from somite.scripts.benchmarks.scaling import Scaling

TINY = (
    "candidates=8", "episodes=2", "steps=20", "shard_sizes=[1,4]", "populations=[8,16]", "workers=[1,16]",
    "ray_workers=0", "ray_shard_size=4", "rounds=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """A whole run with a tiny budget."""
    folder: Path = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, benchmark.__file__, "scaling", "output=report.json", *TINY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["report.json"]
    return {row["name"]: row for row in json.loads((folder / "report.json").read_text())["rows"]}


def test_everything_of_the_model_is_measured(rows: dict[str, dict]) -> None:
    wanted = {"shard/1", "shard/4", "shard/each", "shard/candidate"}
    wanted |= {f"search/{kind}/{count}" for kind in ("full", "diagonal") for count in (8, 16)}
    computed = {
        f"{kind}/{count} candidates/{workers} workers"
        for kind in ("full", "diagonal") for count in (8, 16) for workers in (1, 16)
    }  # fmt: skip
    assert set(rows) == wanted | computed
    # So little is timed here that what a shard and what a candidate costs may drown in noise.
    assert all(rows[name]["seconds"] > 0 for name in wanted - {"shard/each", "shard/candidate"})


def test_costs_are_the_sum_of_their_parts(rows: dict[str, dict]) -> None:
    row = rows["full/16 candidates/1 workers"]
    parts = ("search", "tasks", "wire", "episodes")
    assert row["seconds"] == pytest.approx(sum(row[part] for part in parts))
    assert row["search"] == rows["search/full/16"]["seconds"] and row["tasks"] == 0
    assert row["bytes_sent"] == 16 * 913 * 4 and row["bytes_back"] == 16 * 2 * 17
    assert row["wire"] == pytest.approx((16 * 913 * 4 + 16 * 2 * 17) / 125e6)
    each, candidate = rows["shard/each"]["seconds"], rows["shard/candidate"]["seconds"]
    for workers in (1, 16):
        row = rows[f"full/16 candidates/{workers} workers"]
        waves = {size: math.ceil(16 / size / workers) for size in (1, 2, 4, 8, 16)}
        costs = {size: count * (each + candidate * size) for size, count in waves.items()}
        assert (
            row["episodes"] == pytest.approx(costs[row["shard_size"]]) == pytest.approx(min(costs.values()))
        )
    seeds = rows["diagonal/16 candidates/1 workers"]
    assert seeds["bytes_sent"] == 16 * 913 + 9 * 16 < row["bytes_sent"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds must be a whole number from 1 to 10,000"),
        ({"shard_sizes": [4]}, "shard_sizes must be two or more"),
        ({"workers": [0]}, "workers must be a list .*a whole number from 1 to"),
        ({"bandwidth": float("nan")}, "bandwidth must be a number above 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Scaling(**options)
