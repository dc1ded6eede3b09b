"""Rows of a report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from scipy import stats

from .results import Results

Row = dict[str, Any]


def keep(rows: Sequence[Row], title: str, results: Results, console: Console) -> None:
    """Add rows to a report and print their speeds and, where there are any, their ratios."""
    for row in rows:
        results.add(row)
    console.print(speed_table(title, rows))
    if any(row["ratios"] for row in rows):
        console.print(ratio_table(rows))


def speed_table(title: str, rows: Sequence[Row]) -> Table:
    """Steps per second with their range, and shares of time where there are any."""
    table = _table(title)
    table.add_column("name", no_wrap=True)
    table.add_column("steps/s", justify="right", no_wrap=True)
    table.add_column("min–max", justify="right", no_wrap=True)
    phases = list(next((row["shares"] for row in rows if row.get("shares")), {}))
    for phase in phases:
        table.add_column(phase, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['steps_per_second']:,.0f}",
            f"{row['minimum']:,.0f}–{row['maximum']:,.0f}",
            *(f"{row['shares'][phase]:.0%}" for phase in phases),
        )
    return table


def ratio_table(rows: Sequence[Row]) -> Table:
    """Ratios to rivals, round by round."""
    table = _table("Times as fast as a rival, round by round")
    table.add_column("name", no_wrap=True)
    table.add_column("rival", no_wrap=True)
    table.add_column("ratio", justify="right")
    table.add_column("min–max", justify="right", no_wrap=True)
    for row in rows:
        for rival, ratio in row["ratios"].items():
            between = f"{ratio['minimum']:.2f}–{ratio['maximum']:.2f}"
            table.add_row(row["name"], rival, f"{ratio['median']:.2f}", between)
    return table


def learning_table(title: str, rows: Sequence[Row]) -> Table:
    """Mean returns of each agent over its seeds, with 95 % intervals."""
    table = _table(title)
    table.add_column("agent")
    for name in ("seeds", "seen", "unseen", "steps/s"):
        table.add_column(name, justify="right")
    for agent in dict.fromkeys(row["settings"]["agent"] for row in rows):
        own = [row for row in rows if row["settings"]["agent"] == agent]
        rate = np.mean([row["steps_per_second"] for row in own])
        means = [_interval([row[key] for row in own]) for key in ("seen_mean", "unseen_mean")]
        table.add_row(agent, str(len(own)), *means, f"{rate:,.0f}")
    return table


def _table(title: str) -> Table:
    return Table(title=title, box=SIMPLE, pad_edge=False, collapse_padding=True)  # fits 80 columns


def _interval(values: Sequence[float | None]) -> str:
    """Mean and half width of its 95 % interval over seeds (Student's t)."""
    if None in values:
        return "-"
    if len(values) < 2:
        return f"{np.mean(values):.0f}"
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"{np.mean(values):.0f} ± {half:.0f}"
