"""What all benchmarks share: rivals that take turns, and a report of rows, tables and a JSON file."""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ...agents.device import processor
from ...agents.storage.atomic import replace_file
from ...envs.cores import available_cores
from ...envs.errors import UserError
from ...envs.numbers import TEXT, listed, real, whole

COUNT = whole(1, 10**6)
"""Of environments, candidates, episodes."""
ROUNDS, ROUNDS_OR_NONE = whole(1, 10_000), whole(0, 10_000)
SECONDS = real(0, 86_400, above=True)
ARGUMENTS = listed(TEXT)
"""Of ``somite-train``."""

PACKAGES = ("somite", "torch", "mujoco", "gymnasium", "stable-baselines3", "numpy")
WARM_UP = 3
"""Steps that tell how long one takes."""
BUSY_LOAD_PER_CORE = 0.25
"""Above it, something else was running in the minute before: the start of a benchmark loads little."""

Row = dict[str, Any]
Turn = Callable[[], float]
"""Measures once; returns steps per second."""


@dataclass
class Rival:
    """Something that is measured in turns with others."""

    name: str
    start: Callable[[ExitStack], Turn]
    """Makes what is measured, which the stack closes, and gives its turn."""
    against: Sequence[str] = ()
    """Names of those that it is compared with, round by round."""
    more: Row = field(default_factory=dict)
    """Further fields of its row; turns may write there."""


def stepping(
    name: str,
    make: Callable[[ExitStack], Callable[[], Any]],
    num_envs: int,
    seconds: float,
    against: Sequence[str] = (),
    begin: Callable[[], None] = lambda: None,
    settle: Callable[[], None] = lambda: None,
) -> Rival:
    """Environments that are stepped for some seconds in each turn; ``make`` gives one step of all.

    ``begin`` prepares a turn. How many steps fit is estimated, so that nothing waits between them: ``settle``
    waits for the last one.
    """

    def start(stack: ExitStack) -> Turn:
        step = make(stack)

        def repeat(times: int) -> float:
            settle()
            begun = time.perf_counter()
            for _ in range(times):
                step()
            settle()
            return time.perf_counter() - begun

        def turn() -> float:
            begin()
            step()  # the first may record what the next ones launch
            times = max(1, round(seconds * WARM_UP / repeat(WARM_UP)))
            return num_envs * times / repeat(times)

        return turn

    return Rival(name, start, against, {"num_envs": num_envs})


def counted(
    name: str,
    make: Callable[[ExitStack], Callable[[int], int]],
    times: int = 1,
    against: Sequence[str] = (),
    **more: Any,
) -> Rival:
    """Work that is done so many times in a turn: from a number, which goes on from turn to turn, to steps."""
    row: Row = {"seconds": [], "steps": [], **more}

    def start(stack: ExitStack) -> Turn:
        do, numbers = make(stack), itertools.count()

        def turn() -> float:
            begun = time.perf_counter()
            row["steps"].append(sum(do(next(numbers)) for _ in range(times)))
            row["seconds"].append(time.perf_counter() - begun)
            return row["steps"][-1] / row["seconds"][-1]

        return turn

    return Rival(name, start, against, row)


def speed_row(name: str, rates: Mapping[str, Sequence[float]], against: Iterable[str]) -> Row:
    """Median, range and rounds of steps per second, and ratios to others of the same rounds."""

    def spread(values: Sequence[float], median: str) -> dict[str, float]:
        return {median: statistics.median(values), "minimum": min(values), "maximum": max(values)}

    own = rates[name]
    pairs = {other: zip(own, rates[other], strict=True) for other in against}
    ratios = {other: spread([one / two for one, two in pair], "median") for other, pair in pairs.items()}
    return {"name": name, **spread(own, "steps_per_second"), "rounds": list(own), "ratios": ratios}


