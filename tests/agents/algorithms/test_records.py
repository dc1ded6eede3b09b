"""Plain progress lines, and the table of scalars."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest

from somite.agents.storage.save_errors import SaveErrors
from somite.agents.training import records
from somite.agents.training.records import MetricsCsv


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_may_appear_later(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics = MetricsCsv(path, 0, SaveErrors(tmp_path))
    metrics.write({"b": 1.5}, step=10)
    metrics.write({"b": 2, "a": 0.25}, step=20)
    metrics.write({"a": 1}, step=30)
    metrics.close()
    assert read(path) == [
        {"step": "10", "b": "1.5", "a": ""},
        {"step": "20", "b": "2.0", "a": "0.25"},
        {"step": "30", "b": "", "a": "1.0"},
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_rows_up_to_the_last_step_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics = MetricsCsv(path, 0, SaveErrors(tmp_path))
    for step in (10, 20, 30):
        metrics.write({"a": step}, step=step)
    metrics.close()
    metrics = MetricsCsv(path, 20, SaveErrors(tmp_path))
    metrics.write({"a": 31}, step=31)
    assert [row["step"] for row in read(path)] == ["10", "20", "31"], "each row is there at once"


def test_without_a_terminal_there_is_a_plain_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    clock = iter([0.0, 1.0, 10.0, 12.0, 20.0])
    monkeypatch.setattr(records, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    bar = records.Progress(total=30_000, done=5_000)
    for done, score in ((6_000, None), (15_000, None), (17_000, 1.0), (25_000, 123.4)):
        bar.update(done, score)
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        "15,000 of 30,000 steps, 1,000 steps/s, return -, 15 s left",
        "25,000 of 30,000 steps, 1,000 steps/s, return 123, 5 s left",
    ]
