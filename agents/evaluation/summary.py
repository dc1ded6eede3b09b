"""Several runs side by side: what each kind of agent returned on each body, over its training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from .results import Row, half_width


def summarize(rows: Sequence[Row]) -> tuple[Table, str]:
    """A table for the terminal and the same as Markdown.

    A cell is the mean over runs of the same agent (each the mean over its episodes), with a 95 % interval
    of Student's t over the runs: the interval says how another training seed would do.

    Args:
        rows: of all runs.
    """
    agents = list(dict.fromkeys(row.agent for row in rows))
    runs = {agent: len({row.run for row in rows if row.agent == agent}) for agent in agents}
    head = ["body", "in training", *(f"{a} ({runs[a]} {'run' if runs[a] == 1 else 'runs'})" for a in agents)]
    head.append("random actions")
    lines: list[list[str]] = []
    for seen in (True, False):
        group = [row for row in rows if row.seen == seen]
        kind = "seen" if seen else "unseen"
        for body in dict.fromkeys(row.body for row in group):
            lines.append([body, kind, *_cells(group, agents, body), _random(group, body)])
        if group:
            lines.append([f"mean of {kind}", kind, *_cells(group, agents), _random(group)])
    table = Table(title="mean return ± 95 % over training runs")
    for name in head:
        table.add_column(name, no_wrap=name in ("body", "in training"), justify="left")
    for line in lines:
        table.add_row(*map(escape, line), style="bold" if line[0].startswith("mean of") else None)
    markdown = [head, ["---", "---", *["---:"] * (len(head) - 2)], *lines]
    return table, "\n".join("| " + " | ".join(line) + " |" for line in markdown) + "\n"


def write_summary(rows: Sequence[Row], folder: Path) -> Table:
    """Write ``summary.md`` into ``folder`` and return the table for the terminal."""
    table, markdown = summarize(rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.md").write_text(markdown, encoding="utf-8")
    return table


def _cells(rows: Sequence[Row], agents: Sequence[str], body: str | None = None) -> list[str]:
    cells = []
    for agent in agents:
        own = [row for row in rows if row.agent == agent and body in (None, row.body)]
        scores = [np.mean([row.mean for row in own if row.run == run]) for run in {row.run for row in own}]
        cells.append(_interval(scores))
    return cells


def _interval(scores: Sequence[float]) -> str:
    if not scores:
        return "-"
    if len(scores) == 1:
        return f"{scores[0]:z.0f}"
    return f"{np.mean(scores):z.0f} ± {half_width(scores):.0f}"


def _random(rows: Sequence[Row], body: str | None = None) -> str:
    returns = [row.random_mean for row in rows if body in (None, row.body)]
    return "-" if None in returns else f"{np.mean(returns):z.0f}"
