"""Worker processes change nothing, work while others do something else, and are replaced when they die."""

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

from somite.envs.car_racing import CarRacing
from somite.envs.car_racing.cars import Past, Worker, WorkerCars
from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp
from tests.envs.futures import equal, go_on, read_back

from .test_car_snapshots import TASKS


class Twins:
    """Cars of two workers, some of which die, and the same cars of this process."""

    def __init__(self, task: CarRacing) -> None:
        self.shared, self.alone = (task.make_vec(num_envs=8, threads=n, stagger=True) for n in (2, 1))
        self.shared.reset(seed=0), self.alone.reset(seed=0)

    @property
    def cars(self) -> WorkerCars:
        """Of those that die."""
        return self.shared.source._cars

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
        go_on(one, 9, 7), go_on(other, 3, 8)
        other.restore(read_back(one.snapshot()))
        assert not other.begun_anew.any()
        twins.go_on(10, 9)


def test_a_worker_that_crashes_between_steps_is_replaced(
    twins: Twins, caplog: pytest.LogCaptureFixture
) -> None:
    twins.go_on(5, 0)
    process = twins.cars.workers[1].process
    os.kill(process.pid, signal.SIGSEGV)
    process.join()
    twins.go_on(34, 1)  # over the end of the episode and the start of another
    name = "worker 2 of 2 of car_racing"
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"{name} died of SIGSEGV; a fresh one goes on with its environments 4 to 7"
    ]
    assert twins.cars.workers[1].process.pid != process.pid and twins.cars.workers[1].deaths == 0


def test_a_worker_that_is_killed_between_the_halves_of_a_step_is_replaced(
    twins: Twins, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        actions = rng.uniform(-1, 1, (8, 3))
        twins.shared.step_begin(actions)
        if number == 4:
            os.kill(twins.cars.workers[1].process.pid, signal.SIGKILL)
        assert equal(twins.shared.step_finish(), twins.alone.step(actions))
    assert len(caplog.records) == 1 and "died of SIGKILL" in caplog.text


def test_a_worker_that_is_killed_in_the_midst_of_a_step_or_start_is_replaced(
    twins: Twins, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has done a part of its work, which is done again."""
    worker, tell = twins.cars.workers[0], twins.cars.workers[0].tell
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

    def __call__(self, command: str, *arguments: Any) -> None:
        self._tell(command, *arguments)
        if command == self._command and not self.has_killed:
            self.has_killed = True
            self._worker.process.join(self._after)
            self._worker.process.kill()


def test_a_worker_that_leaves_tells_its_exit_code(twins: Twins, caplog: pytest.LogCaptureFixture) -> None:
    twins.go_on(3, 4)
    twins.cars.workers[0].tell("close")
    twins.cars.workers[0].process.join()
    twins.go_on(3, 5)
    assert "worker 1 of 2 of car_racing died of exit code 0; a fresh one" in caplog.text


def test_ctrl_c_leaves_the_workers_to_the_main_process(
    twins: Twins, caplog: pytest.LogCaptureFixture
) -> None:
    for worker in twins.cars.workers:
        os.kill(worker.process.pid, signal.SIGINT)
    twins.go_on(5, 6)
    assert not caplog.records


def test_beginning_waits_for_nobody(twins: Twins) -> None:
    """Were it to wait for the workers, which are halted, it would never come back."""
    workers, env = [worker.process.pid for worker in twins.cars.workers], twins.shared
    pictures, actions = env.source.pictures.copy(), np.full((8, 3), 0.5)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        env.step_begin(actions)
        assert np.array_equal(pictures, env.source.pictures)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    env.step_finish()
    assert not np.array_equal(pictures, env.source.pictures)
    twins.alone.step(actions)


def test_a_task_without_processes_has_halves_too() -> None:
    one, other = (CartPoleSwingUp(max_episode_steps=20).make_vec(num_envs=3) for _ in range(2))
    one.reset(seed=1), other.reset(seed=1)
    for actions in np.random.default_rng(0).uniform(-1, 1, (30, *one.action_space.shape)):
        one.step_begin(actions)
        assert equal(one.step_finish(), other.step(actions))


def test_nothing_else_is_done_in_the_midst_of_a_step() -> None:
    env = TASKS["state"].make_vec(num_envs=2, threads=1)
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"finish\(\) before begin"):
        env.step_finish()
    actions, snapshot = np.zeros((2, 3)), env.snapshot()
    env.step_begin(actions)
    for what in (
        lambda: env.step_begin(actions),
        lambda: env.step(actions),
        lambda: env.reset(seed=1),
        env.snapshot,
        lambda: env.restore(snapshot),
    ):
        with pytest.raises(UserError, match=r"in the midst of a step: call finish\(\) first"):
            what()
    env.step_finish()
    env.step(actions)


def test_what_fails_in_a_worker_stops_the_run_and_closing_ends_all(caplog: pytest.LogCaptureFixture) -> None:
    env = TASKS["plain"].make_vec(num_envs=8, threads=2)
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match=r"(?s)a worker of car_racing failed.*Traceback.*car\.start"):
        env.source._cars.start({0: Past(("no seed", "no seed"))})
    worker, processes = env.source._cars.workers[1], [w.process for w in env.source._cars.workers]
    begin = worker.begin

    def begin_and_die() -> None:
        begin()
        worker.process.kill()
        processes.append(worker.process)

    worker.begin = begin_and_die
    worker.process.kill()
    wanted = "worker 2 of 2 of car_racing died 3 times without making a step, the last time of SIGKILL"
    with pytest.raises(RuntimeError, match=wanted):
        env.step(np.zeros((8, 3)))
    assert len(caplog.records) == 2
    env.close()
    assert len(processes) == 4 and not any(process.is_alive() for process in processes)


def test_a_worker_loads_no_torch() -> None:
    """It would take seconds and hundreds of megabytes in each."""
    code = "import sys, somite.envs.car_racing.cars; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_killed_at_random_moments_change_nothing(
    twins: Twins, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    for round_ in range(30):
        worker = twins.cars.workers[rng.integers(2)]
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
    print(*[worker.process.pid for worker in env.source._cars.workers], flush=True)
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
