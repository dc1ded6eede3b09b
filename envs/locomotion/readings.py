"""What is read of the simulators after a step, for all rows of an environment at once.

The arrays of all simulators are copied one behind the other, and from there every number goes to its place
in padded planes by one gather whose indices are made once. Positions, axes and velocities of limbs are one
substep behind the state after a step, as they are in Gymnasium; the root's own position and tilt are
computed from ``qpos`` and are current.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..in_place import at_a_time
from ..snapshots import Kept
from .backends import SimulatedRows
from .bodies.model import BALL, COORDINATES, DOFS, FREE, HINGE, SLIDE, body_joints, quaternion_matrix
from .bodies.morphology import Morphology
from .layout import REMOTE, Layout, Run
from .varied.world import Ground


class Readings(Kept):
    """Tensors of B rows; what no reward and no observation needs is not read.

    Args:
        blocks: of the rows, in order.
        layout: of the rows.
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
    terrain: Ground | None = None

    def __init__(self, blocks: Sequence[SimulatedRows], layout: Layout, reaches: bool = False) -> None:
        self._layout = layout
        b, n, j = layout.joint_mask.shape
        kind = {"dtype": layout.reference.dtype, "device": layout.reference.device}
        memories = [memory.view(-1) for block in blocks for memory in block.memory]
        total = sum(map(len, memories))
        self._flat = torch.zeros(total + 2, **kind)
        self._flat[-1] = 1.0
        self._copies = _few(memories, self._flat[:total])
        index, widths = _places(blocks, layout, reaches, total)
        self._values, self._now = torch.zeros(2, *index.shape, **kind)
        self._most = at_a_time(self._values)
        index = torch.from_numpy(index).to(kind["device"])
        self._gathers, self._gathers_of_some = (
            list(zip(index.view(-1).split(self._most), found.view(-1).split(self._most), strict=True))
            for found in (self._values, self._now)
        )
        parts = self._values.split(list(widths.values()))
        self._parts = dict(zip(widths, parts, strict=True))
        self.vectors = self._parts["vectors"].view(3, -1, b)
        self.centers = self._parts["centers"].view(3, n, b)
        self.root_rotation, self.root_origin = self._parts["root_rotation"], self._parts["root_origin"]
        self.joint_position, self.joint_speed = self._parts["joint_position"], self._parts["joint_speed"]
        self.activation = self._parts["activation"] if widths["activation"] else None
        self._turned = layout.turned_axis.permute(3, 1, 2, 0).reshape(3, n * j, b)
        axes = torch.zeros(3, n, j, b)  # which part of its joint's rotation vector each row of a ball is
        for block in blocks:
            for run in block.runs:
                for limb, k, row, _ in [joint for joint in run.joints if joint[-1] == BALL]:
                    axes[row.axis, limb, k, run.rows] = 1.0
        self._ball_axes = axes.view(3, n * j, b).to(**kind)
        self._roots = []
        for kinds, alike in itertools.groupby(blocks, root_kinds):
            alike = list(alike)
            bodies = [run.body for block in alike for run in block.runs for _ in range(block.n)[run.own]]
            self._roots.append((_rows(alike), _Root(kinds, bodies, kind)))
        self._tilts = any(block.task.max_tilt is not None for block in blocks)
        runs = itertools.groupby(blocks, lambda block: block.task.progress)
        self._progress = [(by, _rows(list(run))) for by, run in runs]
        self.cos_tilt, self.largest = torch.ones(b, **kind), torch.zeros(b, **kind)
        self.ground, self.raised = layout.ground.t().contiguous(), torch.zeros(b, **kind)
        self._every = torch.arange(b, device=kind["device"])

    def read(self, rows: Tensor | None = None) -> None:
        """Copy what the simulators hold of ``rows`` (B,) bool; None: of all."""
        for memory, copy in self._copies:
            torch.cat(memory, out=copy)
        for index, values in self._gathers if rows is None else self._gathers_of_some:
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
        parts, n = self._parts, self._layout.mask.shape[1]
        if len(parts["quaternions"]):
            turns = rotation_vectors(parts["quaternions"].view(4, *self._ball_axes.shape[1:]))
            self.joint_position = parts["joint_position"] + (turns * self._ball_axes).sum(0)
        if len(parts["rotations_of_joints"]):
            rotations = parts["rotations_of_joints"].view(3, *self._turned.shape)
            self.vectors = parts["vectors"].view_as(self.vectors).clone()
            self.vectors[:, 5 * n :] += (rotations * self._turned).sum(1)
        qpos = parts["root_qpos"].t()
        self.root = torch.cat([root.position(qpos[rows]) for rows, root in self._roots])
        if self._tilts:
            self.cos_tilt = torch.cat([root.cos_tilt(qpos[rows]) for rows, root in self._roots])
        if len(parts["bounded"]):
            self.largest = parts["bounded"].abs().amax(0)
        by = {"position": self.root, "body": self.root_origin.t(), "center": parts["mass_center"].t()}
        self.progress = torch.cat([by[name][rows, :2] for name, rows in self._progress])
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
    groups, sizes, most = [], [], at_a_time(copies)
    for memory in memories:
        if not groups or sizes[-1] + len(memory) > most:
            groups.append([])
            sizes.append(0)
        groups[-1].append(memory)
        sizes[-1] += len(memory)
    return list(zip(groups, copies.split(sizes), strict=True))


