"""Many cars, of this process or shared out among workers that write into shared memory."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import cv2
import numpy as np

from .drawing import INDICATOR_ROWS, PAINTERS
from .scenery import SIZE, Scenery
from .simulation import STATE_NAMES, Racing, Tracks, read_cars

logger = logging.getLogger(__name__)

SLIP = 4  # actions that a slip lasts
LOW, HIGH = np.array([-1.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0])  # steering, gas, brake


class Rules(NamedTuple):
    """What simulates a car needs to know of `CarRacing`, whose arguments say what the keys mean."""

    scenery: Scenery
    draws: bool
    grey: bool
    indicators: bool
    renderer: str
    action_repeat: int
    max_frames: int
    patience: int
    slips: float


class Past(NamedTuple):
    """What the present of a car came of; without actions it is the start of an episode."""

    seeds: tuple[int, int]  # of its track and look
    actions: np.ndarray = np.zeros((0, 3))  # (steps, 3) since
    origin: int = 0  # as in `record_of`


class Car:
    """One car."""

    def __init__(self, rules: Rules) -> None:
        self.env, self.rules = Racing(), rules

    def start(self, track_seed: int, look_seed: int) -> None:
        """A new track, that of Gymnasium's seed, which looks as another seed says."""
        self.env.reset(seed=track_seed)
        self.look = self.rules.scenery.draw(np.random.default_rng(look_seed))
        self.frames = self._unrewarded = self._slipping = 0
        self._slips = np.random.default_rng([look_seed, track_seed])

    def step(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """Act for some frames.

        Args:
            action: (3,) steering in [-1, 1], gas and brake in [0, 1].

        Returns:
            The sum of the frames' rewards, whether the episode ended, and whether its time was up.
        """
        rules, total = self.rules, 0.0
        if rules.slips:
            action = self._slipped(action)
        for _ in range(rules.action_repeat):
            _, reward, terminated, _, _ = self.env.step(action)
            total += reward
            self.frames += 1
            self._unrewarded = 0 if reward > 0 else self._unrewarded + 1
            if terminated or 0 < rules.patience < self._unrewarded:
                return total, True, False
            if self.frames == rules.max_frames:
                return total, False, True
        return total, False, False

    def _slipped(self, action: np.ndarray) -> np.ndarray:
        """The action, or what comes of it."""
        if not self._slipping and self._slips.random() < self.rules.slips:
            self._slipping, self._wrong = SLIP, self._slips.uniform(LOW, HIGH)
        if not self._slipping:
            return action
        self._slipping -= 1
        return self._wrong

    def finish(self, picture: np.ndarray, frame: np.ndarray) -> None:
        """Change the drawn ``picture`` (96, 96, 3) uint8 to what the world looks like.

        What the agent receives is written to ``frame`` (96, 96, 1 or 3) uint8.
        """
        self.look.apply(picture, self.frames, INDICATOR_ROWS.start)
        if self.rules.grey:
            cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY, dst=frame[..., 0])
        else:
            frame[:] = picture
        if not self.rules.indicators:
            frame[INDICATOR_ROWS] = 0


def record_of(rules: Rules) -> np.dtype:
    """What a car is told and tells; the results of B cars are an array (B,) of it."""
    side = SIZE if rules.draws else 0
    fields = [
        ("actions", np.float64, (3,)),  # steering, gas, brake
        ("running", np.bool_),  # whether it acts
        ("pictures", np.uint8, (side, side, 3)),  # of the world
        ("frames", np.uint8, (side, side, 1 if rules.grey else 3)),  # for the agent
        ("states", np.float32, (len(STATE_NAMES),)),
        ("rewards", np.float64),
        ("ended", np.bool_),
        ("cut", np.bool_),
        ("origins", np.int64),  # the tile from which the present place on the track was looked for
    ]
    return np.dtype(fields, align=True)


