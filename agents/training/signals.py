"""Stopping in order: a signal is remembered until the run can save."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

ONE_REQUEST = 1.0
"""Seconds in which signals are one request: ``timeout`` sends two, to the program and to its group."""

STOPS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
"""Ask a run to stop: Ctrl-C; a scheduler's end of time; a terminal that closes; Slurm's ``--signal``."""


class StopSignals:
    """While entered, the signals of `STOPS` are remembered.

    A second SIGINT, later, interrupts at once: somebody sits there and does not want to wait. Any other
    signal again changes nothing, since schedulers send SIGTERM more than once, and the run may be saving; who
    cannot wait sends SIGKILL. SIGHUP stays ignored where it was (``nohup``).

    Entered within another one, it shares that one's signals: a run remembers them from its making until it
    has been saved, whatever part of it listens in between.
    """

    _outermost: StopSignals | None = None

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._at = 0.0
        self._previous: dict[signal.Signals, object] = {}
        self._outer: StopSignals | None = None

    @property
    def received(self) -> signal.Signals | None:
        """The first signal, None until there is one."""
        return self._received if self._outer is None else self._outer.received

    def __enter__(self) -> StopSignals:
        if StopSignals._outermost is not None:
            self._outer = StopSignals._outermost
            return self
        StopSignals._outermost = self
        for number in STOPS:
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *error: Any) -> None:
        if StopSignals._outermost is self:
            StopSignals._outermost = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._received is None:
            self._received, self._at = signal.Signals(number), now
        elif number == signal.SIGINT and now - self._at > ONE_REQUEST:
            raise KeyboardInterrupt
