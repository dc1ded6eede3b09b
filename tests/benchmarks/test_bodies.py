import json
import subprocess
import sys

import pytest

from somite.envs.errors import UserError
from somite.scripts import benchmark
from somite.scripts.benchmarks.bodies import RIVALS, Bodies

TINY = ("seconds=0.05", "rounds=2", "num_envs=3", "rows_per_topology=2", "topologies=[hopper_3,walker_2]")


def test_a_run_tells_what_each_kind_of_body_costs(tmp_path):
    command = [sys.executable, benchmark.__file__, "bodies", "output=report.json", *TINY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "report.json").read_text())["rows"]}
    assert set(rows) == {*RIVALS, *RIVALS.values()}
    for name, row in rows.items():
        assert 0 < row["minimum"] <= row["steps_per_second"] <= row["maximum"] and len(row["rounds"]) == 2
        assert set(row["ratios"]) == ({RIVALS[name]} if name in RIVALS else set())
        assert name in done.stdout
    assert rows["ants/varied"]["num_envs"] == 3 and rows["topologies/mixed"]["num_envs"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topologies": []}, "topologies must be a list of at least 1"),
        ({"topologies": ["ant"], "seconds": float("inf")}, "seconds must be a number above 0"),
        ({"topologies": ["ant"], "factors": [2, 1]}, "factors must be .low, high. with low <= high"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(options, message):
    with pytest.raises(UserError, match=message):
        Bodies(**options)
