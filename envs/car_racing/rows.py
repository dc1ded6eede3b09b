"""Many cars: in this process, or shared out among worker processes that write into shared memory."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

import cv2
import numpy as np

from .drawing import PAINTERS, SIZE
from .row import Row, Rules
from .state import STATE_NAMES, Tracks


@dataclass
class Results:
    """What B rows write.

    Attributes:
        pictures: (B, 96, 96, 3) uint8, of the world. frames: (B, 96, 96, 1 or 3) uint8, for the agent.
        states: (B, S) float32. rewards: (B,) float64. ended: (B,) bool. cut: (B,) bool.
    """

    pictures: np.ndarray
    frames: np.ndarray
    states: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray
    cut: np.ndarray

    @classmethod
    def layout(cls, num_envs: int, rules: Rules) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and type of each."""
        side = SIZE if rules.pictures else 0
        return {
            "pictures": ((num_envs, side, side, 3), np.uint8),
            "frames": ((num_envs, side, side, 1 if rules.grey else 3), np.uint8),
            "states": ((num_envs, len(STATE_NAMES)), np.float32),
            "rewards": ((num_envs,), np.float64),
            "ended": ((num_envs,), np.bool_),
            "cut": ((num_envs,), np.bool_),
        }

    def part(self, rows: slice) -> Results:
        """Views of some rows."""
        return Results(**{name: values[rows] for name, values in vars(self).items()})


class Rows(Protocol):
    """Rows that start, step and show themselves in `results`."""

    results: Results

    def start(self, seeds: dict[int, tuple[int, int]]) -> None:
        """Start an episode in some rows: the seeds of each one's track and look."""
        ...

    def step(self, actions: np.ndarray, running: np.ndarray) -> None:
        """Act in the rows that are running: (B, 3) steering, gas, brake; (B,) bool."""
        ...

    def close(self) -> None:
        """Let the simulations go."""
        ...


class LocalRows:
    """Rows of this process.

    Args:
        results: written to.
        rules: of each `Row`.
    """

    def __init__(self, results: Results, rules: Rules) -> None:
        self.results, self._pictures = results, rules.pictures
        self._rows = [Row(rules) for _ in range(len(results.rewards))]
        self._painter, self._tracks = PAINTERS[rules.renderer](len(self._rows)), Tracks(len(self._rows))

    def start(self, seeds: dict[int, tuple[int, int]]) -> None:
        """See `Rows`."""
        for index, seed in seeds.items():
            self._rows[index].start(*seed)
            env = self._rows[index].env
            self._painter.start(index, env)
            self._tracks.set(index, env)
        self._show(list(seeds))

    def step(self, actions: np.ndarray, running: np.ndarray) -> None:
        """See `Rows`."""
        results = self.results
        indices = np.flatnonzero(running).tolist()
        for index in indices:
            reward, ended, cut = self._rows[index].step(actions[index])
            results.rewards[index], results.ended[index], results.cut[index] = reward, ended, cut
        self._show(indices)

    def _show(self, indices: list[int]) -> None:
        if not indices:
            return
        results, envs = self.results, [self._rows[index].env for index in indices]
        self._tracks.read(indices, envs, results.states)
        if self._pictures:
            self._painter.draw(indices, envs, results.pictures)
            for index in indices:
                self._rows[index].finish(results.pictures[index], results.frames[index])

    def close(self) -> None:
        """See `Rows`."""
        for row in self._rows:
            row.close()