class LocalCars:
    """B cars of this process, which write to ``results`` (B,), see `record_of`."""

    def __init__(self, results: np.ndarray, rules: Rules) -> None:
        cv2.setNumThreads(1)  # pictures are small: threads within a call only wait for each other
        self.results, self._draws = results, rules.draws
        self._cars = [Car(rules) for _ in results]
        self._painter, self._tracks = PAINTERS[rules.renderer](len(results)), Tracks(len(results))

    def start(self, pasts: Mapping[int, Past]) -> None:
        """Bring cars to where their past leads: Box2D's states cannot be saved. Only the present is drawn."""
        for index, past in pasts.items():
            car = self._cars[index]
            car.start(*past.seeds)
            self._painter.start(index, car.env)
            self._tracks.set(index, car.env)
            for action in past.actions:
                car.step(action)
            self._tracks.nearest[index] = past.origin
        self._show(list(pasts))

    def step_begin(self) -> None:
        """Do the ``actions`` of those that are ``running``, both of which stand in `results`.

        The rest of these has no meaning until `step_finish`, for which all of it waits here.
        """

    def step_finish(self) -> None:
        """Wait until the step that was begun is done."""
        results = self.results
        indices, actions = np.flatnonzero(results["running"]).tolist(), results["actions"]
        rewards, ended, cut = results["rewards"], results["ended"], results["cut"]
        for index in indices:
            rewards[index], ended[index], cut[index] = self._cars[index].step(actions[index])
        self._show(indices)

    def _show(self, indices: Sequence[int]) -> None:
        if not indices:
            return
        results, envs = self.results, [self._cars[index].env for index in indices]
        results["origins"][indices] = self._tracks.nearest[indices]
        read = read_cars(envs)
        self._tracks.read(indices, read, results["states"])
        if self._draws:
            pictures, frames = results["pictures"], results["frames"]
            self._painter.draw(indices, envs, read, pictures)
            for index in indices:
                self._cars[index].finish(pictures[index], frames[index])

    def close(self) -> None:
        """Let the simulations go."""
        for car in self._cars:
            car.env.close()


MOST_DEATHS = 3  # of a worker that makes no step in between; then it is no accident


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
        """Call a method of its `LocalCars`, or ``close``."""
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


class WorkerCars:
    """`LocalCars` shared out among processes; nothing but commands goes through their pipes.

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
        """See `LocalCars`."""
        tasks = {}
        for worker in self.workers:
            own = range(worker.part.start, worker.part.stop)
            if mine := {index - own.start: past for index, past in pasts.items() if index in own}:
                tasks[worker] = ("start", mine)
        for worker, task in tasks.items():
            worker.tell(*task)
        self._await(tasks)

    def step_begin(self) -> None:
        """Workers write into `results` from now on; see `LocalCars`."""
        for worker in self.workers:
            worker.tell("step_finish")

    def step_finish(self) -> None:
        """See `LocalCars`."""
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
        own, origins = range(worker.part.start, worker.part.stop), self._origins.tolist()
        pasts = {
            index - own.start: past._replace(origin=origins[index])
            for index in own
            if (past := self._past(index)) is not None
        }
        alive = False
        while not alive:
            cause = worker.cause_of_death()
            worker.deaths += 1
            if worker.deaths == MOST_DEATHS:
                raise RuntimeError(
                    f"{worker.name} died {MOST_DEATHS} times without making a step, the last time of {cause}"
                )
            which = f"environments {own[0]} to {own[-1]}"
            logger.warning("%s died of %s; a fresh one goes on with its %s", worker.name, cause, which)
            worker.begin()
            worker.tell("start", pasts)
            alive = worker.answers()

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.close()
        self.workers = []


def make_cars(
    num_envs: int, workers: int, rules: Rules, past: Callable[[int], Past | None]
) -> LocalCars | WorkerCars:
    """Cars of this process if one worker is enough, else of several."""
    if workers > 1:
        return WorkerCars(num_envs, workers, rules, past)
    return LocalCars(np.zeros(num_envs, record_of(rules)), rules)


def _work(pipe: Connection, shared: Any, part: slice, rules: Rules) -> None:
    """What a worker process does until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process saves and closes
    cars = LocalCars(np.frombuffer(shared, record_of(rules))[part], rules)
    while True:
        try:
            command, arguments = pipe.recv()
            if command == "close":
                break
            failure = None
            try:
                getattr(cars, command)(*arguments)
            except Exception:
                failure = traceback.format_exc()
            pipe.send(failure)
        except (EOFError, OSError):  # the main process has ended
            break
    cars.close()
