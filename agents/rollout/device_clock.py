"""Seconds of parts of a rollout, also where the host runs ahead of the device."""

from __future__ import annotations

import time

import torch


class DeviceClock:
    """Adds up the time between `start` and `stop`.

    On a GPU the operations are timed by marks in its stream, so that nothing waits until `read`.

    Args:
        device: that the operations run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_gpu = device.type == "cuda"
        self._marks: list[torch.cuda.Event] = []
        self._seconds = 0.0

    def start(self) -> None:
        """A part begins."""
        if self._is_gpu:
            self._mark()
        else:
            self._seconds -= time.perf_counter()

    def stop(self) -> None:
        """The part has ended."""
        if self._is_gpu:
            self._mark()
        else:
            self._seconds += time.perf_counter()

    def _mark(self) -> None:
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        self._marks.append(mark)

    def read(self) -> float:
        """Seconds since the last reading. Waits for the GPU."""
        if self._marks:
            self._marks[-1].synchronize()
            pairs = zip(self._marks[::2], self._marks[1::2], strict=True)
            self._seconds += sum(start.elapsed_time(stop) for start, stop in pairs) / 1000  # of milliseconds
        seconds, self._seconds, self._marks = self._seconds, 0.0, []
        return seconds
