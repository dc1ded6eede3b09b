"""Gymnasium's Ant in one process per environment: what our simulation is measured against.

The worker processes import this module, so nothing slow is imported at its top.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

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
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def make_ant() -> gymnasium.Env:
    """Gymnasium's Ant as our task has it: contact forces neither cost nor are observed."""
    import gymnasium

    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's, which closes the workers
    return gymnasium.make(
        "Ant-v5", contact_cost_weight=0.0, include_cfrc_ext_in_observation=False, disable_env_checker=True
    )


def gymnasium_async(actions: Sequence[np.ndarray], stack: ExitStack) -> Callable[[], Any]:
    """One step of Gymnasium's ``AsyncVectorEnv``: shared memory, observations not copied, same-step resets.

    ``max_concurrency`` is left open: with one or two workers for each core it was slower. ``actions`` are
    each (environments, 8), used in turn.
    """
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode

    makers, mode = [make_ant] * len(actions[0]), AutoresetMode.SAME_STEP
    with _workers_have_one_thread():
        env = AsyncVectorEnv(
            makers, shared_memory=True, copy=False, context=START_METHOD, autoreset_mode=mode
        )
    stack.callback(env.close)
    env.reset(seed=0)
    turn = itertools.cycle(actions)
    return lambda: env.step(next(turn))


def sb3_subproc(actions: Sequence[np.ndarray], stack: ExitStack) -> Callable[[], Any]:
    """One step of Stable-Baselines3's ``SubprocVecEnv``; arguments as of `gymnasium_async`."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    with _workers_have_one_thread():
        env = SubprocVecEnv([make_ant] * len(actions[0]), start_method=START_METHOD)
    stack.callback(env.close)
    env.seed(0)
    env.reset()
    turn = itertools.cycle(actions)
    return lambda: env.step(next(turn))


@contextmanager
def _workers_have_one_thread() -> Iterator[None]:
    """Environment variables that processes started here inherit."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
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
