"""Output that never ends a command: whatever the terminal can show, and whether anybody still reads it."""

from __future__ import annotations

import codecs
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_ERRORS = "somite.plain"
_PLAIN = {"±": "+-", "×": "x", "–": "-", "…": "...", "·": ".", "•": "*", "’": "'"}
_PLAIN |= dict.fromkeys("─━═╌╍╴╸╶╺", "-") | dict.fromkeys("│┃║╎╏╵╹╷╻", "|")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What an encoding has not: lines of tables in ASCII, anything else as its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = ""
    for c in error.object[error.start : error.end]:
        is_line = "\u2500" <= c <= "\u257f"
        plain += _PLAIN.get(c) or ("+" if is_line else c.encode("ascii", "backslashreplace").decode("ascii"))
    return plain, error.end


codecs.register_error(_ERRORS, _plainly)


@contextmanager
def patient_streams() -> Iterator[None]:
    """Within it, what a stream cannot take is written in ASCII, or not at all where no reader is left.

    A terminal that is not UTF-8, a file name that is not text, ``| head`` and a closed terminal: the command
    goes on with its work and keeps its exit code. After ``>&-`` the number of the stream is taken, so that no
    file of ours gets it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # it is closed, and the lowest free number is given next
            os.open(os.devnull, os.O_RDWR)
    if os.environ.get("COLUMNS") == "0":  # of a terminal that does not know: rich would show nothing
        del os.environ["COLUMNS"]
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for name, stream in before.items():
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)
        setattr(sys, name, _Patient(stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


class _Patient:
    """A stream whose reader may leave."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, do: Callable[..., Any], *given: Any) -> None:
        """Where nobody reads any more, the rest goes nowhere. Raises OSError: another error."""
        try:
            do(*given)
        except OSError as error:
            if not isinstance(error, BrokenPipeError) and error.errno != errno.EIO:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def guard_log_files() -> None:
    """Log files, which Hydra opens in the encoding of the terminal, are written in UTF-8, whatever comes.

    One that cannot be written is told once, without a trace for every line: the terminal has every line in
    any case, and lines go into the file again as soon as they can.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.encoding, handler.errors = "utf-8", "backslashreplace"
            if handler.stream is not None:
                handler.stream.reconfigure(encoding=handler.encoding, errors=handler.errors)
            handler.handleError = _told_once(handler)


def _told_once(handler: logging.FileHandler) -> Callable[[logging.LogRecord], None]:
    told: list[str] = []

    def handle(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a fault of ours, as any other
            logging.FileHandler.handleError(handler, record)
        elif not told:
            told.append(f"{handler.baseFilename} cannot be written ({error.strerror})")
            print(f"{told[0]}: lines are on the terminal only", file=sys.stderr)

    return handle
