"""Rows of one morphology on the CPU's cores, stepped by ``mujoco.batch``, in double precision."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import mujoco
import mujoco.batch
import numpy as np

from ..cores import thread_count
from ..snapshots import Kept
from .arrays import NAMES
from .bodies.morphology import Morphology
from .controls import Actuated
from .limb_reader import LimbReader

logger = logging.getLogger(__name__)

DIVERGED = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
    int(mujoco.mjtWarning.mjWARN_BADCTRL),
]
# MuJoCo would append every warning to MUJOCO_LOG.TXT in the user's folder. Ours are counted per row.
mujoco.set_mju_user_warning(lambda message: logger.debug("MuJoCo: %s", message))


CONTROL_INTERVAL, MOST_SUBSTEPS = 0.02, 25
"""Seconds between two actions of a body whose task names no frame skip, and the most substeps of one."""


def frame_skip_of(model: mujoco.MjModel) -> int:
    """Substeps of a step of about ``CONTROL_INTERVAL`` seconds."""
    return int(np.clip(round(CONTROL_INTERVAL / model.opt.timestep), 1, MOST_SUBSTEPS))


class Simulation(Kept):
    """``n`` rows of one morphology, or of several of one layout.

    Args:
        morphology: the body.
        n: number of rows.
        frame_skip: substeps of a step; None: as many as take about ``CONTROL_INTERVAL``.
        threads: C++ threads that step the rows.

    Attributes:
        limbs: reads the rows.
        controls: what actions mean in each row.
        qpos, qvel: (n, nq), (n, nv), the simulator's own memory.
    """

    kept = ("_state", "controls")

    def __init__(self, morphology: Morphology, n: int, frame_skip: int | None, threads: int) -> None:
        self.morphology, self.n, self.root = morphology, n, morphology.root
        model = morphology.model
        self.frame_skip = frame_skip_of(model) if frame_skip is None else frame_skip
        self.dt = model.opt.timestep * self.frame_skip
        self.batch = mujoco.batch.Batch(model, nsim=n, nthread=thread_count(threads, n))
        self._state = self.batch.state  # (n, all that MuJoCo integrates)
        arrays = {name: self.batch.bind(name) for name in NAMES}
        self.qpos, self.qvel, self._act, self._ctrl = (arrays[n] for n in ("qpos", "qvel", "act", "ctrl"))
        self.limbs = LimbReader(morphology, arrays)
        self.controls = Actuated(morphology, n)
        self._activation = morphology.home_activation
        self.models = [model] * n  # of each row; `RowModels` gives them models of their own

    def set_bodies(self, bodies: Sequence[Morphology]) -> None:
        """Simulate another body of the same layout in every row."""
        self.models = [body.model for body in bodies]
        self.batch.set_models(self.models)
        for row, body in enumerate(bodies):
            self.controls.set(row, body)

    def reset(self, rows: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put ``rows`` (k,) into the state ``qpos`` (k, nq), ``qvel`` (k, nv), controls zero."""
        self.batch.reset(rows, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self.qpos[rows], self.qvel[rows] = qpos, qvel
        if self._activation is not None:
            self._act[rows] = self._activation
        self.batch.forward(rows)

    def step(self, controls: np.ndarray) -> np.ndarray:
        """Advance all rows by ``frame_skip`` substeps under physical ``controls`` (n, actuated).

        Returns:
            (n,) bool, the rows whose state diverged. MuJoCo has reset them to the model's defaults.
        """
        before = self.batch.warning[:, DIVERGED, 1].copy()
        self._ctrl[:, self.controls.actuators] = controls
        self.batch.step(nstep=self.frame_skip)
        return (self.batch.warning[:, DIVERGED, 1] != before).any(1)
