"""Reading the limb graph of a compiled MuJoCo model: limbs, their joint slots and descriptors.

A *limb* is a body with joints, together with the jointless bodies welded to it. The root limb of a
tree also carries the tree's free motion: its unactuated joints place it in the world and are no
joint slots (where a body stands must not be seen). Trees without an actuator are scenery. No name
and no index means anything here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import mujoco
import numpy as np

from ..errors import UserError

# Units of the descriptors, stated in features.py. They decide how visible it is to a policy which limb
# is which: with lengths in metres and masses in 10 kg all descriptors of a cheetah are far below its
# state features, and the transformer's unseen bodies ran 40 % slower after 0.4 M steps (one trial).
LENGTH_UNIT, MASS_UNIT = 0.1, 1.0
DAMPING_UNIT, STIFFNESS_UNIT, STRENGTH_UNIT = 10.0, 100.0, 100.0
UNLIMITED_CONTROL = 1.0
"""Half span of the physical control that a nominal action of 1 means where no range is given."""


@dataclass(frozen=True)
class JointSlot:
    """One joint of a limb, with the actuator that drives it (-1: none)."""

    joint: int
    actuator: int


@dataclass(frozen=True)
class Limb:
    """One token: body ids it consists of (its own first), parent limb (-1: root), joint slots."""

    name: str
    bodies: tuple[int, ...]
    parent: int
    slots: tuple[JointSlot, ...]


def read_limbs(model: mujoco.MjModel) -> tuple[Limb, ...]:
    """The limbs of every actuated tree of ``model``, parents before children.

    Raises:
        UserError: no actuator, an actuator that drives no hinge or slide joint, or a ball joint.
    """
    actuators = _actuators_of_joints(model)
    actuated_trees = {int(model.body_rootid[model.jnt_bodyid[joint]]) for joint in actuators}
    bodies: list[list[int]] = []
    parents: list[int] = []
    limb_of: dict[int, int] = {}
    for body in range(1, model.nbody):
        if int(model.body_rootid[body]) not in actuated_trees:
            continue
        above = limb_of.get(int(model.body_parentid[body]), -1)
        if above >= 0 and model.body_jntnum[body] == 0:
            bodies[above].append(body)
            limb_of[body] = above
        else:
            limb_of[body] = len(bodies)
            bodies.append([body])
            parents.append(above)
    return tuple(
        Limb(
            name=model.body(parts[0]).name or f"body{parts[0]}",
            bodies=tuple(parts),
            parent=parent,
            slots=_slots(model, parts[0], parent < 0, actuators),
        )
        for parts, parent in zip(bodies, parents, strict=True)
    )


def _actuators_of_joints(model: mujoco.MjModel) -> dict[int, list[int]]:
    if model.nu == 0:
        raise UserError("this body has no actuator; at least one motor on a hinge or slide joint is needed")
    joints: dict[int, list[int]] = {}
    in_joint = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
    for actuator in range(model.nu):
        if int(model.actuator_trntype[actuator]) not in in_joint:
            name = model.actuator(actuator).name or actuator
            raise UserError(f"actuator {name!r} drives no joint; those on hinge and slide joints are read")
        joints.setdefault(int(model.actuator_trnid[actuator, 0]), []).append(actuator)
    return joints


def _slots(
    model: mujoco.MjModel, body: int, is_root: bool, actuators: dict[int, list[int]]
) -> tuple[JointSlot, ...]:
    slots = []
    first = int(model.body_jntadr[body])
    for joint in range(first, first + int(model.body_jntnum[body])):
        kind = int(model.jnt_type[joint])
        if is_root and joint not in actuators:
            continue
        if kind not in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)):
            raise UserError(f"joint {model.joint(joint).name!r} is neither a hinge nor a slide joint")
        slots += [JointSlot(joint, actuator) for actuator in actuators.get(joint, [-1])]
    return tuple(slots)


def control_ranges(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half span (nu,) of the physical control that nominal actions -1 to 1 cover.

    An actuator without a range covers ±``UNLIMITED_CONTROL``, with a warning.
    """
    low, high = model.actuator_ctrlrange.T.copy()
    for actuator in np.flatnonzero(model.actuator_ctrllimited == 0):
        name = model.actuator(int(actuator)).name or int(actuator)
        warnings.warn(
            f"actuator {name!r} has no control range; actions -1 to 1 mean ±{UNLIMITED_CONTROL}", stacklevel=2
        )
        low[actuator], high[actuator] = -UNLIMITED_CONTROL, UNLIMITED_CONTROL
    return (low + high) / 2, (high - low) / 2


def limb_descriptors(model: mujoco.MjModel, limbs: tuple[Limb, ...]) -> np.ndarray:
    """(N, 18) float32: the descriptor columns of ``tokens``, in the order of ``features.py``."""
    rows = []
    for limb in limbs:
        placed = [_pose_in(model, body, limb.bodies[0]) for body in limb.bodies]
        mass, center, tensor = _inertia(model, limb.bodies, placed)
        gyration = np.sqrt(np.maximum(np.diag(tensor), 0) / max(mass, 1e-12))
        low, high, friction = _extent(model, limb.bodies, placed)
        attachment = np.zeros(3)
        if limb.parent >= 0:
            parent_limb = limbs[limb.parent]
            above = int(model.body_parentid[limb.bodies[0]])
            position, rotation = _pose_in(model, above, parent_limb.bodies[0])
            attachment = position + rotation @ model.body_pos[limb.bodies[0]]
        rows.append(
            np.concatenate(
                [
                    [limb.parent < 0, mass / MASS_UNIT],
                    center / LENGTH_UNIT,
                    gyration / LENGTH_UNIT,
                    (high - low) / 2 / LENGTH_UNIT,
                    (high + low) / 2 / LENGTH_UNIT,
                    [friction],
                    attachment / LENGTH_UNIT,
                ]
            )
        )
    return np.array(rows, np.float32)


