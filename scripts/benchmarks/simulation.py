"""Our simulation and what it stands on: bare batches of the same bodies."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import gymnasium
import mujoco.batch
import numpy as np

from ...envs.cores import available_cores
from ...envs.locomotion import BodySet, Morphology, build

ACTION_SETS = 64
"""Random actions are drawn beforehand and used in turn: drawing them is nobody's simulation."""


def random_actions(shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    """Sets of actions uniform in [-1, 1], float32 of this shape."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(ACTION_SETS)]


def bare(bodies: BodySet, rows_per_body: int) -> Callable[[], None]:
    """One step of ``mujoco.batch.Batch`` on all cores, controls written and nothing else done.

    Nothing is reset, observed or judged. Bodies of different layouts are batches of their own, stepped one
    after another. They start as episodes do.
    """
    steps = [_bare_body(body, rows_per_body, bodies) for body in map(build, bodies.seen)]

    def step() -> None:
        for step_body in steps:
            step_body()

    return step


def _bare_body(body: Morphology, rows: int, bodies: BodySet) -> Callable[[], None]:
    model, task = body.model, bodies.task
    batch = mujoco.batch.Batch(model, nsim=rows, nthread=max(1, min(available_cores(), rows)))
    rng = np.random.default_rng(0)
    batch.reset()
    # State fields are views of the simulations, so binding them costs nothing.
    batch.bind("qpos")[:] = body.initial_qpos + task.reset_noise * rng.uniform(-1, 1, (rows, model.nq))
    batch.bind("qvel")[:] = task.reset_speed_noise * rng.standard_normal((rows, model.nv))
    batch.forward()
    controls = batch.bind("ctrl")
    low, high = model.actuator_ctrlrange.T
    actions = [low + (high - low) * (action + 1) / 2 for action in random_actions((rows, model.nu))]
    turn = itertools.cycle(actions)

    def step() -> None:
        controls[:] = next(turn)
        batch.step(nstep=bodies.frame_skip)

    return step


def ours(bodies: BodySet, rows_per_body: int) -> tuple[gymnasium.vector.VectorEnv, Callable[[], None]]:
    """Our vector environment of these bodies, and one step of it: all cores, resets, rewards, tokens."""
    env = bodies.make_vec(bodies.seen, rows_per_body * len(bodies.seen))
    env.reset(seed=0)
    turn = itertools.cycle(random_actions(env.action_space.shape))
    return env, lambda: env.step(next(turn))
