"""What is read of the simulators after a step, for all rows of an environment at once.

The arrays of all simulators are copied one behind the other, and from there every number goes to its place
in padded planes by one gather whose indices are made once. Positions, axes and velocities of limbs are one
substep behind the state after a step, as they are in Gymnasium; the root's own position and tilt are
computed from ``qpos`` and are current.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ..in_place import at_a_time
from ..snapshots import Kept
from .backends import COORDINATES, DOFS, SimulatedRows
from .bodies.limbs import JointSlot, Limb
from .bodies.model import BALL, FREE, HINGE, SLIDE, body_joints, quaternion_matrix
from .bodies.morphology import Morphology
from .layout import Layout
from .task import LocomotionTask
from .varied.world import Ground

Address = tuple[int, int]
REMOTE = -1
"""As the kind of a joint: an actuator that acts on none."""

_NONE, _ONE = (-2, 0), (-1, 0)
"""Addresses of 0, for what a body does not have, and of 1."""


class Readings(Kept):
    """Tensors of B rows; what no reward and no observation needs is not read.

    Args:
        blocks: of the rows, in order.
        layout: of the rows.
        task: says what is needed.
        reaches: limbs' rotations are needed, for `points`.

    Attributes:
        vectors: (3, 5 N + N J, B) of limbs, in the world: origins, velocities at ``centers``, angular
            velocities, x and z axes; then joints' axes.
        centers: (3, N, B) centre of mass of the tree that each limb belongs to.
        joint_position, joint_speed: (N J, B). activation: (N J, B) of the actuators; None: none has a state.
        root_origin: (3, B) where the observation has the root. root_rotation: (6, B), two rows of a matrix.
        root: (B, 3) m, where the root is. progress: (B, 2) m, what the forward velocity is measured by.
        cos_tilt: (B,) of the angle between the root's up and the vertical.
        largest: (B,) the largest position or velocity of the limbs, but for where the body stands.
        ground: (N, B) m, height of the ground below limbs. raised: (B,) m, above level, below the root.
        terrain: where the ground is uneven; None: nowhere.
    """

    kept = ("_values",)

    def __init__(
        self, blocks: Sequence[SimulatedRows], layout: Layout, task: LocomotionTask, reaches: bool = False
    ) -> None:
        self._task, self._layout = task, layout
        b, n, j = layout.joint_mask.shape
        self._kind = kind = {"dtype": layout.reference.dtype, "device": layout.reference.device}
        memories = [memory.view(-1) for block in blocks for memory in block.memory]
        total = sum(map(len, memories))
        self._flat = torch.zeros(total + 2, **kind)
        self._flat[-1] = 1.0
        self._copies = _few(memories, self._flat[:total])
        first, planes = 0, []
        for block in blocks:
            planes.append(_Addresses(block, first, n, j).parts(task, reaches))
            first += sum(memory.numel() for memory in block.memory)
        widths = {name: max(len(own[name]) for own in planes) for name in planes[0]}
        index = np.empty((sum(widths.values()), b), np.int64)
        for block, own in zip(blocks, planes, strict=True):
            index[:, block.rows] = _index(block, own, widths, total + 2)
        self._values, self._now = torch.zeros(2, *index.shape, **kind)
        self._most = at_a_time(self._values)
        self._index = torch.from_numpy(index).to(kind["device"]).view(-1).split(self._most)
        parts = self._values.split(list(widths.values()))
        self._parts = dict(zip(widths, parts, strict=True))
        self.vectors = self._parts["vectors"].view(3, -1, b)
        self.centers = self._parts["centers"].view(3, n, b)
        self.root_rotation, self.root_origin = self._parts["root_rotation"], self._parts["root_origin"]
        self.joint_position, self.joint_speed = self._parts["joint_position"], self._parts["joint_speed"]
        self.activation = self._parts["activation"] if widths["activation"] else None
        self._turned = layout.turned_axis.permute(3, 1, 2, 0).reshape(3, n * j, b)
        self._ball_axes = _ball_axes(blocks, n, j, b).to(**kind)
        self._roots = _Root.groups(blocks, kind)
        self.root, self.progress = torch.zeros(b, 3, **kind), torch.zeros(b, 2, **kind)
        self.cos_tilt, self.largest = torch.ones(b, **kind), torch.zeros(b, **kind)
        self.ground, self.raised = layout.ground.t().contiguous(), torch.zeros(b, **kind)
        self.terrain: Ground | None = None
        self._every = torch.arange(b, device=kind["device"])

    def read(self, rows: Tensor | None = None) -> None:
        """Copy what the simulators hold of ``rows`` (B,) bool; None: of all."""
        for memory, copy in self._copies:
            torch.cat(memory, out=copy)
        found = self._values if rows is None else self._now
        for index, values in zip(self._index, found.view(-1).split(self._most), strict=True):
            torch.index_select(self._flat, 0, index, out=values)
        if rows is not None:
            planes = max(1, self._most // len(rows))
            for values, now in zip(self._values.split(planes), self._now.split(planes), strict=True):
                values.copy_(torch.where(rows, now, values))
        self.derive()

    def restore(self, taken: Mapping[str, Any]) -> None:  # noqa: D102
        super().restore(taken)
        self.derive()

    def derive(self) -> None:
        """Compute from the values what is a function of them."""
        task, parts, n = self._task, self._parts, self._layout.mask.shape[1]
        if len(parts["quaternions"]):
            turns = rotation_vectors(parts["quaternions"].view(4, *self._ball_axes.shape[1:]))
            self.joint_position = parts["joint_position"] + (turns * self._ball_axes).sum(0)
        if len(parts["rotations_of_joints"]):
            rotations = parts["rotations_of_joints"].view(3, *self._turned.shape)
            self.vectors = parts["vectors"].view_as(self.vectors).clone()
            self.vectors[:, 5 * n :] += (rotations * self._turned).sum(1)
        qpos = parts["root_qpos"].t()
        self.root = _of_groups(self._roots, _Root.position, qpos)
        if task.max_tilt is not None:
            self.cos_tilt = _of_groups(self._roots, _Root.cos_tilt, qpos)
        if task.max_state is not None:
            self.largest = parts["bounded"].abs().amax(0)
        by = {"position": self.root, "body": self.root_origin.t(), "center": parts["mass_center"].t()}
        self.progress = by[task.progress][:, :2].clone()
        if self.terrain is not None:
            heights = self.terrain.below(self.vectors[:2, :n])
            self.ground = heights + self._layout.ground.t()
            self.raised = heights[self._layout.root_slot, self._every]

    def points(self, slots: Tensor, centers: Tensor) -> Tensor:
        """(B, 3) m, world: points ``centers`` (B, 3) in the frames of the limbs in ``slots`` (B,)."""
        n = self._layout.mask.shape[1]
        rotation = self._parts["rotations"].view(3, 3, n, -1)[:, :, slots, self._every]  # (3, 3, B)
        position = self.vectors[:, :n][:, slots, self._every]
        return (position + (rotation * centers.t()).sum(1)).t()


def _few(memories: Sequence[Tensor], copies: Tensor) -> list[tuple[list[Tensor], Tensor]]:
    """Memories that are copied by one call, and where to."""
    groups, first, most = [], 0, at_a_time(copies)
    for memory in memories:
        if not groups or sum(map(len, groups[-1])) + len(memory) > most:
            groups.append([])
        groups[-1].append(memory)
    found = []
    for group in groups:
        last = first + sum(map(len, group))
        found.append((group, copies[first:last]))
        first = last
    return found


class _Addresses:
    """Where the numbers of a body are found among the copies of all simulators' memory.

    An address is the place of the first row's number, and how far that of the next row is.

    Args:
        block: that simulates it.
        first: where the copies of its memory begin.
        n, j: limbs and joint slots that rows are padded to.
    """

    def __init__(self, block: SimulatedRows, first: int, n: int, j: int) -> None:
        self._block, self._first, self._model = block, first, block.body.model
        self._found: dict[str, Address] = {}
        limbs = dict(zip(block.slots, block.body.limbs, strict=True))
        self._limbs = [limbs.get(slot) for slot in range(n)]
        self._joints = [
            (limb, limb.slots[k], self._kind(limb.slots[k])) if limb and k < len(limb.slots) else None
            for limb in self._limbs
            for k in range(j)
        ]
        self._kinds = {joint[2] for joint in self._joints if joint}

    def _kind(self, slot: JointSlot) -> int:
        return int(self._model.jnt_type[slot.joint]) if slot.joint >= 0 else REMOTE

    def _find(self, name: str, column: int) -> Address:
        if name not in self._found:
            array, start = self._block.array(name), self._first
            for memory in self._block.memory:
                offset = (array.data_ptr() - memory.data_ptr()) // memory.element_size()
                if 0 <= offset < memory.numel():
                    self._found[name] = start + offset, array.stride(0)
                    break
                start += memory.numel()
        start, stride = self._found[name]
        return start + column, stride

    def _of_limbs(self, name: str, width: int, column: int, otherwise: int | None = None) -> list[Address]:
        """A column of each limb's row of an array; at padding 0, or what another body has."""
        bodies = [limb.bodies[0] if limb else otherwise for limb in self._limbs]
        return [_NONE if body is None else self._find(name, width * body + column) for body in bodies]

    def _of_joints(
        self, address: Callable[[Limb, JointSlot, int], Address], otherwise: Address = _NONE
    ) -> list[Address]:
        return [address(*joint) if joint else otherwise for joint in self._joints]

    def parts(self, task: LocomotionTask, reaches: bool) -> dict[str, list[Address]]:
        """Of all that is read of the body, by the name of the part."""
        model, root, limbs = self._model, self._block.body.root, self._block.body.limbs
        trees = [int(model.body_rootid[limb.bodies[0] if limb else root]) for limb in self._limbs]
        joints = list(body_joints(model, root))
        start = int(model.jnt_qposadr[joints[0]]) if joints else 0
        positions, velocities = _bounded(model, limbs) if task.max_state is not None else ([], [])
        return {
            "vectors": [address for c in range(3) for address in self._vectors(c)],
            "centers": [self._find("subtree_com", 3 * tree + c) for c in range(3) for tree in trees],
            "joint_position": self._of_joints(self._position),
            "joint_speed": self._of_joints(self._speed),
            "activation": self._of_joints(self._state) if model.na else [],
            "root_origin": [self._find("xpos", 3 * root + c) for c in range(3)],
            "root_rotation": [self._find("xmat", 9 * root + element) for element in range(6)],
            "root_qpos": [
                self._find("qpos", start + k)
                for k in range(sum(COORDINATES[int(model.jnt_type[joint])] for joint in joints))
            ],
            "mass_center": [self._find("subtree_com", 3 * root + c) for c in range(2)],
            "bounded": [self._find("qpos", k) for k in positions]
            + [self._find("qvel", k) for k in velocities],
            "quaternions": [a for c in range(4) for a in self._quaternion(c)] if BALL in self._kinds else [],
            "rotations_of_joints": (
                [a for e in range(9) for a in self._turning(e)] if self._kinds & {BALL, REMOTE} else []
            ),
            "rotations": [a for e in range(9) for a in self._of_limbs("xmat", 9, e)] if reaches else [],
        }

    def _vectors(self, c: int) -> list[Address]:
        """One component of what `Readings.vectors` has."""

        def axis(_: Limb, slot: JointSlot, kind: int) -> Address:
            # Of the others MuJoCo gives none: their axis in the limb's frame turns with the limb.
            return self._find("xaxis", 3 * slot.joint + c) if kind in (SLIDE, HINGE) else _NONE

        return [
            *self._of_limbs("xpos", 3, c, self._block.body.root),  # so that padding is where the root is
            *self._of_limbs("cvel", 6, 3 + c),
            *self._of_limbs("cvel", 6, c),
            *self._of_limbs("xmat", 9, 3 * c),
            *self._of_limbs("xmat", 9, 3 * c + 2),
            *self._of_joints(axis),
        ]

    def _position(self, _: Limb, slot: JointSlot, kind: int) -> Address:
        if kind == REMOTE:
            return self._find("actuator_length", slot.actuator)
        return _NONE if kind == BALL else self._find("qpos", int(self._model.jnt_qposadr[slot.joint]))

    def _speed(self, _: Limb, slot: JointSlot, kind: int) -> Address:
        if kind == REMOTE:
            return self._find("actuator_velocity", slot.actuator)
        return self._find("qvel", int(self._model.jnt_dofadr[slot.joint]) + slot.axis)

    def _state(self, _: Limb, slot: JointSlot, kind: int) -> Address:
        model, actuator = self._model, slot.actuator
        if actuator < 0 or model.actuator_actadr[actuator] < 0:
            return _NONE
        return self._find("act", int(model.actuator_actadr[actuator] + model.actuator_actnum[actuator] - 1))

    def _quaternion(self, component: int) -> list[Address]:
        """Of ball joints; of others that of no rotation."""
        still = _NONE if component else _ONE

        def address(_: Limb, slot: JointSlot, kind: int) -> Address:
            start = int(self._model.jnt_qposadr[slot.joint])
            return self._find("qpos", start + component) if kind == BALL else still

        return self._of_joints(address, still)

    def _turning(self, element: int) -> list[Address]:
        """Of the rotations of limbs whose joints' axes turn with them."""

        def address(limb: Limb, _: JointSlot, kind: int) -> Address:
            turns = kind in (BALL, REMOTE)
            return self._find("xmat", 9 * limb.bodies[0] + element) if turns else _NONE

        return self._of_joints(address)


