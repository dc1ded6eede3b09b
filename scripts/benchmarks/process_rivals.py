"""Gymnasium's Ant in one process per environment: what our simulation is measured against.

The worker processes import this module, so nothing slow is imported at its top.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import numpy as np

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


def make_ant() -> Any:
    """Gymnasium's Ant as our task has it: contact forces neither cost nor are observed."""
    import gymnasium

    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's, which closes the workers
    return gymnasium.make(
        "Ant-v5", contact_cost_weight=0.0, include_cfrc_ext_in_observation=False, disable_env_checker=True
    )


def gymnasium_async(makers: Sequence[Callable[[], Any]]) -> Any:
    """Gymnasium's ``AsyncVectorEnv``: shared memory, observations not copied, same-step resets.

    ``max_concurrency`` is left open: with one or two workers for each core it was slower.
    """
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode

    mode = AutoresetMode.SAME_STEP
    return AsyncVectorEnv(makers, shared_memory=True, copy=False, context=START_METHOD, autoreset_mode=mode)


def sb3_subproc(makers: Sequence[Callable[[], Any]]) -> Any:
    """Stable-Baselines3's ``SubprocVecEnv``."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    return SubprocVecEnv(makers, start_method=START_METHOD)


def ants_of_processes(
    kind: Callable[..., Any], actions: Sequence[np.ndarray], stack: ExitStack
) -> Callable[[], Any]:
    """One step of ants of one of these kinds by ``actions``, each (environments, 8), used in turn."""
    if START_METHOD == "forkserver":
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    with mock.patch.dict(os.environ, _ONE_THREAD):  # which the workers inherit
        env = kind([make_ant] * len(actions[0]))
    stack.callback(env.close)
    env.reset()
    return by_turns(env.step, actions)


def by_turns(step: Callable[[Any], Any], actions: Iterable[Any]) -> Callable[[], Any]:
    """A step by the next of these actions, again and again."""
    turn = itertools.cycle(actions)
    return lambda: step(next(turn))
