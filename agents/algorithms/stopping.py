"""Stopping in order: a signal is remembered until the run can save."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType

ONE_REQUEST = 1.0
"""Seconds in which signals are one request: ``timeout`` sends two, to the program and to its group."""


class StopSignals:
    """While entered, SIGINT and SIGTERM are remembered; a second one, later, interrupts at once.

    Attributes:
        received: the signal, None until there is one.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._at = 0.0
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = signal.Signals(number), now
        elif now - self._at > ONE_REQUEST:
            raise KeyboardInterrupt
