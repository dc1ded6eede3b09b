"""The simulation seam: rows of one morphology, stepped by ``mujoco.batch``.

Everything above this file sees arrays of bodies and joints and no simulator. Positions, axes and
velocities of limbs are one substep behind the state after a step, as they are in Gymnasium; the
root's own position and tilt are read from ``qpos`` and are current.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import mujoco.batch
import numpy as np

from ..snapshots import Kept
from .bodies.descriptors import quaternion_matrix
from .bodies.limbs import Limb, body_joints, is_held
from .bodies.morphology import Morphology
from .joint_rows import JointRows, as_slice

logger = logging.getLogger(__name__)

_FREE, _SLIDE, _HINGE = (
    int(kind)
    for kind in (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE)
)

_SIZES, _BALL_SIZES = {_FREE: (6, 7), _SLIDE: (1, 1), _HINGE: (1, 1)}, (3, 4)  # in qvel, in qpos

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

    Arrays of limbs are (n, N, …) and of joint slots (n, S, …), S the slots of all limbs in order.
    """

    kept = ("_state", "_center", "_half", "_low", "_high")

    def __init__(self, morphology: Morphology, n: int, frame_skip: int | None, threads: int) -> None:
        self.morphology, self.n = morphology, n
        model, limbs = morphology.model, morphology.limbs
        self.frame_skip = frame_skip_of(model) if frame_skip is None else frame_skip
        self.dt = model.opt.timestep * self.frame_skip
        self.batch = mujoco.batch.Batch(model, nsim=n, nthread=max(1, min(threads, n)))
        self._state = self.batch.state  # (n, all that MuJoCo integrates)
        self.qpos, self.qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        self._ctrl = self.batch.bind("ctrl")
        self._xpos, self._xmat = self.batch.bind("xpos"), self.batch.bind("xmat")
        self._cvel, self._xaxis = self.batch.bind("cvel"), self.batch.bind("xaxis")
        self._com, self._act = self.batch.bind("subtree_com"), self.batch.bind("act")

        self._bodies = as_slice([limb.bodies[0] for limb in limbs])
        slots = [slot for limb in limbs for slot in limb.slots]
        self._rows = JointRows(morphology, self.batch)
        self.root = morphology.root
        trees = [int(model.body_rootid[limb.bodies[0]]) for limb in limbs]
        self._trees = slice(trees[0], trees[0] + 1) if len(set(trees)) == 1 else trees
        self._bounded_qpos, self._bounded_qvel = _bounded(model, limbs)
        self.own_positions, self.own_speeds = _own(model, limbs)
        self._root_joints = _RootJoints(morphology)
        self._actuated = [(i, slot.actuator) for i, slot in enumerate(slots) if slot.actuator >= 0]
        self.actuated_slots = [i for i, _ in self._actuated]
        self._actuators = [actuator for _, actuator in self._actuated]
        self._center, self._half, self._low, self._high = np.empty((4, n, len(self._actuators)))
        self.set_controls(slice(0, n), morphology)
        self._activation = morphology.home_activation
        self.models = [model] * n  # of each row; `RowModels` gives them models of their own

    def set_bodies(self, bodies: Sequence[Morphology]) -> None:
        """Simulate another body of the same layout in every row."""
        self.models = [body.model for body in bodies]
        self.batch.set_models(self.models)
        for row, body in enumerate(bodies):
            self.set_controls(row, body)

    def set_controls(self, rows: int | slice, body: Morphology) -> None:
        """What nominal actions mean in these rows is what they mean to ``body``."""
        controls = body.controls
        for name in ("center", "half", "low", "high"):
            getattr(self, f"_{name}")[rows] = getattr(controls, name)[self._actuators]

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
        self._ctrl[:, self._actuators] = controls
        self.batch.step(nstep=self.frame_skip)
        return (self.batch.warning[:, DIVERGED, 1] != before).any(1)

    def to_physical(self, nominal: np.ndarray) -> np.ndarray:
        """(n, actuated) nominal actions in [-1, 1] as physical controls."""
        return np.clip(self._center + self._half * nominal, self._low, self._high)

    def limb_positions(self) -> np.ndarray:
        """(n, N, 3) limb origins in the world."""
        return self._xpos[:, self._bodies]

    def limb_rotations(self) -> np.ndarray:
        """(n, N, 9) limb rotations, row-major."""
        return self._xmat[:, self._bodies]

    def limb_velocities(self) -> np.ndarray:
        """(n, N, 6) angular and linear velocity, the latter at the limb's point ``tree_centers``."""
        return self._cvel[:, self._bodies]

    def tree_centers(self) -> np.ndarray:
        """(n, N, 3) centre of mass of the tree each limb belongs to; (n, 1, 3) where there is one tree."""
        return self._com[:, self._trees]

    def joint_axes(self) -> np.ndarray:
        """(n, S, 3) joint axes in the world."""
        return self._rows.axes()

    def joint_positions(self) -> np.ndarray:
        """(n, S)."""
        return self._rows.positions()

    def joint_speeds(self) -> np.ndarray:
        """(n, S)."""
        return self._rows.speeds()

    def activations(self) -> np.ndarray | None:
        """(n, S) states of the rows' actuators, 0 without one; None where no actuator has a state."""
        return self._rows.activations()

    def root_center(self) -> np.ndarray:
        """(n, 3) centre of mass of the root's tree, one substep behind."""
        return self._com[:, self.root]

    def root_position(self) -> np.ndarray:
        """(n, 3) of the root's origin, of the current ``qpos``."""
        return self._root_joints.position(self.qpos)

    def root_cos_tilt(self) -> np.ndarray:
        """(n,) cosine of the angle between the root's up and the vertical, of the current ``qpos``."""
        return self._root_joints.cos_tilt(self.qpos)

    def largest_state(self) -> np.ndarray:
        """(n,) largest absolute position or velocity of the limbs, but for where the body stands."""
        positions, velocities = self.qpos[:, self._bounded_qpos], self.qvel[:, self._bounded_qvel]
        return np.maximum(np.abs(positions).max(1), np.abs(velocities).max(1))


