"""What all benchmarks share: rivals that take turns, and a report of rows, tables and a JSON file."""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ...agents.device import cpuinfo, processor
from ...agents.storage.atomic import replace_file
from ...envs.cores import available_cores
from ...envs.errors import UserError
from ...envs.numbers import TEXT, listed, real, whole

COUNT = whole(1, 10**6)
"""Of environments, candidates, episodes."""
ROUNDS = whole(1, 10_000)
ROUNDS_OR_NONE = whole(0, 10_000)
SECONDS = real(0, 86_400, above=True)
ARGUMENTS = listed(TEXT)
"""Of ``somite-train``."""

PACKAGES = ("somite", "torch", "mujoco", "gymnasium", "stable-baselines3", "numpy")
BF16 = {"avx512_bf16", "amx_bf16"}
BUSY_LOAD_PER_CORE = 0.25
"""Above it, something else was running in the minute before: the start of a benchmark loads little."""

Row = dict[str, Any]


Turn = Callable[[], float]
"""Measures once; returns steps per second."""


@dataclass
class Rival:
    """Something that is measured in turns with others.

    Attributes:
        name: of its row.
        start: makes what is measured, which the stack closes, warms it up, and gives its turn.
        against: names of those that it is compared with, round by round.
        more: further fields of its row; turns may write there.
    """

    name: str
    start: Callable[[ExitStack], Turn]
    against: Sequence[str] = ()
    more: Row = field(default_factory=dict)


def stepping(
    name: str,
    make: Callable[[ExitStack], Callable[[], Any]],
    num_envs: int,
    seconds: float,
    against: Sequence[str] = (),
) -> Rival:
    """Environments that are stepped for so many seconds in each turn; ``make`` gives one step of all."""

    def start(stack: ExitStack) -> Turn:
        step = make(stack)

        def turn(seconds: float = seconds) -> float:
            start, steps = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - start) < seconds or not steps:
                step()
                steps += 1
            return num_envs * steps / elapsed

        turn(seconds / 10)
        return turn

    return Rival(name, start, against, {"num_envs": num_envs})


def counted(
    name: str,
    make: Callable[[ExitStack], Callable[[int], int]],
    times: int = 1,
    against: Sequence[str] = (),
    **more: Any,
) -> Rival:
    """Work that is done so many times in a turn.

    ``make`` gives what works: from a number, which goes on from turn to turn, to steps made.
    """
    row: Row = {"seconds": [], "steps": [], **more}

    def start(stack: ExitStack) -> Turn:
        do, numbers = make(stack), itertools.count()

        def turn() -> float:
            begun = time.perf_counter()
            steps = sum(do(next(numbers)) for _ in range(times))
            seconds = time.perf_counter() - begun
            row["seconds"].append(seconds)
            row["steps"].append(steps)
            return steps / seconds

        return turn

    return Rival(name, start, against, row)


def speed_row(name: str, rates: Mapping[str, Sequence[float]], against: Iterable[str]) -> Row:
    """Median, range and rounds of steps per second, and ratios to others of the same rounds."""

    def spread(values: Sequence[float]) -> list[float]:
        return [statistics.median(values), min(values), max(values)]

    own = rates[name]
    row = dict(zip(("steps_per_second", "minimum", "maximum"), spread(own), strict=True))
    ratios = {}
    for other in against:
        found = spread([one / two for one, two in zip(own, rates[other], strict=True)])
        ratios[other] = dict(zip(("median", "minimum", "maximum"), found, strict=True))
    return {"name": name, **row, "rounds": list(own), "ratios": ratios}


