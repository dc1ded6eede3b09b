"""What simulates rows: MuJoCo on the CPU, MuJoCo Warp on a device. Nothing here observes or rewards."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ...snapshots import Kept
from ..bodies.model import COORDINATES, DOFS, body_joints, is_held
from ..bodies.morphology import Morphology
from ..layout import REMOTE, Group

CONTROL_INTERVAL, MOST_SUBSTEPS = 0.02, 25
"""Seconds between two actions of a body whose task names no frame skip, and the most substeps of one."""


def frame_skip_of(model: mujoco.MjModel) -> int:
    """Substeps of a step of about ``CONTROL_INTERVAL`` seconds."""
    return int(np.clip(round(CONTROL_INTERVAL / model.opt.timestep), 1, MOST_SUBSTEPS))


class SimulatedRows(Kept, abc.ABC):
    """Rows of an environment that are simulated together: of one body, or of several of one layout.

    Args:
        group: n rows.
        kind: ``dtype`` and ``device`` of all tensors.

    Attributes:
        bodies: of the rows. body: the first of them. root: its root's body id. task: of the rows.
        runs: of rows whose limbs have the same numbers; ``slots`` and ``joints`` are those of the first.
        kinds: of their joints. acts_remotely: one of them is on no joint.
        frame_skip: substeps of a step. dt: s, of a step.
        starts: (n, nq) start position of every row.
        memory: contiguous tensors that every array of the simulator is a part of.
        controls: (n, nu) physical controls of the next step, to be written.
    """

    memory: Sequence[Tensor]
    controls: Tensor

    def __init__(self, group: Group, kind: Mapping[str, Any]) -> None:
        bodies, self.rows, _, self.task, frame_skip = group
        self.n, self.body, self.bodies = len(bodies), bodies[0], bodies
        self.root, model = self.body.root, self.body.model
        self.runs = group.runs()
        self.slots, self.joints = self.runs[0].slots, self.runs[0].joints
        self.kinds = {kind for run in self.runs for *_, kind in run.joints}
        self.acts_remotely = REMOTE in self.kinds
        self.frame_skip = frame_skip_of(model) if frame_skip is None else frame_skip
        self.dt = model.opt.timestep * self.frame_skip
        self.starts = torch.from_numpy(np.array([body.initial_qpos for body in bodies])).to(**kind)
        self._own = [torch.zeros(self.n, size, **kind) for size in (model.nq, model.nv)]
        for run in self.runs:
            for values, own in zip(self._own, own_coordinates(run.body), strict=True):
                values[run.own] = torch.from_numpy(own).to(**kind)

    def start(self, rows: Tensor, moves: Tensor, speeds: Tensor) -> None:
        """Put ``rows`` (n,) bool at their starts, ``moves`` (n, nq) away, with ``speeds`` (n, nv).

        Other objects in the scene start as their file says.
        """
        positions, velocities = self._own
        self.reset(rows, self.starts + moves * positions, speeds * velocities)

    @abc.abstractmethod
    def array(self, name: str) -> Tensor:
        """(n, ...) of the simulator by MuJoCo's name, the same memory."""

    @abc.abstractmethod
    def reset(self, rows: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Put ``rows`` (n,) bool into states, of (n, nq) and (n, nv), with controls of zero."""


class Simulation(abc.ABC):
    """All rows of an environment: ``blocks`` of them, in order; ``diverged`` (B,) bool in the last step."""

    blocks: Sequence[SimulatedRows]
    diverged: Tensor

    @abc.abstractmethod
    def step(self) -> None:
        """Advance all rows by a step under their controls."""

    def kinematics(self) -> None:  # noqa: B027
        """Compute what is read of rows that were reset, where `SimulatedRows.reset` does not."""

    def check(self) -> None:  # noqa: B027
        """See `TokenEnv.check`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let the simulations go."""


def own_coordinates(body: Morphology) -> tuple[np.ndarray, np.ndarray]:
    """(nq,) and (nv,) of 0 and 1: what belongs to the limbs, not to other objects of the scene.

    The vertices of soft parts are left out: moved each by itself, they would turn an element inside out.
    """
    model = body.model
    positions, speeds = np.zeros(model.nq), np.zeros(model.nv)
    soft = {*model.flex_vertbodyid.tolist(), *model.flex_nodebodyid.tolist()}
    for joint in (joint for part in body.parts if part not in soft for joint in body_joints(model, part)):
        if not is_held(model, joint):
            kind, at, dof = (int(a[joint]) for a in (model.jnt_type, model.jnt_qposadr, model.jnt_dofadr))
            positions[at : at + COORDINATES[kind]] = 1
            speeds[dof : dof + DOFS[kind]] = 1
    return positions, speeds
