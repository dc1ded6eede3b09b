"""The numbers that describe a limb and a joint to a policy: the descriptor columns of ``observation.py``."""

from __future__ import annotations

import mujoco
import numpy as np

from .actuators import Controls, feedback, force_sign, force_span, time_constant
from .model import (
    ADHESION,
    BALL,
    CRANK,
    HINGE,
    JOINT,
    SITE,
    SLIDE,
    TENDON,
    JointSlot,
    Limb,
    body_geoms,
    body_joints,
    geom_bounds,
    joint_range,
    leading,
    moment_arms,
    quaternion_matrix,
    tendon_range,
)

# Units of the descriptors, stated in observation.py. They decide how visible it is to a policy which limb
# is which: with lengths in metres and masses in 10 kg all descriptors of a cheetah are far below its
# state features, and the transformer's unseen bodies ran 40 % slower after 0.4 M steps (one trial).
LENGTH_UNIT, MASS_UNIT = 0.1, 1.0
DAMPING_UNIT, STIFFNESS_UNIT, STRENGTH_UNIT = 10.0, 100.0, 100.0

LARGEST_FEATURE = 1e6  # of a descriptor, in the units that policies see


def limb_descriptors(model: mujoco.MjModel, limbs: tuple[Limb, ...], tip: int) -> np.ndarray:
    """(N, 19) float32: the descriptor columns of ``tokens``, in the order of ``observation.py``."""
    rows = []
    for index, limb in enumerate(limbs):
        mass, center, tensor = _inertia(model, limb)
        gyration = np.sqrt(np.maximum(np.diag(tensor), 0) / max(mass, 1e-12))
        low, high, friction = _extent(model, limb)
        lengths = (center, gyration, (high - low) / 2, (high + low) / 2)
        row = [limb.parent < 0, index == tip, mass / MASS_UNIT, *(np.array(lengths) / LENGTH_UNIT).ravel()]
        rows.append([*row, friction, *(attachment(model, limbs, index) / LENGTH_UNIT)])
    return np.array(rows, np.float32)


def attachment(model: mujoco.MjModel, limbs: tuple[Limb, ...], index: int) -> np.ndarray:
    """(3,) m: a limb's origin in its parent limb's frame, before any joint moves; 0 for a root."""
    limb = limbs[index]
    if limb.parent < 0:
        return np.zeros(3)
    body = limb.bodies[0]
    position, rotation = _pose_in(model, int(model.body_parentid[body]), limbs[limb.parent].bodies[0])
    return position + rotation @ model.body_pos[body]


def limb_center(model: mujoco.MjModel, limb: Limb) -> np.ndarray:
    """(3,) m: centre of the limb's geoms' bounding box, limb frame (its origin if it has no geom)."""
    low, high, _ = _extent(model, limb)
    return (low + high) / 2


def joint_descriptors(
    model: mujoco.MjModel, limb: Limb, slot: JointSlot, controls: Controls, reference: float
) -> np.ndarray:
    """(22,) float32: the descriptor columns of a limb's joint row, in the order of ``observation.py``.

    ``reference`` is what the row's angle is measured from.
    """
    row = _transmission(model, limb, slot, reference) if slot.joint < 0 else _joint(model, slot, reference)
    actuator, driven = slot.actuator, [0.0] * 7
    if actuator >= 0:
        center, half = controls.center[actuator], controls.half[actuator]
        gear, sign = gear_size(model, actuator), force_sign(model, actuator)
        of_length, of_rate = feedback(model, actuator)
        if slot.joint >= 0 and model.actuator_gear[actuator, 0] < 0:  # elsewhere the axis tells
            sign = -sign
        driven = [
            1.0,
            sign * gear * force_span(model, actuator, half) / STRENGTH_UNIT,
            center - half,
            center + half,
            gear**2 * of_length / STIFFNESS_UNIT,
            gear**2 * of_rate / DAMPING_UNIT,
            time_constant(model, actuator),
        ]
    return np.array([*row, *driven], np.float32)