class Report:
    """``{"machine": {...}, "rows": [{"name": ..., "steps_per_second": ...}, ...]}``, and tables of it.

    The file is written anew, as a whole or not at all, after every row.

    Args:
        output: the file; None to keep nothing.
        machine: of `describe_machine`.
        console: where tables are printed.

    Raises:
        UserError: the file cannot be written, told before anything is measured.
    """

    left = math.inf
    """Seconds that measurements may still begin in."""

    def __init__(
        self, output: str | Path | None, machine: dict[str, Any], console: Console | None = None
    ) -> None:
        self.path = None if output is None else Path(output)
        # Rather long lines than cut numbers.
        self.machine, self.console = machine, console or Console(width=max(140, Console().width))
        self.rows: list[Row] = []
        if self.path is not None:
            if self.path.is_dir():
                raise UserError(f"output={output} is a folder; name a file, such as {output}/results.json")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"output={output} cannot be written: {error}") from error
            if not os.access(self.path.parent, os.W_OK):
                raise UserError(f"output={output} cannot be written: {self.path.parent} is not writable")

    def add(self, *rows: Row) -> None:
        """Keep more rows."""
        self.rows += rows
        if self.path is not None:
            text = json.dumps({"machine": self.machine, "rows": self.rows}, indent=1)
            replace_file(self.path, f"{text}\n".encode())

    def attempt(self, name: str, do: Callable[[], Any], begun: bool = False) -> bool:
        """Do a part of a measurement, which may have ``begun`` before. Returns whether it was done."""
        do()
        return True

    def start(self, rival: Rival, stack: ExitStack) -> Turn:
        """Start a rival."""
        return rival.start(stack)

    def compare(self, title: str, rivals: Sequence[Rival], rounds: int) -> list[Row]:
        """Let every rival measure once in every round, in order, A B C A B C; keep and print their rows.

        Machines drift: what runs first for a minute and what runs last are not compared, a round is.
        """
        turns: dict[str, Turn] = {}
        rates: dict[str, list[float]] = {rival.name: [] for rival in rivals}
        with ExitStack() as stack, self.console.status("starting") as status:
            for rival in rivals:
                status.update(f"{rival.name}, warm-up")
                self.attempt(rival.name, lambda r=rival: turns.update({r.name: self.start(r, stack)}))
            for index in range(rounds):
                if index and self.left <= 0:
                    break
                for name, turn in list(turns.items()):
                    status.update(f"{name}, round {index + 1} of {rounds}")
                    if not self.attempt(name, lambda n=name, t=turn: rates[n].append(t()), begun=True):
                        del turns[name]
        rows = []
        for rival in [rival for rival in rivals if rival.name in turns]:
            against = [other for other in rival.against if other in turns]
            rows.append(speed_row(rival.name, rates, against) | rival.more)
        self.add(*rows)
        self._print_speeds(f"{title}, median of {len(rows[0]['rounds']) if rows else 0}", rows)
        return rows

    def _print_speeds(self, title: str, rows: Sequence[Row]) -> None:
        """Steps per second with their range, shares of time, and ratios where there are any."""
        shown = []
        for row in rows:
            speed, between = f"{row['steps_per_second']:,.0f}", f"{row['minimum']:,.0f}–{row['maximum']:,.0f}"
            shares = {phase: f"{share:.0%}" for phase, share in row.get("shares", {}).items()}
            shown.append({"name": row["name"], "steps/s": speed, "min–max": between, **shares})
        self.table(title, shown)
        ratios = []
        for row in rows:
            for rival, ratio in row["ratios"].items():
                middle, between = f"{ratio['median']:.2f}", f"{ratio['minimum']:.2f}–{ratio['maximum']:.2f}"
                ratios.append({"name": row["name"], "rival": rival, "ratio": middle, "min–max": between})
        self.table("Times as fast as a rival, round by round", ratios)

    def table(self, title: str, rows: Sequence[Row], *keys: str) -> None:
        """Print the rows' fields of these keys, or all; one that is missing or None is a dash."""
        if not rows:
            return
        table = Table(title=title, box=SIMPLE, pad_edge=False, collapse_padding=True)  # fits 80 columns
        keys = ("name", *keys) if keys else tuple(dict.fromkeys(key for row in rows for key in row))
        for key in keys:
            table.add_column(key, justify="left" if key == "name" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(_cell(row.get(key)) for key in keys))
        self.console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def describe_machine() -> dict[str, Any]:
    """Processor, memory, load and versions, as plain JSON values; None for what cannot be known."""
    flags = cpuinfo("flags")
    try:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        memory = None
    return {
        "cpu": processor(),
        "cores": available_cores(),
        "memory_gib": memory,
        "bf16_in_hardware": None if flags is None else bool(BF16 & set(flags.split())),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load_average_at_start": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def busy_message(machine: Mapping[str, Any]) -> str | None:
    """A warning for the reader of the figures, or None if the machine was quiet."""
    load = machine["load_average_at_start"]
    if load is None or load[0] <= BUSY_LOAD_PER_CORE * machine["cores"]:
        return None
    return (
        f"The machine was busy: load average {load[0]:.2f} on {machine['cores']} cores in the minute before. "
        f"Ratios of interleaved rounds still tell something, steps/s little."
    )
