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
    """

    received: signal.Signals | None = None
    """The first signal, None until there is one."""

    def __enter__(self) -> StopSignals:
        self._previous = {}
        for number in STOPS:
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = signal.Signals(number), now
        elif number == signal.SIGINT and now - self._at > ONE_REQUEST:
            raise KeyboardInterrupt