class _RootJoints:
    """Position and tilt of a root body as a function of ``qpos``: MuJoCo's kinematics of that body.

    Joints act one after the other, each in the frame that those before it have left. In planar bodies
    slides come first and the hinge turns about the origin, so that the position needs no rotation.
    """

    def __init__(self, morphology: Morphology) -> None:
        model, root = morphology.model, morphology.root
        self.start = quaternion_matrix(model.body_quat[root])
        self.up = morphology.start_rotation[2].copy()  # what points up at the start, in the body's frame
        self.joints = [
            _RootJoint(
                kind=int(model.jnt_type[joint]),
                address=int(model.jnt_qposadr[joint]),
                axis=model.jnt_axis[joint].copy(),
                anchor=model.jnt_pos[joint].copy(),
                reference=float(model.qpos0[model.jnt_qposadr[joint]]),
            )
            for joint in body_joints(model, root)
        ]
        kinds = [joint.kind for joint in self.joints]
        self.free = self.joints[0].address if kinds == [_FREE] else -1
        slides = [joint for joint in self.joints if joint.kind == _SLIDE]
        self.slides_alone_place = kinds[: len(slides)] == [_SLIDE] * len(slides) and not any(
            joint.kind != _SLIDE and joint.anchor.any() for joint in self.joints
        )
        self.slides = [joint.address for joint in slides]
        self.axes = np.array([self.start @ joint.axis for joint in slides]).reshape(-1, 3)
        self.body_position = model.body_pos[root].copy()
        self.origin = self.body_position - [joint.reference for joint in slides] @ self.axes

    def position(self, qpos: np.ndarray) -> np.ndarray:
        """(n, 3)."""
        if self.free >= 0:
            return qpos[:, self.free : self.free + 3]
        if self.slides_alone_place:
            return self.origin + qpos[:, self.slides] @ self.axes
        return self._general_position(qpos)

    def cos_tilt(self, qpos: np.ndarray) -> np.ndarray:
        """(n,)."""
        vertical = self.start[2]  # the world's vertical in the body's frame, (3,) and after a turn (n, 3)
        for joint in self.joints:
            at = joint.address
            if joint.kind == _HINGE:
                angle = (qpos[:, at] - joint.reference)[:, None]
                along = (vertical @ joint.axis)[..., None] * joint.axis
                across = vertical @ joint.cross
                vertical = along + (vertical - along) * np.cos(angle) + across * np.sin(angle)
            elif joint.kind == _FREE:
                vertical = _matrices(qpos[:, at + 3 : at + 7])[:, 2]
            elif joint.kind != _SLIDE:
                vertical = (vertical[..., None, :] @ _matrices(qpos[:, at : at + 4]))[:, 0]
        return np.broadcast_to(vertical, (len(qpos), 3)) @ self.up

    def _general_position(self, qpos: np.ndarray) -> np.ndarray:
        position = np.tile(self.body_position, (len(qpos), 1))
        rotation = np.tile(self.start, (len(qpos), 1, 1))
        for joint in self.joints:
            at = joint.address
            if joint.kind == _SLIDE:
                position += (qpos[:, at] - joint.reference)[:, None] * (rotation @ joint.axis)
            else:
                anchor = position + rotation @ joint.anchor
                if joint.kind == _HINGE:
                    half = (qpos[:, at] - joint.reference)[:, None] / 2
                    rotation = rotation @ _matrices(np.hstack((np.cos(half), np.sin(half) * joint.axis)))
                else:
                    rotation = rotation @ _matrices(qpos[:, at : at + 4])
                position = anchor - rotation @ joint.anchor
        return position