def _rows(blocks: Sequence[SimulatedRows]) -> slice:
    """Those of neighbouring blocks."""
    return slice(blocks[0].rows.start, blocks[-1].rows.stop)


def _places(
    blocks: Sequence[SimulatedRows], layout: Layout, reaches: bool, total: int
) -> tuple[np.ndarray, dict[str, int]]:
    """Where each number of (planes, B) is among ``total`` copied ones, and how many planes each part has.

    Behind the last copied number are a 0, for what a body does not have, and a 1.
    """
    b, n, j = layout.joint_mask.shape
    first, found = 0, []
    for block in blocks:
        for run in block.runs:
            found.append((run.rows, _RunPlaces(block, run, first, n, j, total).parts(reaches)))
        first += sum(memory.numel() for memory in block.memory)
    kinds = set().union(*(block.kinds for block in blocks))
    unused = [] if any(block.body.model.na for block in blocks) else ["activation"]
    unused += [] if BALL in kinds else ["quaternions"]
    unused += [] if kinds & {BALL, REMOTE} else ["rotations_of_joints"]
    widths = {name: max(len(own[name]) for _, own in found) for name in found[0][1]}
    widths |= dict.fromkeys(unused, 0)
    index, start = np.full((sum(widths.values()), b), total), 0
    for name, width in widths.items():
        for rows, own in found:
            end = start + min(width, len(own[name]))
            index[start:end, rows] = own[name][:width]
        start += width
    return index, widths


