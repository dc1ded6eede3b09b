import json
import time

import pytest
from rich.console import Console

from somite.envs.errors import UserError
from somite.scripts.benchmarks.harness import (
    WARM_UP,
    Report,
    Rival,
    busy_message,
    counted,
    describe_machine,
    speed_row,
    stepping,
)


def report(path=None):
    return Report(path, {"cores": 2}, Console(record=True, width=140, quiet=True))


def test_rivals_measure_in_turns_and_are_closed():
    order = []

    def rival(name, rate, against=()):
        def start(stack):
            stack.callback(lambda: order.append(f"close {name}"))
            return lambda: order.append(name) or rate

        return Rival(name, start, against, {"threads": 1})

    rows = report().compare("Speed", [rival("a", 2.0, ["b"]), rival("b", 4.0)], 3)
    assert order == ["a", "b"] * 3 + ["close b", "close a"]
    assert [row["rounds"] for row in rows] == [[2.0] * 3, [4.0] * 3]
    assert rows[0]["ratios"] == {"b": {"median": 0.5, "minimum": 0.5, "maximum": 0.5}}
    assert rows[1]["ratios"] == {} and rows[1]["threads"] == 1


def test_rows_hold_medians_and_ratios_of_the_same_round():
    row = speed_row("a", {"a": [1.0, 6.0, 2.0], "b": [2.0, 3.0, 4.0]}, ["b"])
    assert row == {
        "name": "a",
        "steps_per_second": 2.0,
        "minimum": 1.0,
        "maximum": 6.0,
        "rounds": [1.0, 6.0, 2.0],
        "ratios": {"b": {"median": 0.5, "minimum": 0.5, "maximum": 2.0}},
    }


def test_a_step_is_counted_for_every_environment_and_steps_fill_the_turn():
    steps, begun = [], []

    def step():
        steps.append(1)
        time.sleep(0.01)

    (row,) = report().compare("", [stepping("x", lambda _: step, 7, 0.1, begin=lambda: begun.append(1))], 1)
    assert 4 <= len(steps) - 1 - WARM_UP <= 11 and len(begun) == 1
    assert row["num_envs"] == 7 and 0.3 * 7 / 0.01 < row["steps_per_second"] <= 7 / 0.01


def test_a_short_turn_has_a_step_and_waits_for_it():
    order = []
    settle = lambda: order.append("settle")  # noqa: E731
    report().compare("", [stepping("x", lambda _: lambda: order.append("step"), 1, 1e-9, settle=settle)], 1)
    assert order[-3:] == ["settle", "step", "settle"]


def test_work_goes_on_from_turn_to_turn_and_tells_its_steps():
    done = []
    rival = counted("x", lambda _: lambda index: done.append(index) or index, 2, threads=1)
    (row,) = report().compare("", [rival], 3)
    assert done == list(range(6)) and row["steps"] == [1, 5, 9] and row["threads"] == 1
    assert row["rounds"] == pytest.approx(
        [steps / seconds for steps, seconds in zip(row["steps"], row["seconds"], strict=True)]
    )


def test_results_are_written_whole_after_every_row(tmp_path, monkeypatch):
    kept = report(tmp_path / "deep" / "x.json")
    for name in "ab":
        kept.add({"name": name, "steps_per_second": 1.0})
        assert json.loads(kept.path.read_text()) == {"machine": {"cores": 2}, "rows": kept.rows}
    assert [path.name for path in kept.path.parent.iterdir()] == ["x.json"]
    with pytest.raises(UserError, match="cannot be written"):
        report(kept.path / "x.json")
    monkeypatch.chdir(tmp_path / "deep")
    report().add({"name": "a"})
    assert len(list(kept.path.parent.iterdir())) == 1, "without an output nothing is written"


def test_tables_show_what_there_is():
    shown = report()
    shown.console.quiet = False
    shown.table("Costs", [{"name": "a", "x": 1234.5, "y": None}, {"name": "b", "x": 0.12345}], "x", "y")
    text = shown.console.export_text()
    assert "1,234" in text and "0.1235" in text and "-" in text and "Costs" in text


def test_a_busy_machine_is_told():
    machine = describe_machine() | {"cores": 2}
    assert json.loads(json.dumps(machine)) == machine
    assert {"cpu", "cores", "memory_gib", "python", "versions", "load_average_at_start"} <= machine.keys()
    assert {"torch", "mujoco", "gymnasium", "stable-baselines3"} <= machine["versions"].keys()
    assert busy_message(machine | {"load_average_at_start": [0.1, 3.0, 3.0]}) is None
    assert busy_message(machine | {"load_average_at_start": None}) is None
    message = busy_message(machine | {"load_average_at_start": [1.5, 0.0, 0.0]})
    assert "load average 1.50 on 2 cores" in message
