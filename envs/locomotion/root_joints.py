"""Where the root of a body is and how it leans, as functions of ``qpos``: MuJoCo's kinematics of that body.

Joints act one after the other, each in the frame that those before it have left. In planar bodies slides come
first and the hinge turns about the origin, so that the position needs no rotation.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from torch import Tensor

from .arrays import Array, Indices, constant
from .bodies.model import body_joints, quaternion_matrix
from .bodies.morphology import Morphology

FREE, SLIDE, HINGE = (
    int(kind)
    for kind in (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE)
)


@dataclass(frozen=True)
class _RootJoint:
    kind: int
    address: int
    axis: Tensor
    anchor: Tensor
    reference: float
    cross: Tensor  # (3, 3): a row vector times this is its cross product with the axis


class RootJoints:
    """Of n rows of one morphology.

    Args:
        morphology: the body.
        qpos: (n, nq), of whose type and device everything here is.
    """

    def __init__(self, morphology: Morphology, qpos: Array) -> None:
        model, root = morphology.model, morphology.root
        start = quaternion_matrix(model.body_quat[root])
        joints = list(body_joints(model, root))
        kinds = [int(model.jnt_type[joint]) for joint in joints]
        self._joints = [self._read(model, joint, qpos) for joint in joints]
        self._start = constant(start, qpos)
        # What points up at the start, in the body's frame.
        self._up = constant(morphology.start_rotation[2], qpos)
        self._free = self._joints[0].address if kinds == [FREE] else -1
        slides = [joint for joint, kind in zip(self._joints, kinds, strict=True) if kind == SLIDE]
        turning = [joint for joint, kind in zip(joints, kinds, strict=True) if kind != SLIDE]
        first = kinds[: len(slides)] == [SLIDE] * len(slides)
        self._slides_alone_place = first and not model.jnt_pos[turning].any()
        self._slides = Indices({"qpos": qpos})([joint.address for joint in slides])
        sliding = [joint for joint, kind in zip(joints, kinds, strict=True) if kind == SLIDE]
        axes = model.jnt_axis[sliding] @ start.T
        self._axes = constant(axes, qpos)
        self._body_position = constant(model.body_pos[root], qpos)
        references = np.array([joint.reference for joint in slides])
        origin = model.body_pos[root] - references @ axes
        self._origin = constant(origin, qpos)

    @staticmethod
    def _read(model: mujoco.MjModel, joint: int, qpos: Array) -> _RootJoint:
        axis = model.jnt_axis[joint]
        return _RootJoint(
            kind=int(model.jnt_type[joint]),
            address=int(model.jnt_qposadr[joint]),
            axis=constant(axis, qpos),
            anchor=constant(model.jnt_pos[joint], qpos),
            reference=float(model.qpos0[model.jnt_qposadr[joint]]),
            cross=constant(np.cross(np.eye(3), axis), qpos),
        )

    def position(self, qpos: Tensor) -> Tensor:
        """(n, 3) m, of the root's origin."""
        if self._free >= 0:
            return qpos[:, self._free : self._free + 3]
        if self._slides_alone_place:
            return self._origin + qpos[:, self._slides] @ self._axes
        return self._general_position(qpos)

    def cos_tilt(self, qpos: Tensor) -> Tensor:
        """(n,) cosine of the angle between the root's up and the vertical."""
        # The world's vertical in the body's frame.
        vertical = self._start[2].expand(len(qpos), 3)
        for joint in self._joints:
            at = joint.address
            if joint.kind == HINGE:
                angle = (qpos[:, at] - joint.reference)[:, None]
                along = (vertical @ joint.axis)[:, None] * joint.axis
                across = vertical @ joint.cross
                vertical = along + (vertical - along) * angle.cos() + across * angle.sin()
            elif joint.kind == FREE:
                vertical = _matrices(qpos[:, at + 3 : at + 7])[:, 2]
            elif joint.kind != SLIDE:
                vertical = (vertical[:, None] @ _matrices(qpos[:, at : at + 4]))[:, 0]
        return vertical @ self._up

    def _general_position(self, qpos: Tensor) -> Tensor:
        position = self._body_position.repeat(len(qpos), 1)
        rotation = self._start.repeat(len(qpos), 1, 1)
        for joint in self._joints:
            at = joint.address
            if joint.kind == SLIDE:
                position = position + (qpos[:, at] - joint.reference)[:, None] * (rotation @ joint.axis)
            else:
                anchor = position + rotation @ joint.anchor
                if joint.kind == HINGE:
                    half = (qpos[:, at] - joint.reference)[:, None] / 2
                    rotation = rotation @ _matrices(torch.cat((half.cos(), half.sin() * joint.axis), 1))
                else:
                    rotation = rotation @ _matrices(qpos[:, at : at + 4])
                position = anchor - rotation @ joint.anchor
        return position


def _matrices(quaternions: Tensor) -> Tensor:
    """(n, 3, 3) rotations of (n, 4) quaternions, w first, of any length."""
    w, x, y, z = (quaternions / torch.linalg.vector_norm(quaternions, dim=1, keepdim=True)).unbind(1)
    rows = (
        torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), -1),
        torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), -1),
        torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1),
    )
    return torch.stack(rows, 1)
