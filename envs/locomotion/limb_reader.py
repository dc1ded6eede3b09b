"""What is read of a body's limbs and joints from the arrays of whatever simulates it.

Everything above this file sees arrays of limbs and joints and no simulator. Positions, axes and velocities
of limbs are one substep behind the state after a step, as they are in Gymnasium; the root's own position and
tilt are read from ``qpos`` and are current.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np
import torch

from .arrays import Array, Indices, as_tensor, like
from .bodies.limbs import Limb
from .bodies.model import body_joints, is_held
from .bodies.morphology import Morphology
from .joint_rows import JointRows
from .root_joints import FREE, HINGE, SLIDE, RootJoints

_SIZES, _BALL_SIZES = {FREE: (6, 7), SLIDE: (1, 1), HINGE: (1, 1)}, (3, 4)  # in qvel, in qpos


class LimbReader:
    """Reads n rows of one morphology, or of several of one layout.

    Arrays of limbs are (n, N, …) and of joint slots (n, S, …), S the slots of all limbs in order; NumPy's or
    torch's, as those of the simulator are. Where nothing needs to be computed they share its memory.

    Args:
        morphology: the body.
        arrays: of the simulator, by the names of `arrays.NAMES`; it overwrites them.
    """

    def __init__(self, morphology: Morphology, arrays: Mapping[str, Array]) -> None:
        model, limbs, index = morphology.model, morphology.limbs, Indices(arrays)
        self._arrays, self._rows = arrays, JointRows(morphology, arrays)
        self._qpos, self._qvel = as_tensor(arrays["qpos"]), as_tensor(arrays["qvel"])
        self._bodies, self._root = index([limb.bodies[0] for limb in limbs]), morphology.root
        trees = [int(model.body_rootid[limb.bodies[0]]) for limb in limbs]
        self._trees = slice(trees[0], trees[0] + 1) if len(set(trees)) == 1 else index(trees)
        positions, velocities = _bounded(model, limbs)
        self._bounded_qpos, self._bounded_qvel = index(positions), index(velocities)
        self._root_joints = RootJoints(morphology, arrays["qpos"])

    def positions(self) -> Array:
        """(n, N, 3) limb origins in the world."""
        return self._arrays["xpos"][:, self._bodies]

    def rotations(self) -> Array:
        """(n, N, 9) limb rotations, row-major."""
        return self._arrays["xmat"][:, self._bodies]

    def velocities(self) -> Array:
        """(n, N, 6) angular and linear velocity, the latter at the limb's point `tree_centers`."""
        return self._arrays["cvel"][:, self._bodies]

    def tree_centers(self) -> Array:
        """(n, N, 3) centre of mass of the tree each limb belongs to; (n, 1, 3) where there is one tree."""
        return self._arrays["subtree_com"][:, self._trees]

    def joint_axes(self) -> Array:
        """(n, S, 3) joint axes in the world."""
        return self._rows.axes()

    def joint_positions(self) -> Array:
        """(n, S)."""
        return self._rows.positions()

    def joint_speeds(self) -> Array:
        """(n, S)."""
        return self._rows.speeds()

    def activations(self) -> Array | None:
        """(n, S) states of the rows' actuators, 0 without one; None where no actuator has a state."""
        return self._rows.activations()

    def root_center(self) -> Array:
        """(n, 3) centre of mass of the root's tree, one substep behind."""
        return self._arrays["subtree_com"][:, self._root]

    def root_position(self) -> Array:
        """(n, 3) of the root's origin, of the current ``qpos``."""
        return like(self._root_joints.position(self._qpos), self._arrays["qpos"])

    def root_cos_tilt(self) -> Array:
        """(n,) cosine of the angle between the root's up and the vertical, of the current ``qpos``."""
        return like(self._root_joints.cos_tilt(self._qpos), self._arrays["qpos"])

    def largest_state(self) -> Array:
        """(n,) largest absolute position or velocity of the limbs, but for where the body stands."""
        positions, velocities = self._qpos[:, self._bounded_qpos], self._qvel[:, self._bounded_qvel]
        largest = torch.maximum(positions.abs().amax(1), velocities.abs().amax(1))
        return like(largest, self._arrays["qpos"])


def own_coordinates(model: mujoco.MjModel, limbs: tuple[Limb, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(nq,) and (nv,) of 0 and 1: what belongs to the limbs, not to other objects of the scene.

    The vertices of soft parts are left out: moved each by itself, they would turn an element inside out.
    """
    positions, speeds = np.zeros(model.nq), np.zeros(model.nv)
    soft = {*model.flex_vertbodyid.tolist(), *model.flex_nodebodyid.tolist()}
    for body in (body for limb in limbs for body in limb.bodies if body not in soft):
        for joint in body_joints(model, body):
            if is_held(model, joint):
                continue
            dofs, count = _SIZES.get(int(model.jnt_type[joint]), _BALL_SIZES)
            speeds[model.jnt_dofadr[joint] : model.jnt_dofadr[joint] + dofs] = 1
            positions[model.jnt_qposadr[joint] : model.jnt_qposadr[joint] + count] = 1
    return positions, speeds


def _bounded(model: mujoco.MjModel, limbs: tuple[Limb, ...]) -> tuple[list[int], list[int]]:
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
                place = {FREE: 3, SLIDE: 1}.get(kind, 0)
            positions += range(model.jnt_qposadr[joint] + place, model.jnt_qposadr[joint] + coordinates)
    return positions, velocities
