"""The benchmark of scaling: what it reports adds up, and says what it assumes."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks.conftest import measured

TINY = (
    "candidates=8", "episodes=2", "steps=20", "shard_sizes=[1,4]", "populations=[8,16]", "workers=[1,16]",
    "ray_workers=0", "ray_shard_size=4", "rounds=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """A whole run with a tiny budget."""
    return measured(tmp_path_factory.mktemp("benchmark"), "scaling", *TINY)[1]


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
