"""Box2D cannot be saved: cars are replayed, in other processes and after a process has died, too."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("Box2D")

from somite.envs.car_racing import CarRacing, Scenery
from somite.envs.car_racing.rows import Row
from somite.envs.car_racing.workers import Worker, WorkerRows
from somite.envs.sensors import Senses, SensorVectorEnv
from tests.envs.futures import equal, go_on, read_back

DISTURBED = Senses(
    history=2, shuffle=3, noise_channels=2, missing=0.2, blinking=0.1, traces=(10,), neighbors=20
)
MOVING = Scenery(background=("clouds", "noise"), motion=1.5, color_shift=0.2)

TASKS = {
    "plain": CarRacing(Senses(history=2), max_episode_steps=30),
    "all of it": CarRacing(
        DISTURBED, MOVING, grey=False, indicators=True, action_repeat=3, max_episode_steps=100, slips=0.1
    ),
    "impatient": CarRacing(Senses(history=2), patience=10, action_repeat=2),
    "state": CarRacing(view="state", slips=0.1, max_episode_steps=300),
}


def restored(one: SensorVectorEnv, other: SensorVectorEnv, steps: int) -> None:
    """Bring the other to where the one is after so many steps."""
    one.reset(seed=0), other.reset(seed=5)
    go_on(one, steps, 0), go_on(other, 3, 1)
    other.restore(read_back(one.snapshot()))
    assert not other.begun_anew.any()


@pytest.mark.parametrize("name", TASKS)
def test_a_restored_environment_has_the_same_future(name: str) -> None:
    one, other = (TASKS[name].make_vec(num_envs=2, threads=1, stagger=True) for _ in range(2))
    restored(one, other, 250 if name == "state" else 17)
    assert equal(one.source.pictures, other.source.pictures)
    assert equal(go_on(one, 40, 1), go_on(other, 40, 1))


def test_gymnasiums_own_drawing_is_restored() -> None:
    one, other = (CarRacing(Senses(history=2), renderer="gymnasium").make_vec(num_envs=1) for _ in range(2))
    restored(one, other, 4)
    assert equal(go_on(one, 3, 1), go_on(other, 3, 1))


def test_an_onlooker_of_the_state_is_restored() -> None:
    one, other = (TASKS["plain"].make_vec(num_envs=2, beside=Senses(history=2), once=True) for _ in range(2))
    restored(one, other, 12)
    assert equal(go_on(one, 25, 1), go_on(other, 25, 1))


def test_an_old_world_and_a_fresh_one_drive_alike() -> None:
    """A replay is of one episode, in a world that may have seen many, or none."""
    old, rng = Row(CarRacing(view="state")), np.random.default_rng(0)
    for seed in range(4):
        old.start(seed, 0)
        for action in rng.uniform([-1, 0, 0], [1, 1, 0.2], (120, 3)):
            old.step(action)
    fresh = Row(CarRacing(view="state"))
    old.start(9, 0), fresh.start(9, 0)
    for action in rng.uniform([-0.3, 0, 0], [0.3, 1, 0.2], (600, 3)):
        assert old.step(action) == fresh.step(action)
        for one, other in zip(
            (old.env.car.hull, *old.env.car.wheels), (fresh.env.car.hull, *fresh.env.car.wheels), strict=True
        ):
            assert tuple(one.position) == tuple(other.position) and one.angle == other.angle


@pytest.mark.parametrize("part", ["_origins", "_states", "_episodes"])
def test_every_part_is_needed(part: str, caplog: pytest.LogCaptureFixture) -> None:
    """The negative control: without it the replay comes to another place, which is told."""
    one, other = (TASKS["state"].make_vec(num_envs=2) for _ in range(2))
    one.reset(seed=0), other.reset(seed=5)
    forwards = np.array([[0.0, 0.5, -1.0]] * 2)
    for _ in range(120):
        one.step(forwards)
    taken, others = one.snapshot(), other.snapshot()["source"]
    if part == "_origins":  # a tile on the other side of the field, from which this one is not seen
        others = {"_origins": taken["source"]["_origins"] + 100}
    other.restore({**taken, "source": {**taken["source"], part: others[part]}})
    found = other.source._origins if part == "_origins" else other.begun_anew
    assert found.all() if part != "_origins" else not equal(found, one.source._origins)
    assert ("cannot be replayed" in caplog.text) == (part != "_origins")


class Twins:
    """Cars of two workers, some of which die, and the same cars of this process."""

    def __init__(self, task: CarRacing) -> None:
        self.shared, self.alone = (task.make_vec(num_envs=8, threads=n, stagger=True) for n in (2, 1))
        self.shared.reset(seed=0), self.alone.reset(seed=0)

    @property
    def rows(self) -> WorkerRows:
        """Of those that die."""
        return self.shared.source._rows

    def go_on(self, steps: int, seed: int) -> None:
        """Do the same with both."""
        assert equal(go_on(self.shared, steps, seed), go_on(self.alone, steps, seed))

    def close(self) -> None:
        """End the workers."""
        self.shared.close(), self.alone.close()


@pytest.fixture(scope="module")
def twins() -> Any:
    pair = Twins(TASKS["all of it"])
    yield pair
    pair.close()


def test_workers_and_one_process_go_on_from_each_other(twins: Twins) -> None:
    for one, other in ((twins.shared, twins.alone), (twins.alone, twins.shared)):
        go_on(one, 17, 7), go_on(other, 3, 8)
        other.restore(read_back(one.snapshot()))
        assert not other.begun_anew.any()
        twins.go_on(20, 9)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_worker_that_is_killed_between_steps_is_replaced(
    number: signal.Signals, twins: Twins, caplog: pytest.LogCaptureFixture
) -> None:
    twins.go_on(12, 0)
    process = twins.rows.workers[1].process
    os.kill(process.pid, number)
    process.join()
    twins.go_on(45, 1)  # over the end of the episode and the start of another
    name = "worker 2 of 2 of car_racing"
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"{name} died of {number.name}; a fresh one goes on with its rows 4 to 7"
    ]
    assert twins.rows.workers[1].process.pid != process.pid and twins.rows.workers[1].deaths == 0


def test_a_worker_that_is_killed_in_the_midst_of_a_step_or_start_is_replaced(
    twins: Twins, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has done a part of its work, which is done again."""
    worker, tell = twins.rows.workers[0], twins.rows.workers[0].tell
    for command, after in (("step_finish", 0.004), ("start", 0.02)):
        killer = _Killer(worker, command, after)
        monkeypatch.setattr(worker, "tell", killer)
        twins.go_on(40, 2)
        assert killer.has_killed and len(caplog.records) == 1 and "died of SIGKILL" in caplog.text
        monkeypatch.setattr(worker, "tell", tell)
        caplog.clear()