class _RunPlaces:
    """Where the numbers of the n rows of a ``run`` are among the copies of all simulators' memory.

    Those of its block's memory begin at ``first``; at ``zero`` is a 0, and behind it a 1.
    """

    def __init__(
        self, block: SimulatedRows, run: Run, first: int, limbs: int, joints: int, zero: int
    ) -> None:
        self._block, self._run, self._first, self._zero = block, run, first, zero
        self._rows = np.arange(block.n)[run.own]
        self._n_limbs, self._j = limbs, joints
        self._bodies = [limb.bodies[0] for limb in run.body.limbs]
        self._slots = list(run.slots)
        self._of = functools.cache(self._places_of)

    def parts(self, reaches: bool) -> dict[str, np.ndarray]:
        """Of all that is read of the bodies, (planes, n) by the name of the part."""
        model, root, of = self._run.body.model, self._run.body.root, self._of
        joints = list(body_joints(model, root))
        start = int(model.jnt_qposadr[joints[0]]) if joints else 0
        coordinates = sum(COORDINATES[int(model.jnt_type[joint])] for joint in joints)
        bounds = self._block.task.max_state is not None
        positions, velocities = _bounded(self._run.body) if bounds else ([], [])
        axes, of_slots, turning = self._of_joints()
        vectors = [
            self._of_limbs(of("xpos", 3), of("xpos", 3)[root]),  # so that padding is where the root is
            self._of_limbs(of("cvel", 6)[:, 3:]),
            self._of_limbs(of("cvel", 6)[:, :3]),
            self._of_limbs(of("xmat", 9)[:, 0::3]),
            self._of_limbs(of("xmat", 9)[:, 2::3]),
            axes,
        ]
        centers = of("subtree_com", 3)[model.body_rootid]
        found = {  # in this order training states hold them
            "vectors": np.concatenate(vectors, 1),
            "centers": self._of_limbs(centers, centers[root]),
            **of_slots,
            "root_origin": of("xpos", 3)[root],
            "root_rotation": of("xmat", 9)[root, :6],
            "root_qpos": of("qpos")[start : start + coordinates],
            "mass_center": of("subtree_com", 3)[root, :2],
            "bounded": np.concatenate((of("qpos")[positions], of("qvel")[velocities])),
            **turning,
            "rotations": self._of_limbs(of("xmat", 9)) if reaches else np.zeros(0, int),
        }
        return {name: own.reshape(-1, len(self._rows)) for name, own in found.items()}

    def _places_of(self, name: str, width: int = 1) -> np.ndarray:
        """(k, width, n), or (k, n), of all numbers of an array, which has ``width`` of each of k things."""
        array, start = self._block.array(name), self._first
        for memory in self._block.memory:
            offset = (array.data_ptr() - memory.data_ptr()) // memory.element_size()
            if 0 <= offset < memory.numel():
                break
            start += memory.numel()
        columns = start + offset + np.arange(array[0].numel())
        found = columns[:, None] + array.stride(0) * self._rows
        return found if width == 1 else found.reshape(-1, width, len(self._rows))

    def _of_limbs(self, of_bodies: np.ndarray, padding: np.ndarray | None = None) -> np.ndarray:
        """(width, N, n) of (bodies, width, n); at padding 0, or what (width, n) says."""
        found = np.full((of_bodies.shape[1], self._n_limbs, len(self._rows)), self._zero)
        if padding is not None:
            found[:] = padding[:, None]
        found[:, self._slots] = of_bodies[self._bodies].swapaxes(0, 1)
        return found

    def _of_joints(self) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Axes of all joint slots (3, N J, n), states, and how they turn; at padding 0."""
        model, of = self._run.body.model, self._of
        shape = self._n_limbs * self._j, len(self._rows)
        axes, quaternions, turning = (np.full((width, *shape), self._zero) for width in (3, 4, 9))
        position, speed, activation = (np.full(shape, self._zero) for _ in range(3))
        quaternions[0] += 1  # no rotation
        body_of = dict(zip(self._slots, self._bodies, strict=True))
        for limb, k, row, kind in self._run.joints:
            place, actuator = limb * self._j + k, row.actuator
            if kind == REMOTE:
                position[place] = of("actuator_length")[actuator]
                speed[place] = of("actuator_velocity")[actuator]
            else:
                at = int(model.jnt_qposadr[row.joint])
                speed[place] = of("qvel")[model.jnt_dofadr[row.joint] + row.axis]
                if kind == BALL:
                    quaternions[:, place] = of("qpos")[at : at + 4]
                else:
                    position[place], axes[:, place] = of("qpos")[at], of("xaxis", 3)[row.joint]
            if kind in (BALL, REMOTE):  # MuJoCo gives no axis: that in the limb's frame turns with the limb
                turning[:, place] = of("xmat", 9)[body_of[limb]]
            if actuator >= 0 and model.actuator_actadr[actuator] >= 0:
                last = model.actuator_actadr[actuator] + model.actuator_actnum[actuator] - 1
                activation[place] = of("act")[last]
        states = {"joint_position": position, "joint_speed": speed, "activation": activation}
        return axes, states, {"quaternions": quaternions, "rotations_of_joints": turning}


def _bounded(body: Morphology) -> tuple[list[int], list[int]]:
    """Addresses in ``qpos`` and ``qvel`` of the limbs' joints.

    Left out are the positions that say where the body stands: its root's unactuated slides, and the
    place of a free joint.
    """
    model, positions, velocities = body.model, [], []
    for limb in body.limbs:
        actuated = {slot.joint for slot in limb.slots if slot.actuator >= 0}
        for joint in body_joints(model, limb.bodies[0]):
            kind, at, dof = (int(a[joint]) for a in (model.jnt_type, model.jnt_qposadr, model.jnt_dofadr))
            velocities += range(dof, dof + DOFS[kind])
            place = 0
            if limb.parent < 0 and joint not in actuated:
                place = {FREE: 3, SLIDE: 1}.get(kind, 0)
            positions += range(at + place, at + COORDINATES[kind])
    return positions, velocities


def rotation_vectors(quaternions: Tensor) -> Tensor:
    """(3, ...) axis times angle (rad, at most pi) of (4, ...) quaternions, w first."""
    q = quaternions / torch.linalg.vector_norm(quaternions, dim=0)
    q = torch.where(q[0] < 0, -q, q)
    sine = torch.linalg.vector_norm(q[1:], dim=0)
    angle = 2 * torch.atan2(sine, q[0])
    return torch.where(sine > 1e-9, angle / sine.clamp_min(1e-9), 2.0) * q[1:]


class _Root:
    """Where the roots of n ``bodies`` are and how they lean: MuJoCo's kinematics, from their ``qpos``.

    Their joints are of the same ``kinds`` and act one after the other, each in the frame that those before it
    have left. In planar bodies slides come first and the hinge turns about the origin, so that the position
    needs no rotation.
    """

    def __init__(self, kinds: tuple[int, ...], bodies: Sequence[Morphology], kind: Mapping[str, Any]) -> None:
        self._kinds, unique = kinds, list(dict.fromkeys(bodies))
        of_row = [unique.index(body) for body in bodies]

        def tensor(values: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.array(values, float)[of_row]).to(**kind)

        models = [(body.model, body.root, list(body_joints(body.model, body.root))) for body in unique]
        columns = [sum(COORDINATES[kind] for kind in kinds[:k]) for k in range(len(kinds))]
        references = [model.qpos0[model.jnt_qposadr[joints]] for model, _, joints in models]
        anchors = [model.jnt_pos[joints] for model, _, joints in models]
        axes = [model.jnt_axis[joints] for model, _, joints in models]
        of_joints = [tensor(own).transpose(0, 1).contiguous() for own in (axes, anchors, references)]
        self._joints = list(zip(kinds, columns, *of_joints, strict=True))
        turns = [quaternion_matrix(model.body_quat[root]) for model, root, _ in models]
        self._start = tensor(turns)
        # What points up at the start, in the body's frame.
        self._up = tensor([body.start_rotation[2] for body in unique])
        self._place = tensor([model.body_pos[root] for model, root, _ in models])
        slides = kinds.count(SLIDE)
        beside = any(own[slides:].any() for own in anchors)
        self._slides = slides if kinds[:slides] == (SLIDE,) * slides and not beside else None
        axes = [own[:slides] @ turn.T for own, turn in zip(axes, turns, strict=True)]
        self._axes = tensor(axes)  # (n, slides, 3)
        origins = [
            model.body_pos[root] - reference[:slides] @ own
            for (model, root, _), reference, own in zip(models, references, axes, strict=True)
        ]
        self._origin = tensor(origins)

    def position(self, qpos: Tensor) -> Tensor:
        """(n, 3) m, of the root's origin; ``qpos`` (n, coordinates) of the root's joints."""
        if self._kinds == (FREE,):
            return qpos[:, :3]
        if self._slides is not None:
            return self._origin + (qpos[:, : self._slides, None] * self._axes).sum(1)
        position, rotation = self._place, self._start
        for kind, at, axis, anchor, reference in self._joints:
            if kind == SLIDE:
                position = position + (qpos[:, at] - reference)[:, None] * _apply(rotation, axis)
                continue
            fixed = position + _apply(rotation, anchor)
            if kind == HINGE:
                half = (qpos[:, at] - reference)[:, None] / 2
                rotation = rotation @ _matrices(torch.cat((half.cos(), half.sin() * axis), 1))
            else:
                rotation = rotation @ _matrices(qpos[:, at : at + 4])
            position = fixed - _apply(rotation, anchor)
        return position

    def cos_tilt(self, qpos: Tensor) -> Tensor:
        """(n,) cosine of the angle between the root's up and the vertical."""
        vertical = self._start[:, 2]  # the world's, in the body's frame
        for kind, at, axis, _, reference in self._joints:
            if kind == HINGE:
                angle = (qpos[:, at] - reference)[:, None]
                along = (vertical * axis).sum(1, keepdim=True) * axis
                across = torch.linalg.cross(vertical, axis)
                vertical = along + (vertical - along) * angle.cos() + across * angle.sin()
            elif kind == FREE:
                vertical = _matrices(qpos[:, at + 3 : at + 7])[:, 2]
            elif kind == BALL:
                vertical = (vertical[:, None] @ _matrices(qpos[:, at : at + 4]))[:, 0]
        return (vertical * self._up).sum(1)


def root_kinds(block: SimulatedRows) -> tuple[int, ...]:
    """Of the root's joints."""
    return tuple(block.body.model.jnt_type[list(body_joints(block.body.model, block.root))].tolist())


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
