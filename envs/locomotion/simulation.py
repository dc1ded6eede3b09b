"""The simulation seam: rows of one morphology, stepped by ``mujoco.batch``.

Everything above this file sees arrays of bodies and joints and no simulator. Positions, axes and
velocities of limbs are one substep behind the state after a step, as they are in Gymnasium; the
root's own position and tilt are read from ``qpos`` and are current.
"""

from __future__ import annotations

import logging

import mujoco
import mujoco.batch
import numpy as np

from .limbs import control_ranges, quaternion_matrix
from .morphology import Morphology

logger = logging.getLogger(__name__)

_DIVERGED = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
    int(mujoco.mjtWarning.mjWARN_BADCTRL),
]
# MuJoCo would append every warning to MUJOCO_LOG.TXT in the user's folder. Ours are counted per row.
mujoco.set_mju_user_warning(lambda message: logger.debug("MuJoCo: %s", message))


class Simulation:
    """``n`` rows of one morphology.

    Args:
        morphology: the body.
        n: number of rows.
        frame_skip: substeps of a step.
        threads: C++ threads that step the rows.

    Arrays of limbs are (n, N, …) and of joint slots (n, S, …), S the slots of all limbs in order.
    """

    def __init__(self, morphology: Morphology, n: int, frame_skip: int, threads: int) -> None:
        self.morphology, self.n, self.frame_skip = morphology, n, frame_skip
        model, limbs = morphology.model, morphology.limbs
        self.dt = model.opt.timestep * frame_skip
        self.batch = mujoco.batch.Batch(model, nsim=n, nthread=max(1, min(threads, n)))
        self.qpos, self.qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        self._ctrl = self.batch.bind("ctrl")
        self._xpos, self._xmat = self.batch.bind("xpos"), self.batch.bind("xmat")
        self._cvel, self._xaxis = self.batch.bind("cvel"), self.batch.bind("xaxis")
        self._com = self.batch.bind("subtree_com")

        self._bodies = _as_slice([limb.bodies[0] for limb in limbs])
        slots = [slot for limb in limbs for slot in limb.slots]
        joints = [slot.joint for slot in slots]
        self._joints = _as_slice(joints)
        self._slot_qpos = _as_slice([int(model.jnt_qposadr[joint]) for joint in joints])
        self._slot_qvel = _as_slice([int(model.jnt_dofadr[joint]) for joint in joints])
        self.root = limbs[0].bodies[0]
        self._tree = int(model.body_rootid[self.root])
        self._root_joints = _RootJoints(model, self.root)
        self._actuated = [(i, slot.actuator) for i, slot in enumerate(slots) if slot.actuator >= 0]
        self.actuated_slots = [i for i, _ in self._actuated]
        self._actuators = [actuator for _, actuator in self._actuated]
        center, half = control_ranges(model)
        self._center, self._half = center[self._actuators], half[self._actuators]

    def reset(self, rows: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put ``rows`` (k,) into the state ``qpos`` (k, nq), ``qvel`` (k, nv), controls zero."""
        self.batch.reset(rows, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self.qpos[rows], self.qvel[rows] = qpos, qvel
        self.batch.forward(rows)

    def step(self, controls: np.ndarray) -> np.ndarray:
        """Advance all rows by ``frame_skip`` substeps under physical ``controls`` (n, actuated).

        Returns:
            (n,) bool, the rows whose state diverged. MuJoCo has reset them to the model's defaults.
        """
        before = self.batch.warning[:, _DIVERGED, 1].copy()
        self._ctrl[:, self._actuators] = controls
        self.batch.step(nstep=self.frame_skip)
        return (self.batch.warning[:, _DIVERGED, 1] != before).any(1)

    def to_physical(self, nominal: np.ndarray) -> np.ndarray:
        """(n, actuated) nominal actions in [-1, 1] as physical controls."""
        return self._center + self._half * nominal

    def limb_positions(self) -> np.ndarray:
        """(n, N, 3) limb origins in the world."""
        return self._xpos[:, self._bodies]

    def limb_rotations(self) -> np.ndarray:
        """(n, N, 9) limb rotations, row-major."""
        return self._xmat[:, self._bodies]

    def limb_velocities(self) -> np.ndarray:
        """(n, N, 6) angular and linear velocity, the latter at the point ``center_of_mass``."""
        return self._cvel[:, self._bodies]

    def center_of_mass(self) -> np.ndarray:
        """(n, 3) centre of mass of the whole body."""
        return self._com[:, self._tree]

    def joint_axes(self) -> np.ndarray:
        """(n, S, 3) joint axes in the world."""
        return self._xaxis[:, self._joints]

    def joint_positions(self) -> np.ndarray:
        """(n, S)."""
        return self.qpos[:, self._slot_qpos]

    def joint_speeds(self) -> np.ndarray:
        """(n, S)."""
        return self.qvel[:, self._slot_qvel]

    def root_position(self) -> np.ndarray:
        """(n, 3) of the root's origin, of the current ``qpos``."""
        return self._root_joints.position(self.qpos)

    def root_cos_tilt(self) -> np.ndarray:
        """(n,) cosine of the angle between the root's up and the vertical, of the current ``qpos``."""
        return self._root_joints.cos_tilt(self.qpos)


class _RootJoints:
    """Position and tilt of a root body as a function of ``qpos``."""

    def __init__(self, model: mujoco.MjModel, root: int) -> None:
        self.origin = model.body_pos[root].copy()
        start = quaternion_matrix(model.body_quat[root])
        self.up = start[2].copy()  # what points up at the start, in the body's frame
        self.free, self.slides = -1, []
        self.hinges: list[tuple[int, np.ndarray, float]] = []
        axes = []
        first = int(model.body_jntadr[root])
        for joint in range(first, first + int(model.body_jntnum[root])):
            address, kind = int(model.jnt_qposadr[joint]), int(model.jnt_type[joint])
            axis, reference = start @ model.jnt_axis[joint], float(model.qpos0[address])
            if kind == int(mujoco.mjtJoint.mjJNT_FREE):
                self.free = address
            elif kind == int(mujoco.mjtJoint.mjJNT_SLIDE):
                self.slides.append(address)
                axes.append(axis)
                self.origin = self.origin - axis * reference
            elif kind == int(mujoco.mjtJoint.mjJNT_HINGE):
                self.hinges.append((address, axis, reference))
        self.axes = np.array(axes).reshape(-1, 3)

    def position(self, qpos: np.ndarray) -> np.ndarray:
        if self.free >= 0:
            return qpos[:, self.free : self.free + 3].copy()
        return self.origin + qpos[:, self.slides] @ self.axes

    def cos_tilt(self, qpos: np.ndarray) -> np.ndarray:
        if self.free >= 0:
            w, x, y, z = qpos[:, self.free + 3 : self.free + 7].T
            # The bottom row of the rotation matrix against what pointed up at the start.
            bottom = np.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1)
            return bottom @ self.up
        up = np.tile([0.0, 0.0, 1.0], (len(qpos), 1))
        for address, axis, reference in reversed(self.hinges):  # Rodrigues' formula
            angle = (qpos[:, address] - reference)[:, None]
            along = (up @ axis)[:, None] * axis
            up = along + (up - along) * np.cos(angle) + np.cross(axis, up) * np.sin(angle)
        return up[:, 2]


def _as_slice(indices: list[int]) -> slice | list[int]:
    """A slice where the indices are consecutive, since that reads without a copy."""
    if indices and indices == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[0] + len(indices))
    return indices
