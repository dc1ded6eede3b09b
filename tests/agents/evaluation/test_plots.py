"""The report's pictures: what stands where."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from somite.agents.evaluation import plots


def test_bodies_stand_in_the_familys_order_seen_ones_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path, named: drawn.append(figure) or path)
    links = [("swimmer_5", True), *((f"swimmer_{n}", False) for n in (3, 4, 9, 10, 13))]
    common = {"suite": "unseen_morphology", "agent": "SMP", "mean": 1.0, "low": 0.5, "high": 1.5}
    scale = {"random": 0.0, "specialist": None}
    rows = [{"body": body, "seen": seen} | common | scale for body, seen in links]
    plots.bodies_as_dots(pd.DataFrame(rows), plots.looks_of(["SMP"]), tmp_path / "bodies.png")
    (figure,) = drawn
    axes = figure.axes[0]
    ticks = dict(zip((t.get_text() for t in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    from_the_top = sorted(ticks, key=ticks.__getitem__, reverse=True)
    assert from_the_top == [f"{body} ({'seen' if seen else 'unseen'})" for body, seen in links]
