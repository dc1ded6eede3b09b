"""Reading the limb graph of a compiled MuJoCo model: limbs and their joint rows.

A *limb* is a body with joints, together with the jointless bodies welded to it. The unactuated joints of a
tree's root limb place it in the world and are no joint rows (where a body stands must not be seen). Trees
without an actuator are scenery. No name and no index means anything here.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

from ...errors import UserError
from .actuators import driven_joint, moved_bodies
from .model import BALL, body_joints

BALL_AXES = 3


@dataclass(frozen=True)
class JointSlot:
    """One row of a limb's joints.

    A hinge or slide joint with the actuator that drives it (-1: none); one of the three axes of a ball joint;
    or, with ``joint`` -1, an actuator that acts through something else, whose angle and speed are its length
    and rate.
    """

    joint: int
    actuator: int
    axis: int = 0


@dataclass(frozen=True)
class Limb:
    """One token: body ids it consists of (its own first), parent limb (-1: root), joint rows."""

    name: str
    bodies: tuple[int, ...]
    parent: int
    slots: tuple[JointSlot, ...]


def read_limbs(model: mujoco.MjModel) -> tuple[Limb, ...]:
    """The limbs of every actuated tree of ``model``, parents before children.

    Where several trees are actuated, the one with the most limbs (then the heaviest) comes first, and
    its root is the root that everything is relative to.

    Raises:
        UserError: no actuator, or one that moves nothing.
    """
    if model.nu == 0:
        raise UserError("this model has no actuator; at least one is needed, a motor on a joint for example")
    moved = moved_bodies(model)
    bodies, parents = _group(model, {int(model.body_rootid[b]) for moves in moved for b in moves})
    limb_of = {body: limb for limb, parts in enumerate(bodies) for body in parts}
    depth = [0] * len(bodies)
    for limb, parent in enumerate(parents):
        depth[limb] = depth[parent] + 1 if parent >= 0 else 0
    transmitted: dict[int, list[int]] = {}
    for actuator, moves in enumerate(moved):
        if driven_joint(model, actuator) < 0:
            # Several equally far out: the one it moves most, which comes first.
            outermost = max((limb_of[body] for body in moves), key=depth.__getitem__)
            transmitted.setdefault(outermost, []).append(actuator)
    driven: dict[int, list[int]] = {}
    for actuator in range(model.nu):
        driven.setdefault(driven_joint(model, actuator), []).append(actuator)
    names = _names(model, bodies, parents)
    return tuple(
        Limb(
            name=names[limb],
            bodies=tuple(bodies[limb]),
            parent=parents[limb],
            slots=_slots(model, bodies[limb][0], parents[limb] < 0, driven)
            + tuple(JointSlot(-1, actuator) for actuator in transmitted.get(limb, [])),
        )
        for limb in range(len(bodies))
    )


def _group(model: mujoco.MjModel, actuated: set[int]) -> tuple[list[list[int]], list[int]]:
    """Body ids of every limb of the actuated trees (given by their root bodies), and its parent limb."""
    trees: dict[int, list[int]] = {root: [] for root in sorted(actuated)}
    for body in range(1, model.nbody):
        if int(model.body_rootid[body]) in trees:
            trees[int(model.body_rootid[body])].append(body)
    jointed = {root: sum(model.body_jntnum[body] > 0 for body in members) for root, members in trees.items()}
    order = sorted(trees, key=lambda root: (-jointed[root], -float(model.body_subtreemass[root])))
    bodies: list[list[int]] = []
    parents: list[int] = []
    limb_of: dict[int, int] = {}
    for body in (body for root in order for body in trees[root]):
        above = limb_of.get(int(model.body_parentid[body]), -1)
        if above >= 0 and model.body_jntnum[body] == 0:
            bodies[above].append(body)
            limb_of[body] = above
        else:
            limb_of[body] = len(bodies)
            bodies.append([body])
            parents.append(above)
    return bodies, parents


def _names(model: mujoco.MjModel, bodies: list[list[int]], parents: list[int]) -> list[str]:
    """Names of limbs; an unnamed one is called after its parent, as the k-th without a name there."""
    names: list[str] = []
    unnamed: dict[int, int] = {}
    for parts, parent in zip(bodies, parents, strict=True):
        name = model.body(parts[0]).name
        if not name:
            unnamed[parent] = unnamed.get(parent, 0) + 1
            name = f"{names[parent] if parent >= 0 else 'root'}/{unnamed[parent]}"
        names.append(name)
    return names


def _slots(
    model: mujoco.MjModel, body: int, is_root: bool, driven: dict[int, list[int]]
) -> tuple[JointSlot, ...]:
    slots: list[JointSlot] = []
    for joint in body_joints(model, body):
        if is_root and joint not in driven:
            continue
        if int(model.jnt_type[joint]) == BALL:
            slots += [JointSlot(joint, -1, axis) for axis in range(BALL_AXES)]
        else:
            slots += [JointSlot(joint, actuator) for actuator in driven.get(joint, [-1])]
    return tuple(slots)
