"""TensorBoard's event file, written at once and kept readable when the disk is full.

TensorBoard's own writer has a thread, which dies of the first error of the disk: what had been queued is
lost, the next call raises the error, in the middle of learning, and so does every later one; half a record
stays in the file, behind which no reader finds anything.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

MOST_WAITING = 64 * 2**20
"""Bytes of events kept for later while they cannot be written; beyond it, the oldest are dropped."""

_count = itertools.count()


class EventFile:
    """Appends events to a file of its own, each as a whole or not at all.

    Args:
        folder: Where to.
        failed: Is told of an error of the disk; if it does not raise, events wait for the next one.
        succeeded: Is told that everything has been written.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(
        self, folder: str | Path, failed: Callable[[OSError], None], succeeded: Callable[[], None]
    ) -> None:
        self._folder, self._failed, self._succeeded = str(folder), failed, succeeded
        name = (
            f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_count)}"
        )
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Unbuffered: an error comes with the record that it belongs to.
        self._file = open(Path(folder) / name, "xb", buffering=0)  # noqa: SIM115
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
            self._cut()
            self._failed(error)
        else:
            self._succeeded()

    def _cut(self) -> None:
        """Takes away what was written of a record: a reader would stop there."""
        try:
            self._file.truncate(self._whole)
            self._file.seek(self._whole)
        except OSError:
            # A folder that became read-only: nothing more can go wrong with it.
            self._file.seek(self._whole)

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
        folder: Of the event files.
        purge_step: Scalars of this step and later ones that the folder holds already are not shown any more.
        failed: As of `EventFile`.
        succeeded: Likewise.
    """

    def __init__(
        self,
        folder: str | Path,
        purge_step: int | None,
        failed: Callable[[OSError], None],
        succeeded: Callable[[], None],
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
