"""A loop's body as one CUDA graph, and seconds of parts of a rollout that the host runs ahead of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

WARM_UP = 3
"""Runs before the capture: libraries get ready, and what is cached at the first call is cached."""


def repeated(
    function: Callable[[], None], device: torch.device, generators: Sequence[torch.Generator] = ()
) -> Callable[[], None]:
    """``function`` as what is called in a loop: on a GPU a CUDA graph, on a CPU itself.

    On a GPU it is run at once, `WARM_UP` times, and captured: what it has written is to be written anew
    before the loop begins. It has neither arguments nor results, waits for nothing, reads and writes tensors
    that stay where they are, and draws from these ``generators`` of the device alone.
    """
    if device.type != "cuda":
        return function
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # Other threads, which may be busy with the GPU themselves, do not disturb a capture in this mode.
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay


class DeviceClock:
    """Adds up the time of a device's operations between `start` and `stop`.

    On a GPU they are timed by marks in its stream, so that nothing waits until `read`.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_gpu = device.type == "cuda"
        self._marks: list[torch.cuda.Event] = []
        self._seconds = 0.0

    def start(self) -> None:
        """A part begins."""
        self._mark(-1)

    def stop(self) -> None:
        """The part has ended."""
        self._mark(1)

    def _mark(self, sign: int) -> None:
        if not self._is_gpu:
            self._seconds += sign * time.perf_counter()
            return
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
