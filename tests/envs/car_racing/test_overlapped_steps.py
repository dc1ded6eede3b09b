"""A step may be begun and finished later: worker processes simulate and draw in between."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("Box2D")

from somite.envs.car_racing import CarRacing
from somite.envs.errors import UserError
from somite.envs.sensors import CartPoleSwingUp, Senses, SensorVectorEnv
from tests.envs.futures import equal

TASK = CarRacing(Senses(history=2, shuffle=5), max_episode_steps=25)


@pytest.fixture
def shared() -> Iterator[SensorVectorEnv]:
    env = TASK.make_vec(num_envs=8, threads=2)
    env.reset(seed=0)
    yield env
    env.close()


def actions_of(env: SensorVectorEnv, steps: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (steps, *env.action_space.shape))


def in_halves(env: SensorVectorEnv, actions: np.ndarray) -> tuple:
    env.step_begin(actions)
    return env.step_finish()


def test_two_halves_are_a_step(shared: SensorVectorEnv) -> None:
    alone = TASK.make_vec(num_envs=8, threads=1)
    alone.reset(seed=0)
    for actions in actions_of(shared, 60):  # episodes end and start again on the way
        assert equal(in_halves(shared, actions), alone.step(actions))


def test_a_task_without_processes_has_halves_too() -> None:
    one, other = (CartPoleSwingUp(max_episode_steps=20).make_vec(num_envs=3) for _ in range(2))
    one.reset(seed=1), other.reset(seed=1)
    for actions in actions_of(one, 30):
        assert equal(in_halves(one, actions), other.step(actions))


def test_beginning_waits_for_nobody(shared: SensorVectorEnv) -> None:
    """Were it to wait for the workers, which are halted, it would never come back."""
    workers = [worker.process.pid for worker in shared.source._rows.workers]
    pictures = shared.source.pictures.copy()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        shared.step_begin(actions_of(shared, 1)[0])
        assert np.array_equal(pictures, shared.source.pictures)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    shared.step_finish()
    assert not np.array_equal(pictures, shared.source.pictures)


def test_a_worker_that_is_killed_between_the_halves_is_replaced(
    shared: SensorVectorEnv, caplog: pytest.LogCaptureFixture
) -> None:
    alone = TASK.make_vec(num_envs=8, threads=1)
    alone.reset(seed=0)
    for number, actions in enumerate(actions_of(shared, 40)):
        shared.step_begin(actions)
        if number == 12:
            os.kill(shared.source._rows.workers[1].process.pid, signal.SIGKILL)
        assert equal(shared.step_finish(), alone.step(actions))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1 and "died of SIGKILL" in told[0]


def test_nothing_else_is_done_in_the_midst_of_a_step(shared: SensorVectorEnv) -> None:
    with pytest.raises(UserError, match=r"step_finish\(\) before step_begin"):
        shared.step_finish()
    actions = actions_of(shared, 1)[0]
    snapshot = shared.snapshot()
    shared.step_begin(actions)
    for what in (
        lambda: shared.step_begin(actions),
        lambda: shared.step(actions),
        lambda: shared.reset(seed=1),
        shared.snapshot,
        lambda: shared.restore(snapshot),
    ):
        with pytest.raises(UserError, match=r"in the midst of a step: call step_finish\(\) first"):
            what()
    shared.step_finish()
    shared.step(actions)