class Report:
    """``{"machine": {...}, "rows": [{"name": ..., "steps_per_second": ...}, ...]}``, and tables of it.

    The file, ``output`` unless it is None, is written anew, as a whole or not at all, after every row. What
    fails (``failures``), or what there is no time for, has a row that says so, and the others go on; what has
    begun has at least one round. ``clock`` gives seconds.

    Raises:
        UserError: the file cannot be written, told before anything is measured.
    """

    def __init__(
        self,
        output: str | Path | None,
        machine: dict[str, Any],
        console: Console | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.path = None if output is None else Path(output)
        # Rather long lines than cut numbers.
        self.machine, self.console = machine, console or Console(width=max(140, Console().width))
        self.rows: list[Row] = []
        self.failures: list[str] = []
        # Around what a rival makes at its start; writes into its row.
        self.watch: Callable[[Row], AbstractContextManager[None]] = lambda row: nullcontext()
        self._clock, self._end, self._end_of_part = clock, math.inf, math.inf
        if self.path is not None:
            if self.path.is_dir():
                raise UserError(f"output={output} is a folder; name a file, such as {output}/results.json")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=self.path.parent).close()
            except OSError as error:
                raise UserError(f"output={output} cannot be written: {error}") from error

    @property
    def left(self) -> float:
        """Seconds that measurements of this part may still begin in."""
        return self._end_of_part - self._clock()

    def limit(self, seconds: float) -> None:
        """From now on, nothing begins after so many seconds."""
        self._end = self._end_of_part = self._clock() + seconds

    def begin(self, part: str, share: float) -> None:
        """Begin a part that has this share of the seconds that are left."""
        seconds = max(0.0, self._end - self._clock()) * share
        self._end_of_part = self._clock() + seconds
        self.console.print(f"{part} (at most about {seconds:.0f} s)", highlight=False)

    def say(self, what: str, style: str | None = None) -> None:
        """Print what there is to know about a part that runs."""
        self.console.print(f"  {what}", style=style, highlight=False, soft_wrap=True)

    def add(self, *rows: Row) -> None:
        """Keep more rows."""
        self.rows += rows
        if self.path is not None:
            text = json.dumps({"machine": self.machine, "rows": self.rows}, indent=1)
            replace_file(self.path, f"{text}\n".encode())

    def fail(self, name: str, why: str, **more: Any) -> None:
        """Keep and print a failure, with further fields of its row."""
        self.failures.append(name)
        self.add({"name": name, "failed": why, **more})
        self.say(f"{name}: FAILED: {why}", style="red")

    def attempt(self, name: str, do: Callable[[], Any], begun: bool = False) -> bool:
        """Do a part of a measurement, which may have ``begun`` before. Returns whether it was done."""
        if not begun and self.left <= 0:
            self.add({"name": name, "not_run": "no time left"})
            self.say(f"{name}: not run: no time left")
            return False
        try:
            do()
        except Exception as error:  # one call measures all, and this is told at once, and at the end
            self.fail(name, f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
            return False
        return True

    def keep(self, name: str, do: Callable[[], Row]) -> list[Row]:
        """Attempt what gives the fields of one row. Returns the row, or nothing."""
        rows: list[Row] = []
        if self.attempt(name, lambda: rows.append({"name": name, **do()})):
            self.add(*rows)
        return rows

    def compare(self, title: str, rivals: Sequence[Rival], rounds: int) -> list[Row]:
        """Let every rival measure once in every round, in order, A B C A B C; keep and print their rows.

        Machines drift: what runs first for a minute and what runs last are not compared, a round is.
        """
        turns: dict[str, Turn] = {}
        rates: dict[str, list[float]] = {rival.name: [] for rival in rivals}
        with ExitStack() as stack, self.console.status("starting") as status:

            def start(rival: Rival) -> None:
                with self.watch(rival.more):
                    turns[rival.name] = rival.start(stack)

            for rival in rivals:
                status.update(f"{rival.name}, warm-up")
                self.attempt(rival.name, partial(start, rival))
            for index in range(rounds):
                if index and self.left <= 0:
                    break
                for name, turn in list(turns.items()):
                    status.update(f"{name}, round {index + 1} of {rounds}")
                    if not self.attempt(name, lambda n=name, t=turn: rates[n].append(t()), begun=True):
                        del turns[name]
        rows = [
            speed_row(rival.name, rates, [other for other in rival.against if other in turns]) | rival.more
            for rival in rivals
            if rival.name in turns
        ]
        self.add(*rows)
        self._print_speeds(f"{title}, median of {len(rows[0]['rounds']) if rows else 0}", rows)
        return rows

    def _print_speeds(self, title: str, rows: Sequence[Row]) -> None:
        """Steps per second with their range, shares of time, and ratios where there are any."""
        shown, ratios = [], []
        for row in rows:
            name, between = row["name"], "{minimum:,.0f}–{maximum:,.0f}".format(**row)
            shares = {phase: f"{share:.0%}" for phase, share in row.get("shares", {}).items()}
            speed = f"{row['steps_per_second']:,.0f}"
            shown.append({"name": name, "steps/s": speed, "min–max": between, **shares})
            for rival, ratio in row["ratios"].items():
                middle, between = f"{ratio['median']:.2f}", "{minimum:.2f}–{maximum:.2f}".format(**ratio)
                ratios.append({"name": name, "rival": rival, "ratio": middle, "min–max": between})
        self.table(title, shown)
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
    has_sizes = hasattr(os, "sysconf")
    pages, page = (os.sysconf(name) if has_sizes else 0 for name in ("SC_PHYS_PAGES", "SC_PAGE_SIZE"))
    return {
        "cpu": processor(),
        "cores": available_cores(),
        "memory_gib": round(pages * page / 2**30, 1) or None,
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