def joint_descriptors(model: mujoco.MjModel, slot: JointSlot) -> np.ndarray:
    """(18,) float32: the descriptor columns of a joint's row, in the order of ``features.py``."""
    joint, actuator = slot.joint, slot.actuator
    dof, address = int(model.jnt_dofadr[joint]), int(model.jnt_qposadr[joint])
    reference = model.qpos0[address]
    limited = bool(model.jnt_limited[joint])
    limits = model.jnt_range[joint] - reference if limited else np.zeros(2)
    # The leading coefficient of MuJoCo's polynomial springs and dampers.
    stiffness, damping = np.ravel(model.jnt_stiffness[joint])[0], np.ravel(model.dof_damping[dof])[0]
    rest = model.qpos_spring[address] - reference if stiffness > 0 else 0.0
    strength, control = 0.0, np.zeros(2)
    if actuator >= 0:
        center, half = (values[actuator] for values in _quiet_control_ranges(model))
        strength = abs(model.actuator_gainprm[actuator, 0] * model.actuator_gear[actuator, 0]) * half
        control = np.array([center - half, center + half])
    return np.concatenate(
        [
            [int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_HINGE)],
            model.jnt_axis[joint],
            model.jnt_pos[joint] / LENGTH_UNIT,
            [limited],
            limits,
            [
                rest,
                damping / DAMPING_UNIT,
                stiffness / STIFFNESS_UNIT,
                model.dof_armature[dof],
                actuator >= 0,
                strength / STRENGTH_UNIT,
            ],
            control,
        ]
    ).astype(np.float32)


def _quiet_control_ranges(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the simulation has said it once
        return control_ranges(model)


def _pose_in(model: mujoco.MjModel, body: int, ancestor: int) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and rotation (3, 3) of a body welded to ``ancestor``, in its frame."""
    position, rotation = np.zeros(3), np.eye(3)
    while body != ancestor:
        turn = quaternion_matrix(model.body_quat[body])
        position, rotation = model.body_pos[body] + turn @ position, turn @ rotation
        body = int(model.body_parentid[body])
    return position, rotation


def _inertia(
    model: mujoco.MjModel, bodies: tuple[int, ...], placed: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, centre of mass (3,) and inertia about it (3, 3) of welded bodies, limb frame."""
    masses = model.body_mass[list(bodies)]
    total = float(masses.sum())
    centers = np.array(
        [p + r @ model.body_ipos[body] for body, (p, r) in zip(bodies, placed, strict=True)]
    )
    center = (masses[:, None] * centers).sum(0) / total if total > 0 else centers[0]
    tensor = np.zeros((3, 3))
    for body, mass, own, (_, rotation) in zip(bodies, masses, centers, placed, strict=True):
        axes = rotation @ quaternion_matrix(model.body_iquat[body])
        arm = own - center
        tensor += axes @ np.diag(model.body_inertia[body]) @ axes.T
        tensor += mass * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    return total, center, tensor


def _extent(
    model: mujoco.MjModel, bodies: tuple[int, ...], placed: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Lower and upper corner (3,) of the geoms' bounding box, limb frame; largest friction."""
    lows, highs, frictions = [], [], []
    for body, (position, rotation) in zip(bodies, placed, strict=True):
        first = int(model.body_geomadr[body])
        for geom in range(first, first + int(model.body_geomnum[body])):
            turn = rotation @ quaternion_matrix(model.geom_quat[geom])
            middle = position + rotation @ model.geom_pos[geom]
            low, high = geom_bounds(model, geom, middle, turn)
            lows.append(low)
            highs.append(high)
            if model.geom_contype[geom] or model.geom_conaffinity[geom]:
                frictions.append(float(model.geom_friction[geom, 0]))
    if not lows:
        return np.zeros(3), np.zeros(3), 0.0
    return np.min(lows, 0), np.max(highs, 0), max(frictions, default=0.0)


def geom_bounds(
    model: mujoco.MjModel, geom: int, position: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Axis-aligned bounds (3,), (3,) of a geom placed at ``position`` with ``rotation``."""
    kind = int(model.geom_type[geom])
    if kind in (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_SPHERE)):
        radius = model.geom_size[geom, 0]
        along = 0.0 if kind == int(mujoco.mjtGeom.mjGEOM_SPHERE) else model.geom_size[geom, 1]
        half = np.abs(rotation[:, 2]) * along + radius
        return position - half, position + half
    center, size = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    middle, half = position + rotation @ center, np.abs(rotation) @ size
    return middle - half, middle + half


def quaternion_matrix(quaternion: np.ndarray) -> np.ndarray:
    """(4,) unit quaternion, w first, as (3, 3) rotation."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quaternion, float))
    return matrix.reshape(3, 3)
