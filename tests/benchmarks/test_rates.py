import json

import pytest

from somite.envs.errors import UserError
from somite.scripts.benchmarks.machine import busy_message, describe_machine
from somite.scripts.benchmarks.rates import interleave, make_rows, stepping
from somite.scripts.benchmarks.results import Results


def test_rivals_measure_in_turns():
    order = []

    def measure(name, rate):
        order.append(name)
        return rate

    measures = {"a": lambda: measure("a", 2.0), "b": lambda: measure("b", 4.0)}
    announced = []
    assert interleave(measures, 3, announced.append) == {"a": [2.0] * 3, "b": [4.0] * 3}
    assert order == ["a", "b"] * 3 and announced[2] == "a, round 2 of 3"


def test_rows_hold_medians_and_ratios_of_the_same_round():
    rows = make_rows({"a": [1.0, 6.0, 2.0], "b": [2.0, 3.0, 4.0]}, ["b"], {"a": {"threads": 1}})
    assert rows[0] == {
        "name": "a",
        "steps_per_second": 2.0,
        "minimum": 1.0,
        "maximum": 6.0,
        "rounds": [1.0, 6.0, 2.0],
        "ratios": {"b": {"median": 0.5, "minimum": 0.5, "maximum": 2.0}},
        "threads": 1,
    }
    assert rows[1]["ratios"] == {}


def test_a_step_is_counted_for_every_row():
    steps = []
    rate = stepping(lambda: steps.append(1), 10, 1e-9)()
    assert len(steps) == 1 and rate > 0, "at least one step, however short the time"


def test_results_are_written_whole_after_every_row(tmp_path):
    results = Results(tmp_path / "deep" / "x.json", {"cores": 2})
    for name in "ab":
        results.add({"name": name, "steps_per_second": 1.0})
        report = json.loads(results.path.read_text())
        assert report == {"machine": {"cores": 2}, "rows": results.rows}
    later = Results(results.path, {"cores": 4})
    later.keep_earlier()
    assert later.rows == results.rows
    with pytest.raises(UserError, match="cannot be written"):
        Results(results.path / "x.json", {})


def test_without_an_output_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = Results(None, {})
    results.keep_earlier()
    results.add({"name": "a", "steps_per_second": 1.0})
    assert len(results.rows) == 1 and not list(tmp_path.iterdir())


def test_a_busy_machine_is_told():
    machine = describe_machine() | {"cores": 2}
    assert json.loads(json.dumps(machine)) == machine
    assert busy_message(machine | {"load_average_at_start": [0.1, 3.0, 3.0]}) is None
    assert busy_message(machine | {"load_average_at_start": None}) is None
    message = busy_message(machine | {"load_average_at_start": [1.5, 0.0, 0.0]})
    assert "load average 1.50 on 2 cores" in message
