"""Several runs side by side: means and intervals over training seeds, not over episodes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from somite.agents.evaluation.evaluate import Row, frame_of, summarize
from somite.agents.evaluation.tables import returns_table, runs_table


def row(run: str, agent: str, body: str, mean: float, random: float | None = -1.0) -> Row:
    seen = body.startswith("seen")
    return Row(run, agent, body, seen, 5, mean, 99.0, 88.0, 20.0, random)


ROWS = [
    *(row(f"s{i}", "SMP", "seen_a", 100.0 * i) for i in range(1, 4)),
    *(row(f"s{i}", "SMP", "seen_b", 300.0) for i in range(1, 4)),
    *(row(f"s{i}", "SMP", "unseen_c", 10.0 * i) for i in range(1, 4)),
    row("m", "MLP", "seen_a", 7.0),
    row("m", "MLP", "unseen_c", -0.2),
]


def cells() -> dict[str, list[str]]:
    table = runs_table(frame_of(ROWS))
    return {line[0]: list(line[1:]) for line in (table.columns, *table.itertuples(index=False))}


def test_intervals_are_over_runs() -> None:
    found = cells()
    assert found["body"] == ["in training", "SMP (3 runs)", "MLP (1 run)", "random actions"]
    # Three runs: 4.303 standard errors; 100, 200, 300 have one of 100 / sqrt(3).
    half = 4.303 * 100 / np.sqrt(3)
    assert found["seen_a"] == ["seen", f"200 ± {half:.0f}", "7", "-1"]
    assert found["seen_b"] == ["seen", "300 ± 0", "-", "-1"], "MLP was not evaluated on it"
    assert found["unseen_c"] == ["unseen", f"20 ± {half / 10:.0f}", "0", "-1"]


def test_the_mean_of_a_group_is_of_each_run_first() -> None:
    found = cells()
    half = 4.303 * 50 / np.sqrt(3)  # the runs' means over both bodies: 200, 250, 300
    assert found["mean of seen"] == ["seen", f"250 ± {half:.0f}", "7", "-1"]
    assert found["mean of unseen"][1] == found["unseen_c"][1]


def test_bodies_stand_by_group_and_the_file_is_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    assert list(cells())[1:] == ["seen_a", "seen_b", "mean of seen", "unseen_c", "mean of unseen"]
    summarize(ROWS, tmp_path / "new" / "summary.md")
    expected = [[name, *values] for name, values in cells().items()]
    for text in ((tmp_path / "new" / "summary.md").read_text(), capsys.readouterr().out):
        lines = [re.split(r"[|┃│]", line)[1:-1] for line in text.splitlines()]
        found = [[cell.strip() for cell in line] for line in lines]
        assert [line for line in found if line and line[0].strip(":-")] == expected


def test_without_random_actions_there_is_a_dash() -> None:
    (line,) = runs_table(frame_of([row("s", "SMP", "seen_a", 1.0, random=None)])).head(1).to_numpy()
    assert list(line[2:]) == ["1", "-"]


@pytest.mark.parametrize("seen", [True, False])
def test_one_group_alone_has_no_mean_of_the_other(seen: bool) -> None:
    bodies = list(runs_table(frame_of([r for r in ROWS if r.seen == seen]))["body"])
    assert ("mean of seen" in bodies) == seen and ("mean of unseen" in bodies) != seen


def test_each_family_has_a_mean_of_its_own():
    rows = [
        replace(row("s", "SMP", f"{side}_{family}_{i}", float(i)), family=family)
        for i, side in enumerate(("unseen", "unseen", "seen", "seen"))
        for family in ("ant", "hopper")
    ]
    table = returns_table(frame_of(rows))
    assert table[table["body"].str.startswith("mean")].to_numpy()[:, :3].tolist() == [
        ["mean of 2 ant", "seen", "2"],
        ["mean of 2 hopper", "seen", "2"],
        ["mean of 2 ant", "unseen", "0"],
        ["mean of 2 hopper", "unseen", "0"],
    ]