class _Killer:
    """Tells a worker what to do, and kills it a little later, once."""

    def __init__(self, worker: Worker, command: str, after: float) -> None:
        self._worker, self._tell, self._command, self._after = worker, worker.tell, command, after
        self.has_killed = False

    def __call__(self, command: str, argument: Any = None) -> None:
        self._tell(command, argument)
        if command == self._command and not self.has_killed:
            self.has_killed = True
            self._worker.process.join(self._after)
            self._worker.process.kill()


def test_a_worker_that_leaves_tells_its_exit_code(twins: Twins, caplog: pytest.LogCaptureFixture) -> None:
    twins.go_on(3, 4)
    twins.rows.workers[0].tell("close")
    twins.rows.workers[0].process.join()
    twins.go_on(3, 5)
    assert "worker 1 of 2 of car_racing died of exit code 0; a fresh one" in caplog.text


def test_a_worker_that_dies_again_and_again_stops_the_run(caplog: pytest.LogCaptureFixture) -> None:
    env = TASKS["plain"].make_vec(num_envs=8, threads=2)
    try:
        env.reset(seed=0)
        worker = env.source._rows.workers[1]
        begin = worker.begin

        def begin_and_die() -> None:
            begin()
            worker.process.kill()

        worker.begin = begin_and_die
        worker.process.kill()
        wanted = "worker 2 of 2 of car_racing died 3 times without making a step, the last time of SIGKILL"
        with pytest.raises(RuntimeError, match=wanted):
            env.step(np.zeros((8, 3)))
        assert len(caplog.records) == 2
    finally:
        env.close()


def test_ctrl_c_leaves_the_workers_to_the_main_process(
    twins: Twins, caplog: pytest.LogCaptureFixture
) -> None:
    for worker in twins.rows.workers:
        os.kill(worker.process.pid, signal.SIGINT)
    twins.go_on(5, 6)
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_killed_at_random_moments_change_nothing(
    twins: Twins, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    for round_ in range(30):
        worker = twins.rows.workers[rng.integers(2)]
        timer = threading.Timer(rng.uniform(0, 0.4), os.kill, (worker.process.pid, signal.SIGKILL))
        timer.start()
        found = go_on(twins.shared, 20, round_)
        timer.join()
        assert equal(found, go_on(twins.alone, 20, round_))
        twins.go_on(1, round_)  # one that was killed after the last step is replaced
    assert caplog.text.count("died of SIGKILL") == 30


@pytest.mark.slow
def test_workers_end_with_the_main_process() -> None:
    code = """
from somite.envs.car_racing import CarRacing
if __name__ == "__main__":
    env = CarRacing().make_vec(num_envs=8, threads=2)
    env.reset(seed=0)
    print(*[worker.process.pid for worker in env.source._rows.workers], flush=True)
    while True:
        env.step(env.action_space.sample())
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as main:
        workers = [int(pid) for pid in main.stdout.readline().split()]
        time.sleep(0.5)
        main.kill()
        deadline = time.monotonic() + 20
        while any(map(_runs, workers)):
            assert time.monotonic() < deadline, "a worker that outlives its run"
            time.sleep(0.1)
        assert len(workers) == 2 and "Traceback" not in main.stderr.read()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