class WorkerRows:
    """Rows shared out among processes; nothing but commands goes through their pipes.

    Args:
        num_envs: B.
        workers: processes.
        rules: of each `Row`.
    """

    def __init__(self, num_envs: int, workers: int, rules: Rules) -> None:
        context = get_context("spawn")
        shared = {
            name: context.RawArray("b", int(np.prod(shape)) * np.dtype(kind).itemsize)
            for name, (shape, kind) in _shared_layout(num_envs, rules).items()
        }
        arrays = _arrays(shared, num_envs, rules)
        self._actions, self._running = arrays.pop("actions"), arrays.pop("running")
        self.results = Results(**arrays)
        bounds = np.linspace(0, num_envs, workers + 1).astype(int).tolist()
        self._parts = [slice(first, last) for first, last in zip(bounds[:-1], bounds[1:], strict=True)]
        self._pipes: list[Connection] = []
        self._processes = []
        for part in self._parts:
            mine, theirs = context.Pipe()
            given = (theirs, shared, num_envs, part, rules)
            process = context.Process(target=_work, args=given, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def start(self, seeds: dict[int, tuple[int, int]]) -> None:
        """See `Rows`."""
        asked = []
        for pipe, part in zip(self._pipes, self._parts, strict=True):
            own = {row - part.start: seed for row, seed in seeds.items() if part.start <= row < part.stop}
            if own:
                self._tell(pipe, "start", own)
                asked.append(pipe)
        self._await(asked)

    def step(self, actions: np.ndarray, running: np.ndarray) -> None:
        """See `Rows`."""
        self._actions[:], self._running[:] = actions, running
        for pipe in self._pipes:
            self._tell(pipe, "step")
        self._await(self._pipes)

    def _tell(self, pipe: Connection, command: str, argument: Any = None) -> None:
        try:
            pipe.send((command, argument))
        except OSError:
            self._report_death(pipe)

    def _report_death(self, pipe: Connection) -> NoReturn:
        process = self._processes[self._pipes.index(pipe)]
        process.join(1.0)
        raise RuntimeError(f"a worker of car_racing died, exit code {process.exitcode}") from None

    def _await(self, pipes: Sequence[Connection]) -> None:
        for pipe in pipes:
            try:
                failure = pipe.recv()
            except (EOFError, ConnectionResetError):
                self._report_death(pipe)
            if failure:
                raise RuntimeError(f"a worker of car_racing failed:\n{failure}")

    def close(self) -> None:
        """See `Rows`."""
        for pipe in self._pipes:
            try:
                pipe.send(("close", None))
            except OSError:
                continue  # it has died; there is nothing to be closed
            pipe.close()
        for process in self._processes:
            process.join(5.0)
            if process.is_alive():
                process.terminate()
        self._pipes, self._processes = [], []


def make_rows(num_envs: int, workers: int, rules: Rules) -> Rows:
    """Rows in this process if one worker is enough, else in several."""
    cv2.setNumThreads(1)  # pictures are small: threads within a call only wait for each other
    if workers > 1:
        return WorkerRows(num_envs, workers, rules)
    arrays = {name: np.zeros(shape, kind) for name, (shape, kind) in Results.layout(num_envs, rules).items()}
    return LocalRows(Results(**arrays), rules)


def _shared_layout(num_envs: int, rules: Rules) -> dict[str, tuple[tuple[int, ...], type]]:
    commands = {"actions": ((num_envs, 3), np.float64), "running": ((num_envs,), np.bool_)}
    return {**Results.layout(num_envs, rules), **commands}


def _arrays(shared: dict[str, Any], num_envs: int, rules: Rules) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(shared[name], kind).reshape(shape)
        for name, (shape, kind) in _shared_layout(num_envs, rules).items()
    }


def _work(pipe: Connection, shared: dict[str, Any], num_envs: int, part: slice, rules: Rules) -> None:
    """What a worker process does until its pipe is closed."""
    cv2.setNumThreads(1)
    arrays = _arrays(shared, num_envs, rules)
    actions, running = arrays.pop("actions")[part], arrays.pop("running")[part]
    rows = LocalRows(Results(**arrays).part(part), rules)
    while True:
        try:
            command, argument = pipe.recv()
        except (EOFError, KeyboardInterrupt):  # the run is over; it is the main process that saves
            break
        if command == "close":
            break
        try:
            if command == "start":
                rows.start(argument)
            else:
                rows.step(actions, running)
            pipe.send(None)
        except Exception:
            pipe.send(traceback.format_exc())
    rows.close()
