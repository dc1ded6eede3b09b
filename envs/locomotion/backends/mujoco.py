"""Rows on the CPU's cores, stepped by ``mujoco.batch``, in double precision."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import mujoco
import mujoco.batch
import numpy as np
import torch
from torch import Tensor

from ...cores import thread_count
from ..layout import Group
from . import SimulatedRows, Simulation

logger = logging.getLogger(__name__)

KIND = {"dtype": torch.float64, "device": torch.device("cpu")}

DIVERGED = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
    int(mujoco.mjtWarning.mjWARN_BADCTRL),
]
# MuJoCo would append every warning to MUJOCO_LOG.TXT in the user's folder. Ours are counted per row.
mujoco.set_mju_user_warning(lambda message: logger.debug("MuJoCo: %s", message))

_OUTPUTS = ("xpos", "xmat", "cvel", "xaxis", "subtree_com")
_OF_TRANSMISSIONS = ("actuator_length", "actuator_velocity")


class MujocoRows(SimulatedRows):
    """Rows of a ``batch``, of ``models``, stepped by so many C++ ``threads``."""

    kept = ("_state", "starts")

    def __init__(self, group: Group, threads: int) -> None:
        super().__init__(group, KIND)
        model = self.body.model
        self.batch = mujoco.batch.Batch(model, nsim=self.n, nthread=thread_count(threads, self.n))
        self.models = [body.model for body in group.bodies]
        if any(own is not model for own in self.models):
            self.batch.set_models(self.models)
        self._state = self.batch.state  # (n, all that MuJoCo integrates)
        outputs = _OUTPUTS + _OF_TRANSMISSIONS * self.acts_remotely
        self.memory = [tensor_of(self._state), *(self.array(name) for name in outputs)]
        self.controls = self.array("ctrl")
        self.warnings = tensor_of(self.batch.warning)  # (n, kinds, 2): the last one, how many

    def array(self, name: str) -> Tensor:  # noqa: D102
        return tensor_of(self.batch.bind(name))

    def reset(self, rows: Tensor, qpos: Tensor, qvel: Tensor) -> None:  # noqa: D102
        chosen = np.flatnonzero(rows.numpy())
        self.batch.reset(chosen, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        for name, values in (("qpos", qpos), ("qvel", qvel)):
            self.batch.bind(name)[chosen] = values.numpy()[chosen]
        if self.body.home_activation is not None:
            self.batch.bind("act")[chosen] = self.body.home_activation
        self.batch.forward(chosen)

    def step(self) -> None:
        """Advance all rows."""
        self.batch.step(nstep=self.frame_skip)


class MujocoSimulation(Simulation):
    """Batches, one for each group, stepped by so many ``threads`` at once."""

    def __init__(self, groups: Sequence[Group], threads: int) -> None:
        self._workers = Workers(threads, len(groups))
        self.blocks = [MujocoRows(group, self._workers.threads_each) for group in groups]
        # Where batches are stepped beside each other, the last one should be a short one.
        longest = sorted(self.blocks, key=lambda block: -block.n * block.frame_skip * block.body.model.nv)
        self._calls = [block.step for block in longest]
        self._warnings = [block.warnings.view(-1) for block in self.blocks]
        kinds = self.blocks[0].warnings.shape[1]
        numbers = torch.arange(sum(map(len, self._warnings)))
        self._fatal = numbers.view(-1, kinds, 2)[:, DIVERGED, 1].flatten()

    def step(self) -> None:
        """Advance all rows. MuJoCo resets one that diverges to the model's defaults, and counts it."""
        before = self._counted()
        self._workers.run(self._calls)
        self.diverged = (self._counted() != before).any(1)

    def _counted(self) -> Tensor:
        return torch.cat(self._warnings).index_select(0, self._fatal).view(-1, len(DIVERGED))

    def close(self) -> None:  # noqa: D102
        self._workers.close()
        self.blocks, self._calls, self._warnings = [], [], []


class Workers:
    """Shares ``threads`` among so many ``batches``, ``threads_each`` for each.

    Few batches are stepped one after another, each on all threads. Where there are several for each
    thread, each is stepped by one thread and they beside each other: then threads wait for each other
    once in a step and not once in a batch. A batch computes without Python's lock.
    """

    def __init__(self, threads: int, batches: int) -> None:
        beside = threads > 1 and batches >= 2 * threads
        self.threads_each = 1 if beside else threads
        self._others = threads - 1 if beside else 0
        self._pool = ThreadPoolExecutor(self._others) if beside else None

    def run(self, calls: list[Callable[[], None]]) -> None:
        """Call each function, in this order as far as it can be said."""
        waiting = iter(calls)  # of a list, whose next one is taken in one operation: safe between threads

        def work() -> None:
            for call in waiting:
                call()

        started = [self._pool.submit(work) for _ in range(self._others)]
        work()
        for other in started:
            other.result()

    def close(self) -> None:
        """Let the threads end."""
        if self._pool is not None:
            self._pool.shutdown()


def tensor_of(array: np.ndarray) -> Tensor:
    """The same memory."""
    with warnings.catch_warnings():
        # What MuJoCo computes is for reading only; nothing here writes to it.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)
