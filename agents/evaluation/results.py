"""The numbers of an evaluation, and the files that hold them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One body's result under one policy.

    ``mean`` and ``deviation`` are of the episodes' returns; ``interval`` is the half width of the 95 %
    interval of Student's t over episodes (None for one episode); ``random_mean`` is the mean return of
    random actions from the same starts (None where it was not asked for).
    """

    run: str
    agent: str
    body: str
    seen: bool
    episodes: int
    mean: float
    deviation: float
    interval: float | None
    mean_length: float
    random_mean: float | None


def half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % interval of Student's t of the mean of two or more values."""
    from scipy import stats  # takes a second, and no episode needs it

    return float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))


def write_results(rows: Sequence[Row], output: Path) -> None:
    """Write ``results.json`` and ``results.csv`` into the folder ``output``, which is made."""
    output.mkdir(parents=True, exist_ok=True)
    values: list[dict[str, Any]] = [asdict(row) for row in rows]
    (output / "results.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    with (output / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(values[0]))
        writer.writeheader()
        writer.writerows(values)
