"""Threads that step the batches of an environment."""

from __future__ import annotations

import functools
import threading

import numpy as np
import pytest

from somite.envs.locomotion import LocomotionTask, make_vec
from somite.envs.locomotion.backends.mujoco import Workers


@pytest.mark.parametrize(("threads", "batches", "each"), [(1, 9, 1), (4, 1, 4), (4, 7, 4), (4, 8, 1)])
def test_many_batches_have_a_thread_each_and_few_have_all(threads, batches, each):
    assert Workers(threads, batches).threads_each == each


def test_every_call_is_made_once_and_errors_are_raised():
    workers, names, made = Workers(3, 20), set(), []

    def call(x):
        names.add(threading.get_ident())
        made.append(x)

    workers.run([functools.partial(call, x) for x in range(20)])
    assert sorted(made) == list(range(20))
    with pytest.raises(TypeError):
        workers.run([call] * 20)
    workers.close()
    assert 1 <= len(names) <= 3


def test_bodies_stepped_beside_each_other_move_as_one_after_another():
    bodies = ["hopper_3", "walker_2", "cheetah_2_back", "hopper_4", "cheetah_3_back"]
    seen = []
    for threads in (1, 2):
        env = make_vec(bodies, 10, LocomotionTask(max_episode_steps=12), threads=threads)
        tokens = [env.reset(seed=0)[0]["tokens"]]
        for action in np.random.default_rng(0).uniform(-1, 1, (20, *env.action_space.shape)):
            tokens.append(env.step(action)[0]["tokens"])
        env.close()
        seen.append(np.array(tokens))
    np.testing.assert_array_equal(*seen)
