"""Steps per second of rivals, taken in turns, and their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Measure = Callable[[], float]
"""Measures once; returns steps per second."""


def interleave(
    measures: Mapping[str, Measure], rounds: int, announce: Callable[[str], None]
) -> dict[str, list[float]]:
    """Let every rival measure once in every round, in order, A B C A B C.

    Machines drift: what runs first for a minute and what runs last are not compared, a round is.

    Args:
        measures: rivals by name.
        rounds: how many.
        announce: told what comes next.

    Returns:
        For each rival the steps per second of each round.
    """
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(rounds):
        for name, measure in measures.items():
            announce(f"{name}, round {turn + 1} of {rounds}")
            rates[name].append(measure())
    return rates


def stepping(step: Callable[[], None], rows: int, seconds: float) -> Measure:
    """Measures ``step``, which advances ``rows`` environments by one step, for ``seconds``."""

    def measure() -> float:
        start, steps, elapsed = time.perf_counter(), 0, 0.0
        while elapsed < seconds or not steps:
            step()
            steps += 1
            elapsed = time.perf_counter() - start
        return rows * steps / elapsed

    return measure


def make_rows(
    rates: Mapping[str, Sequence[float]], against: Iterable[str], more: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of a report.

    Args:
        rates: of each rival, one for each round.
        against: rivals that all others are compared with, round by round.
        more: further fields of a rival's row.
    """
    against = list(against)
    return [
        {
            "name": name,
            "steps_per_second": statistics.median(own),
            "minimum": min(own),
            "maximum": max(own),
            "rounds": list(own),
            "ratios": {other: _ratio(own, rates[other]) for other in against if other != name},
            **more.get(name, {}),
        }
        for name, own in rates.items()
    ]


def _ratio(own: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    ratios = [one / two for one, two in zip(own, other, strict=True)]
    return {"median": statistics.median(ratios), "minimum": min(ratios), "maximum": max(ratios)}