def _index(
    block: SimulatedRows, planes: Mapping[str, Sequence[Address]], widths: Mapping[str, int], end: int
) -> np.ndarray:
    """(planes, n) where the numbers of a block's rows are; ``end``: behind the last of all."""
    every = []
    for name, width in widths.items():
        own, missing = list(planes[name]), width - len(planes[name])
        if name == "quaternions" and missing:
            own, missing = [_ONE] * (width // 4) + [_NONE] * (width // 4 * 3), 0
        every += own + [_NONE] * missing
    starts, strides = np.array(every, np.int64).T
    starts = np.where(starts < 0, end + starts, starts)
    return starts[:, None] + strides[:, None] * np.arange(block.rows.stop - block.rows.start)


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
            velocities += range(model.jnt_dofadr[joint], model.jnt_dofadr[joint] + DOFS[kind])
            place = 0
            if limb.parent < 0 and joint not in actuated:
                place = {FREE: 3, SLIDE: 1}.get(kind, 0)
            positions += range(model.jnt_qposadr[joint] + place, model.jnt_qposadr[joint] + COORDINATES[kind])
    return positions, velocities


def _ball_axes(blocks: Sequence[SimulatedRows], n: int, j: int, b: int) -> Tensor:
    """(3, N J, B) which part of its joint's rotation vector each row of a ball joint is."""
    axes = torch.zeros(3, n, j, b)
    for block in blocks:
        for slot, limb in zip(block.slots, block.body.limbs, strict=True):
            for k, joint in enumerate(limb.slots):
                if joint.joint >= 0 and int(block.body.model.jnt_type[joint.joint]) == BALL:
                    axes[joint.axis, slot, k, block.rows] = 1.0
    return axes.view(3, n * j, b)


def rotation_vectors(quaternions: Tensor) -> Tensor:
    """(3, ...) axis times angle (rad, at most pi) of (4, ...) quaternions, w first."""
    q = quaternions / torch.linalg.vector_norm(quaternions, dim=0)
    q = torch.where(q[0] < 0, -q, q)
    sine = torch.linalg.vector_norm(q[1:], dim=0)
    angle = 2 * torch.atan2(sine, q[0])
    return torch.where(sine > 1e-9, angle / sine.clamp_min(1e-9), 2.0) * q[1:]


# Where a root is and how it leans, as functions of ``qpos``: MuJoCo's kinematics of that body


@dataclass(frozen=True)
class _RootJoint:
    """Of n rows: kind and column of the first coordinate, and what differs from row to row, (n, ...)."""

    kind: int
    column: int
    axis: Tensor
    anchor: Tensor
    reference: Tensor


class _Root:
    """The roots of n rows, whose joints are of the same kinds.

    Joints act one after the other, each in the frame that those before it have left. In planar bodies slides
    come first and the hinge turns about the origin, so that the position needs no rotation.

    Args:
        kinds: of the joints.
        bodies: the body of each row.
        rows: of the environment, (n,); None: all.
        kind: type and device of tensors.
    """

    def __init__(
        self, kinds: tuple[int, ...], bodies: Sequence[Morphology], rows: Tensor | None, kind: dict[str, Any]
    ) -> None:
        self.rows, self._kinds = rows, kinds
        unique = list(dict.fromkeys(bodies))
        of_row = [unique.index(body) for body in bodies]
        models = [(body.model, body.root, list(body_joints(body.model, body.root))) for body in unique]

        def tensor(values: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.array(values, float)[of_row]).to(**kind)

        first = [int(model.jnt_qposadr[joints[0]]) if joints else 0 for model, _, joints in models]
        self._joints = [
            _RootJoint(
                kind=kinds[k],
                column=sum(COORDINATES[kind] for kind in kinds[:k]),
                axis=tensor([model.jnt_axis[joints[k]] for model, _, joints in models]),
                anchor=tensor([model.jnt_pos[joints[k]] for model, _, joints in models]),
                reference=tensor([model.qpos0[model.jnt_qposadr[joints[k]]] for model, _, joints in models]),
            )
            for k in range(len(kinds))
        ]
        starts = [quaternion_matrix(model.body_quat[root]) for model, root, _ in models]
        self._start = tensor(starts)
        # What points up at the start, in the body's frame.
        self._up = tensor([body.start_rotation[2] for body in unique])
        self._place = tensor([model.body_pos[root] for model, root, _ in models])
        slides = kinds.count(SLIDE)
        turning = [joints[slides:] for _, _, joints in models]
        beside = [model.jnt_pos[own].any() for (model, _, _), own in zip(models, turning, strict=True)]
        self._slides = slides if kinds[:slides] == (SLIDE,) * slides and not any(beside) else None
        axes = [
            model.jnt_axis[joints[:slides]] @ s.T
            for (model, _, joints), s in zip(models, starts, strict=True)
        ]
        self._axes = tensor(axes)  # (n, slides, 3)
        references = [model.qpos0[at : at + slides] for (model, _, _), at in zip(models, first, strict=True)]
        origins = [
            model.body_pos[root] - reference @ own
            for (model, root, _), reference, own in zip(models, references, axes, strict=True)
        ]
        self._origin = tensor(origins)

    @staticmethod
    def groups(blocks: Sequence[SimulatedRows], kind: dict[str, Any]) -> list[_Root]:
        """All rows of an environment, those of equal kinds of joints together."""
        found: dict[tuple[int, ...], list[tuple[int, Morphology]]] = {}
        for block in blocks:
            model = block.body.model
            kinds = tuple(int(model.jnt_type[joint]) for joint in body_joints(model, block.body.root))
            rows = range(block.rows.start, block.rows.stop)
            found.setdefault(kinds, []).extend((row, block.body) for row in rows)
        return [
            _Root(
                kinds,
                [body for _, body in own],
                None if len(found) == 1 else torch.tensor([row for row, _ in own], device=kind["device"]),
                kind,
            )
            for kinds, own in found.items()
        ]

    def position(self, qpos: Tensor) -> Tensor:
        """(n, 3) m, of the root's origin; ``qpos`` (n, coordinates) of the root's joints."""
        if self._kinds == (FREE,):
            return qpos[:, :3].clone()
        if self._slides is not None:
            return self._origin + (qpos[:, : self._slides, None] * self._axes).sum(1)
        return self._general_position(qpos)

    def _general_position(self, qpos: Tensor) -> Tensor:
        position, rotation = self._place, self._start
        for joint in self._joints:
            at = joint.column
            if joint.kind == SLIDE:
                position = position + (qpos[:, at] - joint.reference)[:, None] * _apply(rotation, joint.axis)
                continue
            anchor = position + _apply(rotation, joint.anchor)
            if joint.kind == HINGE:
                half = (qpos[:, at] - joint.reference)[:, None] / 2
                rotation = rotation @ _matrices(torch.cat((half.cos(), half.sin() * joint.axis), 1))
            else:
                rotation = rotation @ _matrices(qpos[:, at : at + 4])
            position = anchor - _apply(rotation, joint.anchor)
        return position

    def cos_tilt(self, qpos: Tensor) -> Tensor:
        """(n,) cosine of the angle between the root's up and the vertical."""
        vertical = self._start[:, 2]  # the world's, in the body's frame
        for joint in self._joints:
            at = joint.column
            if joint.kind == HINGE:
                angle = (qpos[:, at] - joint.reference)[:, None]
                along = (vertical * joint.axis).sum(1, keepdim=True) * joint.axis
                across = torch.linalg.cross(vertical, joint.axis)
                vertical = along + (vertical - along) * angle.cos() + across * angle.sin()
            elif joint.kind == FREE:
                vertical = _matrices(qpos[:, at + 3 : at + 7])[:, 2]
            elif joint.kind == BALL:
                vertical = (vertical[:, None] @ _matrices(qpos[:, at : at + 4]))[:, 0]
        return (vertical * self._up).sum(1)


def _of_groups(groups: Sequence[_Root], ask: Callable[[_Root, Tensor], Tensor], qpos: Tensor) -> Tensor:
    if groups[0].rows is None:
        return ask(groups[0], qpos)
    parts = [ask(group, qpos[group.rows]) for group in groups]
    found = torch.empty(len(qpos), *parts[0].shape[1:], dtype=qpos.dtype, device=qpos.device)
    for group, part in zip(groups, parts, strict=True):
        found[group.rows] = part
    return found


def _apply(rotation: Tensor, vectors: Tensor) -> Tensor:
    """(n, 3) vectors (n, 3) turned by (n, 3, 3)."""
    return (rotation @ vectors[..., None])[..., 0]


def _matrices(quaternions: Tensor) -> Tensor:
    """(n, 3, 3) rotations of (n, 4) quaternions, w first, of any length."""
    w, x, y, z = (quaternions / torch.linalg.vector_norm(quaternions, dim=1, keepdim=True)).unbind(1)
    rows = (
        torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), -1),
        torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), -1),
        torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1),
    )
    return torch.stack(rows, 1)
