"""Signals that come while nothing is being learnt yet, or between two runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]


@contextmanager
def early_signals() -> Iterator[None]:
    """Within it, a signal that asks to stop ends the program, with a sentence and 128 plus its number.

    A run that is made replaces this by its own way, which saves. SIGINT stays Python's.
    """
    previous = {}
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            previous[number] = signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    print(
        f"stopped by {name} before there was anything to save: give the same command again", file=sys.stderr
    )
    raise SystemExit(128 + number)
