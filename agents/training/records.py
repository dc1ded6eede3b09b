"""What a run tells while it goes on: TensorBoard's event file, ``metrics.csv``, and its progress.

Both files are kept readable when the disk is full.

TensorBoard's own writer has a thread, which dies of the first error of the disk: what had been queued is
lost, the next call raises the error, in the middle of learning, and so does every later one; half a record
stays in the file, behind which no reader finds anything.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from rich import progress as bars
from rich.console import Console
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar

from ...envs.errors import UserError
from ..storage.atomic import replace_file
from ..storage.save_errors import SaveErrors

ONLY_IN_CSV = ("time/iterations", "time/time_elapsed", "time/total_timesteps")
"""Scalars that are no curves."""

MOST_WAITING = 16 * 2**20
"""Bytes of events kept for later while they cannot be written; beyond it, the oldest are dropped."""

SECONDS_BETWEEN_LINES = 10.0
"""Of progress, where there is no terminal."""

_count = itertools.count()


class Records:
    """Scalars in both files of a run's folder, going on where they were.

    What the files hold beyond ``last_step`` belongs to what a resumed run will do again. ``errors`` takes the
    disk's; if it lets the run go on, what could not be written is written next time.
    """

    def __init__(self, folder: Path, last_step: int, errors: SaveErrors) -> None:
        self.events = EventFile(folder, last_step, errors)
        self._metrics = MetricsCsv(folder / "metrics.csv", last_step, errors)

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """A row of scalars."""
        for name, value in scalars.items():
            if name not in ONLY_IN_CSV:
                self.events.add(scalar(name, value), step)
        self._metrics.write(scalars, step)

    def close(self) -> None:
        """Close both."""
        self.events.close()
        self._metrics.close()


class MetricsCsv:
    """A CSV file whose first column is ``step``, a row for each update.

    A column that appears later (a body's first whole episode) makes the file be written anew, with
    empty cells above; so does a row that could not be written, with the next one.

    Rows that the file holds already are kept up to ``last_step``.

    Raises:
        UserError: the file that is there is damaged.
        OSError: it cannot be written at the start.
    """

    def __init__(self, path: Path, last_step: int, errors: SaveErrors) -> None:
        self.path, self._errors = path, errors
        self._columns, rows = _read(path) if path.exists() else (["step"], [])
        self._rows: list[dict[str, Any]] = [row for row in rows if int(row["step"]) <= last_step]
        self._file: IO[str] | None = None
        self._rewrite()

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Append a row."""
        row = {"step": step} | {name: float(value) for name, value in scalars.items()}
        self._rows.append(row)
        new = [key for key in row if key not in self._columns]
        self._columns += sorted(new)
        with self._errors.attempt("metrics.csv"):
            if new or self._file is None:
                self._rewrite()
                return
            try:
                csv.DictWriter(self._file, self._columns).writerow(row)
                self._file.flush()
            except OSError:
                self.close()
                raise

    def _rewrite(self) -> None:
        self.close()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        replace_file(self.path, text.getvalue().encode())
        self._file = self.path.open("a", newline="", encoding="utf-8")

    def close(self) -> None:
        """Close the file; what it could not take is written with all other rows."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:
                pass  # it tries to write what it could not write before


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows. Raises UserError: a line that is none of ours."""
    text = path.read_text(encoding="utf-8", errors="replace")
    text = text[: text.rfind("\n") + 1]  # the last row of a process that was killed may be half there
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns, rows = list(reader.fieldnames or ["step"]), []
    for row in reader:
        if None in row or None in row.values() or not str(row.get("step")).isdecimal():
            raise UserError(
                f"{path} is damaged at line {reader.line_num}; move it away to go on without its earlier rows"
            )
        rows.append(row)
    return columns, rows


class EventFile:
    """Appends TensorBoard's events to a file of its own, at once, each as a whole or not at all."""

    def __init__(self, folder: Path, last_step: int, errors: SaveErrors) -> None:
        # A run that was killed before its first checkpoint begins anew in its folder.
        again = last_step > 0 or any(folder.glob("events.*"))
        unique = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_count)}"
        # Unbuffered: an error comes with the record that it belongs to.
        self._file = open(folder / f"events.out.tfevents.{unique}", "xb", buffering=0)  # noqa: SIM115
        self._errors, self._whole = errors, 0
        self._waiting: deque[bytes] = deque()
        self._add(Event(file_version="brain.Event:2"))
        if again:  # what the folder holds of later steps is not shown any more
            self._add(Event(step=last_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, summary: Summary, step: int = 0) -> None:
        """Writes an event, and before it those that could not be written."""
        self._add(Event(summary=summary, step=step))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        self._waiting.append(record.getvalue())
        while len(self._waiting) > 1 and sum(map(len, self._waiting)) > MOST_WAITING:
            self._waiting.popleft()
        self._write()

    def _write(self) -> None:
        with self._errors.attempt("TensorBoard's event file"):
            try:
                while self._waiting:
                    data = memoryview(self._waiting[0])
                    while data:  # a disk takes what it has room for, and only then says that it is full
                        data = data[self._file.write(data) :]
                    self._whole = self._file.tell()
                    self._waiting.popleft()
            except OSError:
                try:
                    self._file.truncate(self._whole)  # a reader would stop at half a record
                except OSError:
                    pass  # a folder that became read-only: nothing more can go wrong with it
                self._file.seek(self._whole)
                raise

    def close(self) -> None:
        """Writes what waits, if that is possible now, and closes the file; may be called twice."""
        if not self._file.closed:
            try:
                self._write()
            finally:
                self._file.close()


class Progress:
    """Steps made, steps/s, return and time left: a bar on a terminal, plain lines elsewhere.

    Of ``total`` steps of the whole run, ``done`` were made before.
    """

    def __init__(self, total: int, done: int) -> None:
        self.total, self._done_before = total, done
        self._start = self._last_line = time.monotonic()
        self._bar: bars.Progress | None = None
        if sys.stderr.isatty():
            self._bar = bars.Progress(
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[rate]:,.0f} steps/s"),
                bars.TextColumn("return {task.fields[score]}"),
                bars.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=total, completed=done, rate=0.0, score="-")
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
            told = f"{done:,} of {self.total:,} steps, {rate:,.0f} steps/s, return {score}, {left:.0f} s left"
            print(told, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
