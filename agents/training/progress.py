"""A progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Steps made, of a ``total`` of the whole run, steps/s, return and time left."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._bar: RichProgress | None = None

    def start(self, done: int) -> None:
        """Begin, with ``done`` steps made before."""
        self._done_before, self._start = done, time.monotonic()
        self._last_line = self._start
        if sys.stderr.isatty():
            self._bar = RichProgress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:,.0f} steps/s"),
                TextColumn("return {task.fields[score]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=self.total, completed=done, rate=0.0, score="-")
            self._bar.start()

    def update(self, done: int, mean_return: float | None, total: int | None = None) -> None:
        """Show ``done`` steps and the mean return so far; ``total``: a better guess of all there are."""
        self.total = self.total if total is None else total
        now = time.monotonic()
        rate = (done - self._done_before) / max(now - self._start, 1e-9)
        score = "-" if mean_return is None else f"{mean_return:.0f}"
        if self._bar is not None:
            self._bar.update(self._task, total=self.total, completed=done, rate=rate, score=score)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = max(0.0, (self.total - done) / max(rate, 1e-9))
            print(
                f"{done:,} of {self.total:,} steps, {rate:,.0f} steps/s, return {score}, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Give the terminal back; may be called twice."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