def _joint(model: mujoco.MjModel, slot: JointSlot, reference: float) -> list[float]:
    """(15,) what a joint is, without its actuator."""
    joint = slot.joint
    kind, dof = int(model.jnt_type[joint]), int(model.jnt_dofadr[joint]) + slot.axis
    ends, limits = joint_range(model, joint), np.zeros(2)
    stiffness, damping = leading(model.jnt_stiffness[joint]), leading(model.dof_damping[dof])
    # What holds a joint does so however strong it is.
    resistance = np.minimum([damping / DAMPING_UNIT, stiffness / STIFFNESS_UNIT], LARGEST_FEATURE)
    if kind == BALL:
        axis, rest = np.eye(3)[slot.axis], 0.0
        limits = np.array([-1, 1]) * (ends[1] if ends else 0.0)
    else:
        axis = model.jnt_axis[joint]
        limits = np.array(ends) - reference if ends else limits
        rest = model.qpos_spring[int(model.jnt_qposadr[joint])] - reference if stiffness > 0 else 0.0
    place = [kind in (HINGE, BALL), 0.0, *axis, *(model.jnt_pos[joint] / LENGTH_UNIT)]
    return [*place, ends is not None, *limits, rest, *resistance, model.dof_armature[dof]]


def _transmission(model: mujoco.MjModel, limb: Limb, slot: JointSlot, reference: float) -> list[float]:
    """(15,) what an actuator acts through, in the columns of a joint."""
    actuator = slot.actuator
    kind, target = int(model.actuator_trntype[actuator]), int(model.actuator_trnid[actuator, 0])
    turns, axis, anchor = transmission_axis(model, limb, actuator)
    limited, limits, rest, damping, stiffness = False, np.zeros(2), 0.0, 0.0, 0.0
    if kind == TENDON:
        gear = float(model.actuator_gear[actuator, 0])
        ends = tendon_range(model, target)
        limited = ends is not None
        limits = np.sort(gear * np.array(ends)) - reference if ends else limits
        damping, stiffness = leading(model.tendon_damping[target]), leading(model.tendon_stiffness[target])
        rest = gear * model.tendon_lengthspring[target].mean() - reference if stiffness > 0 else 0.0
    resistance = damping / DAMPING_UNIT, stiffness / STIFFNESS_UNIT
    return [turns, 1.0, *axis, *(anchor / LENGTH_UNIT), limited, *limits, rest, *resistance, 0.0]


def gear_size(model: mujoco.MjModel, actuator: int) -> float:
    """What an actuator's force is multiplied by: its gear, or the length of that where it has a direction."""
    gear = model.actuator_gear[actuator]
    kind, target = int(model.actuator_trntype[actuator]), int(model.actuator_trnid[actuator, 0])
    if kind == ADHESION:
        return 1.0  # adhesion has none
    scalar = kind in (TENDON, CRANK)
    if scalar or (kind != SITE and int(model.jnt_type[target]) in (HINGE, SLIDE)):
        return abs(float(gear[0]))
    return float(max(np.linalg.norm(gear[:3]), np.linalg.norm(gear[3:])))


def transmission_axis(
    model: mujoco.MjModel, limb: Limb, actuator: int
) -> tuple[bool, np.ndarray, np.ndarray]:
    """Whether an actuator turns rather than pushes, along which axis (3,), and where (3,) m, limb frame.

    Where the axis changes with the pose it is that of the reference pose. The axis of a tendon is the one
    about (or along) which the limb moves as it lengthens, so that antagonists differ. Adhesion has none.
    """
    kind, target = int(model.actuator_trntype[actuator]), int(model.actuator_trnid[actuator, 0])
    gear, place, turn, turning = model.actuator_gear[actuator], np.zeros(3), np.eye(3), np.eye(3)
    if kind == ADHESION:
        return False, np.zeros(3), np.zeros(3)
    if kind in (TENDON, CRANK):
        return False, _unit(_lengthening_axis(model, limb.bodies[0], actuator)), np.zeros(3)
    if kind == SITE:
        reference, body = int(model.actuator_trnid[actuator, 1]), int(model.site_bodyid[target])
        if body in limb.bodies:
            position, rotation = _pose_in(model, body, limb.bodies[0])
            place = position + rotation @ model.site_pos[target]
            turn = turning = rotation @ quaternion_matrix(model.site_quat[target])
        if reference >= 0:  # the site is moved along the axes of the reference site
            data = _at_reference(model)
            own, other = data.xmat[limb.bodies[0]].reshape(3, 3), data.site_xmat[reference].reshape(3, 3)
            turn = turning = own.T @ other
        push, torque = gear[:3], gear[3:]
    elif int(model.jnt_type[target]) == BALL:
        push, torque, place = np.zeros(3), gear[:3], model.jnt_pos[target]
    else:  # a free joint is pushed along the world's axes
        turn = quaternion_matrix(model.body_quat[limb.bodies[0]]).T
        turning = turn if kind == JOINT[1] else turning
        push, torque = gear[:3], gear[3:]
    turns = bool(np.linalg.norm(torque) > np.linalg.norm(push))
    return turns, _unit(turning @ torque if turns else turn @ push), place