@dataclass(frozen=True)
class _RootJoint:
    kind: int
    address: int
    axis: np.ndarray
    anchor: np.ndarray
    reference: float

    @functools.cached_property
    def cross(self) -> np.ndarray:
        """(3, 3): a row vector times this is its cross product with the axis."""
        return np.cross(np.eye(3), self.axis)


def _matrices(quaternions: np.ndarray) -> np.ndarray:
    """(n, 3, 3) rotations of (n, 4) quaternions, w first, of any length."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    return np.stack(
        (
            np.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), -1),
            np.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), -1),
            np.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1),
        ),
        axis=1,
    )


def _own(model: mujoco.MjModel, limbs: tuple[Limb, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(nq,) and (nv,) of 0 and 1: what belongs to the limbs, not to other objects of the scene."""
    positions, speeds = np.zeros(model.nq), np.zeros(model.nv)
    for body in (body for limb in limbs for body in limb.bodies):
        for joint in body_joints(model, body):
            if is_held(model, joint):
                continue
            dofs, count = _SIZES.get(int(model.jnt_type[joint]), _BALL_SIZES)
            speeds[model.jnt_dofadr[joint] : model.jnt_dofadr[joint] + dofs] = 1
            positions[model.jnt_qposadr[joint] : model.jnt_qposadr[joint] + count] = 1
    return positions, speeds


def _bounded(model: mujoco.MjModel, limbs: tuple[Limb, ...]) -> tuple[slice | list[int], slice | list[int]]:
    """Addresses in ``qpos`` and ``qvel`` of the limbs' joints.

    Left out are the positions that say where the body stands: its root's unactuated slides, and the
    place of a free joint.
    """
    positions, velocities = [], []
    for limb in limbs:
        actuated = {slot.joint for slot in limb.slots if slot.actuator >= 0}
        for joint in body_joints(model, limb.bodies[0]):
            kind = int(model.jnt_type[joint])
            dofs, coordinates = _SIZES.get(kind, _BALL_SIZES)
            velocities += range(model.jnt_dofadr[joint], model.jnt_dofadr[joint] + dofs)
            place = 0
            if limb.parent < 0 and joint not in actuated:
                place = {_FREE: 3, _SLIDE: 1}.get(kind, 0)
            positions += range(model.jnt_qposadr[joint] + place, model.jnt_qposadr[joint] + coordinates)
    return as_slice(positions), as_slice(velocities)
