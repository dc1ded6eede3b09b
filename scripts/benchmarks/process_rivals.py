"""Gymnasium's Ant in one process per environment: what our simulation is measured against.

The worker processes import this module, so nothing slow is imported at its top.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import gymnasium

START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
# Imported once by the server that workers are forked from, instead of once by each of them.
_PRELOADED = [
    "gymnasium.envs.mujoco.ant_v5",
    "stable_baselines3.common.vec_env.subproc_vec_env",
    "stable_baselines3.common.env_util",
    "somite.scripts.cli.command_line",
    "somite.scripts.benchmarks.process_rivals",
]


def make_ant() -> gymnasium.Env:
    """Gymnasium's Ant as our task has it: contact forces neither cost nor are observed."""
    import gymnasium

    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's, which closes the workers
    return gymnasium.make(
        "Ant-v5", contact_cost_weight=0.0, include_cfrc_ext_in_observation=False, disable_env_checker=True
    )


@contextmanager
def gymnasium_async(rows: int, actions: Sequence[np.ndarray]) -> Iterator[Callable[[], None]]:
    """One step of Gymnasium's ``AsyncVectorEnv``: shared memory, observations not copied, same-step resets.

    ``max_concurrency`` is left open: with one or two workers for each core it was slower.

    Args:
        rows: environments.
        actions: each (rows, 8), used in turn.
    """
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode

    with _workers_have_one_thread():
        env = AsyncVectorEnv(
            [make_ant] * rows,
            shared_memory=True,
            copy=False,
            context=START_METHOD,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
    try:
        env.reset(seed=0)
        turn = itertools.cycle(actions)
        yield lambda: env.step(next(turn))
    finally:
        env.close()


@contextmanager
def sb3_subproc(rows: int, actions: Sequence[np.ndarray]) -> Iterator[Callable[[], None]]:
    """One step of Stable-Baselines3's ``SubprocVecEnv``; arguments as of :func:`gymnasium_async`."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    with _workers_have_one_thread():
        env = SubprocVecEnv([make_ant] * rows, start_method=START_METHOD)
    try:
        env.seed(0)
        env.reset()
        turn = itertools.cycle(actions)
        yield lambda: env.step(next(turn))
    finally:
        env.close()


@contextmanager
def _workers_have_one_thread() -> Iterator[None]:
    """Environment variables that processes started here inherit."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    if START_METHOD == "forkserver":
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