def _at_reference(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_fwdPosition(model, data)
    return data


def _lengthening_axis(model: mujoco.MjModel, body: int, actuator: int) -> np.ndarray:
    """(3,) how a body's own joints move as an actuator's length grows, in its frame; turns before slides."""
    moment = moment_arms(model, _at_reference(model))
    turn, slide = np.zeros(3), np.zeros(3)
    for joint in body_joints(model, body):
        kind, dof = int(model.jnt_type[joint]), int(model.jnt_dofadr[joint])
        if kind == HINGE:
            turn += moment[actuator, dof] * model.jnt_axis[joint]
        elif kind == SLIDE:
            slide += moment[actuator, dof] * model.jnt_axis[joint]
        elif kind == BALL:
            turn += moment[actuator, dof : dof + 3]
    return turn if turn.any() else slide


def _unit(axis: np.ndarray) -> np.ndarray:
    return axis / max(float(np.linalg.norm(axis)), 1e-9)


def _pose_in(model: mujoco.MjModel, body: int, ancestor: int) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and rotation (3, 3) of a body welded to ``ancestor``, in its frame."""
    position, rotation = np.zeros(3), np.eye(3)
    while body != ancestor:
        turn = quaternion_matrix(model.body_quat[body])
        position, rotation = model.body_pos[body] + turn @ position, turn @ rotation
        body = int(model.body_parentid[body])
    return position, rotation


def _inertia(model: mujoco.MjModel, limb: Limb) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, centre of mass (3,) and inertia about it (3, 3) of a limb's bodies, limb frame."""
    masses = model.body_mass[list(limb.bodies)]
    placed = [_pose_in(model, body, limb.bodies[0]) for body in limb.bodies]
    total = float(masses.sum())
    centers = np.array([p + r @ model.body_ipos[b] for b, (p, r) in zip(limb.bodies, placed, strict=True)])
    center = (masses[:, None] * centers).sum(0) / total if total > 0 else centers[0]
    tensor = np.zeros((3, 3))
    for body, mass, own, (_, rotation) in zip(limb.bodies, masses, centers, placed, strict=True):
        axes = rotation @ quaternion_matrix(model.body_iquat[body])
        arm = own - center
        tensor += axes @ np.diag(model.body_inertia[body]) @ axes.T
        tensor += mass * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    return total, center, tensor


def _extent(model: mujoco.MjModel, limb: Limb) -> tuple[np.ndarray, np.ndarray, float]:
    """Lower and upper corner (3,) of the geoms' bounding box, limb frame; largest friction."""
    bounds, frictions = [], [0.0]
    for body in limb.bodies:
        position, rotation = _pose_in(model, body, limb.bodies[0])
        for geom in body_geoms(model, body):
            turn = rotation @ quaternion_matrix(model.geom_quat[geom])
            bounds.append(geom_bounds(model, geom, position + rotation @ model.geom_pos[geom], turn))
            if model.geom_contype[geom] or model.geom_conaffinity[geom]:
                frictions.append(float(model.geom_friction[geom, 0]))
    if not bounds:
        return np.zeros(3), np.zeros(3), 0.0
    low, high = np.swapaxes(bounds, 0, 1)
    return low.min(0), high.max(0), max(frictions)
