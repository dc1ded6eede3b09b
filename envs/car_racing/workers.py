"""Cars shared out among worker processes that write into shared memory; one that dies is replaced."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .rows import LocalRows, Past, Rules, record_of

logger = logging.getLogger(__name__)

MOST_DEATHS = 3
"""Of a worker that makes no step in between; then it is no accident."""


class Worker:
    """A process that simulates a ``part`` of the cars in shared memory, and its successors.

    ``deaths`` are those of its processes since the last step.
    """

    def __init__(self, name: str, shared: Any, part: slice, rules: Rules) -> None:
        self.name, self.part, self.deaths = name, part, 0
        self._given = shared, part, rules
        self.begin()

    def begin(self) -> None:
        """Start a process."""
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, *self._given), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, command: str, *arguments: Any) -> None:
        """Call a method of its `LocalRows`, or ``close``."""
        try:
            self._pipe.send((command, arguments))
        except OSError:
            pass  # the other end is closed: nothing can be told, and `answers` will find that it has ended

    def answers(self) -> bool:
        """Wait until it is done; False: it has died.

        Raises:
            RuntimeError: what was to be done failed; with its traceback.
        """
        try:
            failure = self._pipe.recv()
        except (EOFError, OSError):
            return False
        if failure:
            raise RuntimeError(f"a worker of car_racing failed:\n{failure}")
        return True

    def cause_of_death(self) -> str:
        """Its signal by name, or its exit code."""
        if self._ends(1.0):
            code = self.process.exitcode
            return signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return "a closed pipe"

    def close(self) -> None:
        """End the process."""
        self.tell("close")
        self._pipe.close()
        self._ends(5.0)

    def _ends(self, seconds: float) -> bool:
        """Whether it ends by itself in that time; else it is killed."""
        self.process.join(seconds)
        ended = not self.process.is_alive()
        if not ended:
            self.process.kill()
            self.process.join()
        return ended


class WorkerRows:
    """`LocalRows` shared out among processes; nothing but commands goes through their pipes.

    A worker that is killed, or crashes, is replaced by a fresh one, which replays its cars to where they
    were: the run goes on as if nothing had happened. One that raises an error stops the run.

    Args:
        num_envs: B.
        workers: processes.
        rules: of all cars.
        past: seeds and actions of a car until what is being done now; None: it has not begun.
    """

    def __init__(self, num_envs: int, workers: int, rules: Rules, past: Callable[[int], Past | None]) -> None:
        record = record_of(rules)
        shared = get_context("spawn").RawArray("b", num_envs * record.itemsize)
        self.results, self._past = np.frombuffer(shared, record), past
        self._origins = self.results["origins"].copy()  # as they were before what is being done
        bounds = np.linspace(0, num_envs, workers + 1).astype(int).tolist()
        self.workers = []
        for number, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True), 1):
            name = f"worker {number} of {workers} of car_racing"
            self.workers.append(Worker(name, shared, slice(first, last), rules))

    def start(self, pasts: Mapping[int, Past]) -> None:
        """See `LocalRows`."""
        tasks = {}
        for worker in self.workers:
            own = range(worker.part.start, worker.part.stop)
            if mine := {row - own.start: past for row, past in pasts.items() if row in own}:
                tasks[worker] = ("start", mine)
        for worker, task in tasks.items():
            worker.tell(*task)
        self._await(tasks)

    def step_begin(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Workers write into `results` from now on; see `LocalRows`."""
        self.results["actions"], self.results["running"] = actions, running
        for worker in self.workers:
            worker.tell("step_finish")

    def step_finish(self) -> None:
        """See `LocalRows`."""
        self._await({worker: ("step_finish",) for worker in self.workers})
        for worker in self.workers:
            worker.deaths = 0

    def _await(self, tasks: Mapping[Worker, tuple[Any, ...]]) -> None:
        """Until everything that was told is done, however many workers die of it."""
        for worker, task in tasks.items():
            while not worker.answers():
                self._replace(worker)
                worker.tell(*task)
        self._origins[:] = self.results["origins"]

    def _replace(self, worker: Worker) -> None:
        """Start a fresh process and bring its cars to where they were before what was to be done."""
        rows, origins = range(worker.part.start, worker.part.stop), self._origins.tolist()
        pasts = {
            row - rows.start: past._replace(origin=origins[row])
            for row in rows
            if (past := self._past(row)) is not None
        }
        alive = False
        while not alive:
            cause = worker.cause_of_death()
            worker.deaths += 1
            if worker.deaths == MOST_DEATHS:
                raise RuntimeError(
                    f"{worker.name} died {MOST_DEATHS} times without making a step, the last time of {cause}"
                )
            which = f"environments {rows[0]} to {rows[-1]}"
            logger.warning("%s died of %s; a fresh one goes on with its %s", worker.name, cause, which)
            worker.begin()
            worker.tell("start", pasts)
            alive = worker.answers()

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.close()
        self.workers = []


def make_rows(
    num_envs: int, workers: int, rules: Rules, past: Callable[[int], Past | None]
) -> LocalRows | WorkerRows:
    """Cars of this process if one worker is enough, else of several."""
    if workers > 1:
        return WorkerRows(num_envs, workers, rules, past)
    return LocalRows(np.zeros(num_envs, record_of(rules)), rules)


def _work(pipe: Connection, shared: Any, part: slice, rules: Rules) -> None:
    """What a worker process does until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process saves and closes
    rows = LocalRows(np.frombuffer(shared, record_of(rules))[part], rules)
    while True:
        try:
            command, arguments = pipe.recv()
            if command == "close":
                break
            failure = None
            try:
                getattr(rows, command)(*arguments)
            except Exception:
                failure = traceback.format_exc()
            pipe.send(failure)
        except (EOFError, OSError):  # the main process has ended
            break
    rows.close()
