"""What ``somite-benchmark gpu`` has found so far, what failed, and what there was no time for."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .results import Results

Row = dict[str, Any]
NO_TIME = "no time left"


class Report:
    """Rows of measurements that share so many seconds.

    A measurement that fails, or that there is no time for, has a row that says so; the others go on. A
    measurement that has begun is not interrupted.

    Args:
        results: where rows are kept.
        console: where they are printed.
        seconds: of all measurements.
        clock: tells seconds.

    Attributes:
        failures: names of what failed.
    """

    def __init__(
        self,
        results: Results,
        console: Console,
        seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.results, self.console, self._clock = results, console, clock
        self._end = self._end_of_part = clock() + seconds
        self.failures: list[str] = []

    @property
    def left(self) -> float:
        """Seconds until the end of this part."""
        return self._end_of_part - self._clock()

    def begin(self, title: str, share: float) -> None:
        """Begin a part.

        Args:
            title: of the part.
            share: of the seconds that are left, that are the part's.
        """
        now = self._clock()
        seconds = max(0.0, self._end - now) * share
        self._end_of_part = now + seconds
        self.console.print(f"{title} (at most about {seconds:.0f} s)", highlight=False)

    def measure(self, name: str, do: Callable[[], Sequence[Row]]) -> list[Row]:
        """Measure, and keep what comes of it.

        Args:
            name: of the measurement, if it has no rows.
            do: gives its rows.

        Returns:
            Its rows; none where it failed or did not run.
        """
        if self.left <= 0:
            self._keep({"name": name, "not_run": NO_TIME})
            self.console.print(f"  {name}: not run: {NO_TIME}", highlight=False)
            return []
        try:
            rows = list(do())
        except Exception as error:  # one call measures all, and this is told at once, and at the end
            self.fail(name, f"{type(error).__name__}: {error}", {"traceback": traceback.format_exc()})
            return []
        for row in rows:
            self._keep(row)
        return rows

    def fail(self, name: str, why: str, more: Mapping[str, Any]) -> None:
        """Keep and print a failure.

        Args:
            name: of what failed.
            why: in words and numbers.
            more: further fields of its row.
        """
        self.failures.append(name)
        self._keep({"name": name, "failed": why, **more})
        self.console.print(f"  {name}: FAILED: {why}", style="red", highlight=False, soft_wrap=True)

    def _keep(self, row: Row) -> None:
        self.results.add(row)

    def table(self, title: str, rows: Sequence[Row], columns: Mapping[str, tuple[str, str]]) -> None:
        """Print rows.

        Args:
            title: of the table.
            rows: whose fields are shown.
            columns: of each the key of a row and the format; a field that is missing or None is a dash.
        """
        if not rows:
            return
        table = Table(title=title, box=SIMPLE, pad_edge=False, collapse_padding=True)
        table.add_column("name", no_wrap=True)
        for heading in columns:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            values = [row.get(key) for key, _ in columns.values()]
            kinds = [kind for _, kind in columns.values()]
            shown = ["-" if v is None else format(v, kind) for v, kind in zip(values, kinds, strict=True)]
            table.add_row(row["name"], *shown)
        self.console.print(table)
