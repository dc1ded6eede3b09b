"""Threads that step the batches of an environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Workers:
    """Shares threads among batches.

    Few batches are stepped one after another, each on all threads. Where there are several for each
    thread, each is stepped by one thread and they beside each other: then threads wait for each other
    once in a step and not once in a batch. A batch computes without Python's lock.

    Args:
        threads: that may compute at once.
        batches: how many there are.

    Attributes:
        threads_each: threads that a batch is to have.
    """

    def __init__(self, threads: int, batches: int) -> None:
        beside = threads > 1 and batches >= 2 * threads
        self.threads_each = 1 if beside else threads
        self._pool = ThreadPoolExecutor(threads - 1) if beside else None
        self._others = threads - 1

    def run(self, calls: Sequence[tuple[Callable[..., Any], Any]]) -> list[Any]:
        """Call each function with its argument; their results in order."""
        if self._pool is None:
            return [function(argument) for function, argument in calls]
        waiting, results = list(enumerate(calls))[::-1], [None] * len(calls)

        def work() -> None:
            while True:
                try:
                    index, (function, argument) = waiting.pop()  # one operation: safe between threads
                except IndexError:
                    return
                results[index] = function(argument)

        started = [self._pool.submit(work) for _ in range(self._others)]
        work()
        for other in started:
            other.result()
        return results

    def close(self) -> None:
        """Let the threads end."""
        if self._pool is not None:
            self._pool.shutdown()
