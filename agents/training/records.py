"""What a run logs: TensorBoard's event file and ``metrics.csv``, both kept readable when the disk is full.

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
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from ...envs.errors import UserError
from ..storage.atomic import replace_file
from ..storage.save_errors import SaveErrors

ONLY_IN_CSV = ("time/iterations", "time/time_elapsed", "time/total_timesteps")
"""Scalars that are no curves."""

MOST_WAITING = 64 * 2**20
"""Bytes of events kept for later while they cannot be written; beyond it, the oldest are dropped."""

_count = itertools.count()


class Records:
    """Scalars in both files, going on where they were.

    Args:
        folder: of the run.
        last_step: what the files hold beyond it belongs to what a resumed run will do again.
        errors: is told what cannot be written; if it goes on, the next row is written with those before it.

    Attributes:
        writer: TensorBoard's, for what is no scalar.
    """

    def __init__(self, folder: Path, last_step: int, errors: SaveErrors) -> None:
        told = [
            (partial(errors.failed, what), partial(errors.succeeded, what))
            for what in ("TensorBoard's event file", "metrics.csv")
        ]
        # A run that was killed before its first checkpoint begins anew in its folder.
        again = last_step > 0 or any(folder.glob("events.*"))
        self.writer = Writer(folder, last_step + 1 if again else None, *told[0])
        self._metrics = MetricsCsv(folder / "metrics.csv", last_step, *told[1])

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """A row of scalars."""
        for name, value in scalars.items():
            if name not in ONLY_IN_CSV:
                self.writer.add_scalar(name, value, step)
        self._metrics.write(scalars, step)

    def close(self) -> None:
        """Close both."""
        self.writer.close()
        self._metrics.close()


def _raise(error: OSError) -> None:
    raise error


class MetricsCsv:
    """A CSV file whose first column is ``step``, a row for each update.

    A column that appears later (a body's first whole episode) makes the file be written anew, with
    empty cells above; so does a row that could not be written, with the next one.

    Args:
        path: the file; rows that it holds already, up to ``last_step``, are kept.
        last_step: as of `Records`.
        failed: is told of an error of the disk; if it returns, rows wait for the next one.
        succeeded: is told when every row has been written.

    Raises:
        UserError: the file that is there is damaged.
        OSError: it cannot be written at the start.
    """

    def __init__(
        self,
        path: Path,
        last_step: int = 0,
        failed: Callable[[OSError], None] = _raise,
        succeeded: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self._failed, self._succeeded = path, failed, succeeded
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
        try:
            if new or self._file is None:
                self._rewrite()
            else:
                csv.DictWriter(self._file, self._columns).writerow(row)
                self._file.flush()
        except OSError as error:
            self.close()
            self._failed(error)
        else:
            self._succeeded()

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
    """Appends events to a file of its own, at once, each as a whole or not at all.

    Args:
        folder: where to.
        failed: is told of an error of the disk; if it does not raise, events wait for the next one.
        succeeded: is told that everything has been written.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(
        self, folder: str | Path, failed: Callable[[OSError], None], succeeded: Callable[[], None]
    ) -> None:
        self._folder, self._failed, self._succeeded = str(folder), failed, succeeded
        unique = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_count)}"
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Unbuffered: an error comes with the record that it belongs to.
        self._file = open(Path(folder) / f"events.out.tfevents.{unique}", "xb", buffering=0)  # noqa: SIM115
        self._whole, self._waiting, self._size = 0, deque(), 0
        source = SourceMetadata(writer=__name__)
        event = Event(wall_time=time.time(), file_version="brain.Event:2", source_metadata=source)
        self.add_event(event)

    def get_logdir(self) -> str:
        """The folder."""
        return self._folder

    def add_event(self, event: Event) -> None:
        """Writes an event, and before it those that could not be written."""
        record = _Record()
        RecordWriter(record).write(event.SerializeToString())
        self._waiting.append(record.data)
        self._size += len(record.data)
        while self._size > MOST_WAITING and len(self._waiting) > 1:
            self._size -= len(self._waiting.popleft())
        self._write()

    def _write(self) -> None:
        try:
            while self._waiting:
                data = memoryview(self._waiting[0])
                while data:  # a disk takes what it has room for, and only then says that it is full
                    data = data[self._file.write(data) :]
                self._whole = self._file.tell()
                self._size -= len(self._waiting.popleft())
        except OSError as error:
            try:
                self._file.truncate(self._whole)  # a reader would stop at half a record
            except OSError:
                pass  # a folder that became read-only: nothing more can go wrong with it
            self._file.seek(self._whole)
            self._failed(error)
        else:
            self._succeeded()

    def flush(self) -> None:
        """Nothing: every event is with the system at once."""

    def close(self) -> None:
        """Writes what waits, if that is possible now, and closes the file; may be called twice."""
        if not self._file.closed:
            try:
                if self._waiting:
                    self._write()
            finally:
                self._file.close()


class _Record:
    """Takes what a `RecordWriter` writes."""

    data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Writer(SummaryWriter):
    """torch's writer of summaries, into an `EventFile`.

    Args:
        folder: of the event files.
        purge_step: scalars of this step and later ones that the folder holds already are not shown any more.
        failed, succeeded: as of `EventFile`.
    """

    def __init__(
        self,
        folder: str | Path,
        purge_step: int | None = None,
        failed: Callable[[OSError], None] = _raise,
        succeeded: Callable[[], None] = lambda: None,
    ) -> None:
        self._event_file = EventFile(folder, failed, succeeded)
        super().__init__(str(folder), purge_step=purge_step)

    def _get_file_writer(self) -> Any:
        if self.all_writers is None or self.file_writer is None:
            self.file_writer = _Files(self._event_file)
            self.all_writers = {self.file_writer.get_logdir(): self.file_writer}
            if self.purge_step is not None:
                step, self.purge_step = self.purge_step, None
                start = Event(step=step)
                start.session_log.status = start.session_log.START
                self.file_writer.add_event(Event(file_version="brain.Event:2"), step)
                self.file_writer.add_event(start, step)
        return self.file_writer


class _Files(FileWriter):
    def __init__(self, event_file: EventFile) -> None:
        self.event_writer = event_file
