"""Cars shared out among worker processes that write into shared memory; one that dies is replaced."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ..sensors.source import Episodes
from .rows import LocalRows, Past, record_of

if TYPE_CHECKING:
    from .task import CarRacing

logger = logging.getLogger(__name__)

MOST_DEATHS = 3
"""Of a worker that makes no step in between; then it is no accident."""


class Worker:
    """A process that simulates a part of the rows, whose records are in shared memory, and its successors.

    ``deaths`` are those of its processes since the last step.
    """

    def __init__(self, name: str, shared: Any, part: slice, task: CarRacing) -> None:
        self.name, self.part, self.deaths = name, part, 0
        self._given = shared, part, task
        self.begin()

    def begin(self) -> None:
        """Start a process."""
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, *self._given), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, command: str, argument: Any = None) -> None:
        """What to do. Whether it has died shows in `answers`."""
        try:
            self._pipe.send((command, argument))
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
        self.process.join(1.0)
        if self.process.is_alive():  # it has closed its pipe, and does not end
            self.process.kill()
            self.process.join()
            return "a closed pipe"
        code = self.process.exitcode
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End the process."""
        self.tell("close")
        self._pipe.close()
        self.process.join(5.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class WorkerRows:
    """`LocalRows` shared out among processes; nothing but commands goes through their pipes.

    A worker that is killed, or crashes, is replaced by a fresh one, which replays its rows to where they
    were: the run goes on as if nothing had happened. One that raises an error stops the run.

    Args:
        num_envs: B.
        workers: processes.
        task: whose.
        episodes: of the rows, kept by the caller, who enters a start or a step once it is done.
    """

    def __init__(self, num_envs: int, workers: int, task: CarRacing, episodes: Episodes) -> None:
        record = record_of(task)
        shared = get_context("spawn").RawArray("b", num_envs * record.itemsize)
        self.results, self._episodes = np.frombuffer(shared, record), episodes
        self._origins = self.results["origins"].copy()  # as they were before what is being done
        bounds = np.linspace(0, num_envs, workers + 1).astype(int).tolist()
        parts = [slice(first, last) for first, last in zip(bounds[:-1], bounds[1:], strict=True)]
        self.workers = [
            Worker(f"worker {number} of {workers} of car_racing", shared, part, task)
            for number, part in enumerate(parts, 1)
        ]

    def start(self, pasts: Mapping[int, Past]) -> None:
        """See `LocalRows`."""
        tasks = []
        for worker in self.workers:
            first, end = worker.part.start, worker.part.stop
            own = {row - first: past for row, past in pasts.items() if first <= row < end}
            if own:
                tasks.append((worker, "start", own))
        self._tell(tasks)
        self._await(tasks)

    def step_begin(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Workers write into `results` from now on; see `LocalRows`."""
        self.results["actions"], self.results["running"] = actions, running
        self._tell([(worker, "step_finish", None) for worker in self.workers])

    def step_finish(self) -> None:
        """See `LocalRows`."""
        self._await([(worker, "step_finish", None) for worker in self.workers])
        for worker in self.workers:
            worker.deaths = 0

    def _tell(self, tasks: list[tuple[Worker, str, Any]]) -> None:
        for worker, *task in tasks:
            worker.tell(*task)

    def _await(self, tasks: list[tuple[Worker, str, Any]]) -> None:
        """Until everything that was told is done, however many workers die of it."""
        for worker, *task in tasks:
            while not worker.answers():
                self._replace(worker)
                worker.tell(*task)
        self._origins[:] = self.results["origins"]

    def _replace(self, worker: Worker) -> None:
        """Start a fresh process and bring its rows to where they were before what was to be done."""
        rows = range(worker.part.start, worker.part.stop)
        origins = self._origins.tolist()
        pasts = {
            row - rows.start: Past(*self._episodes.of(row), origins[row])
            for row in rows
            if self._episodes.begun(row)
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


def make_rows(num_envs: int, workers: int, task: CarRacing, episodes: Episodes) -> LocalRows | WorkerRows:
    """Rows in this process if one worker is enough, else in several."""
    cv2.setNumThreads(1)  # pictures are small: threads within a call only wait for each other
    if workers > 1:
        return WorkerRows(num_envs, workers, task, episodes)
    return LocalRows(np.zeros(num_envs, record_of(task)), task)


def _work(pipe: Connection, shared: Any, part: slice, task: CarRacing) -> None:
    """What a worker process does until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process saves and closes
    cv2.setNumThreads(1)
    rows = LocalRows(np.frombuffer(shared, record_of(task))[part], task)
    while True:
        try:
            command, argument = pipe.recv()
            if command == "close":
                break
            pipe.send(_attempt(rows, command, () if argument is None else (argument,)))
        except (EOFError, OSError):  # the main process has ended
            break
    rows.close()


def _attempt(rows: LocalRows, command: str, arguments: tuple[Any, ...]) -> str | None:
    """Do it; None, or the traceback of what failed."""
    try:
        getattr(rows, command)(*arguments)
    except Exception:
        return traceback.format_exc()
    return None
