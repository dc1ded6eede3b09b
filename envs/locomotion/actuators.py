"""What an actuator pulls and what a nominal action means to it, for every kind that MuJoCo has.

Most actuators drive one hinge or slide joint. The others (a tendon, a thruster on a site, adhesion of a
body, a motor on a ball or free joint) *transmit*: they belong to the outermost limb that they move.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import mujoco
import numpy as np

from ..errors import UserError

UNLIMITED_CONTROL = 1.0
"""Half span of the physical control that a nominal action of 1 means where nothing tells a range."""

_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_BODY = int(mujoco.mjtTrn.mjTRN_BODY)
_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_AFFINE = int(mujoco.mjtBias.mjBIAS_AFFINE)
_FILTERS = tuple(int(kind) for kind in (mujoco.mjtDyn.mjDYN_FILTER, mujoco.mjtDyn.mjDYN_FILTEREXACT))
_INTEGRATOR = int(mujoco.mjtDyn.mjDYN_INTEGRATOR)
_MUSCLE = int(mujoco.mjtGain.mjGAIN_MUSCLE)


def actuator_label(model: mujoco.MjModel, actuator: int) -> str:
    """Name of an actuator for messages, its number where it has none."""
    return repr(model.actuator(actuator).name or actuator)


def driven_joint(model: mujoco.MjModel, actuator: int) -> int:
    """The hinge or slide joint that an actuator drives, -1 if it transmits in another way."""
    if int(model.actuator_trntype[actuator]) not in _JOINT:
        return -1
    joint = int(model.actuator_trnid[actuator, 0])
    return joint if int(model.jnt_type[joint]) in _SCALAR else -1


def moved_bodies(model: mujoco.MjModel) -> list[list[int]]:
    """For every actuator the bodies whose own joints it moves, by how strongly, strongest first.

    Read from the transmission's moment arms at a few drawn poses, since a tendon may slacken or pass
    a joint's axis at one of them. Adhesion moves no joint; it belongs to its body.
    """
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    strength = np.zeros((model.nu, model.nv))
    for _ in range(4):
        mujoco.mj_resetData(model, data)
        velocity = rng.uniform(-0.5, 0.5, model.nv)
        mujoco.mj_integratePos(model, data.qpos, velocity, 1.0)
        mujoco.mj_forward(model, data)
        moment = np.zeros((model.nu, model.nv))
        mujoco.mju_sparse2dense(
            moment, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind
        )
        strength += np.abs(moment)
    result = []
    for actuator in range(model.nu):
        if int(model.actuator_trntype[actuator]) == _BODY:
            result.append([int(model.actuator_trnid[actuator, 0])])
            continue
        joint = driven_joint(model, actuator)
        if joint >= 0:
            result.append([int(model.jnt_bodyid[joint])])
            continue
        dofs = np.flatnonzero(strength[actuator] > 1e-9)
        if len(dofs) == 0:
            raise UserError(
                f"actuator {actuator_label(model, actuator)} moves no joint of this model; remove it, or "
                "attach what it pulls to a body with a joint"
            )
        order = np.argsort(-strength[actuator, dofs], kind="stable")
        result.append(list(dict.fromkeys(int(model.dof_bodyid[dof]) for dof in dofs[order])))
    return result


@dataclass(frozen=True)
class Controls:
    """Physical controls (nu,) that nominal actions mean: ``center + half * action``.

    MuJoCo itself clips what lies beyond an actuator's range.
    """

    center: np.ndarray
    half: np.ndarray


def read_controls(
    model: mujoco.MjModel, qpos: np.ndarray | None = None, home: np.ndarray | None = None
) -> Controls:
    """How nominal actions in [-1, 1] become physical controls.

    The span is the control range; of a servo without one the range of its joint; of a motor without
    one that in which its force is limited. An actuator of which nothing tells a span covers
    ±``UNLIMITED_CONTROL``, with a warning. The centre is the control of the home pose: a keyframe's, or for
    a position servo its length there, so that action 0 stands still; else the middle of the range. Where
    it is not in the middle, the span is that to the farther end, so that all of the range is reached.

    Args:
        model: the compiled body.
        qpos: (nq,) home pose; None: ``qpos0``.
        home: (nu,) controls that hold it (a keyframe's); None: the lengths of the transmissions there.
    """
    data = mujoco.MjData(model)
    data.qpos[:] = model.qpos0 if qpos is None else qpos
    mujoco.mj_forward(model, data)
    center, half = np.zeros(model.nu), np.zeros(model.nu)
    for actuator in range(model.nu):
        low, high = _span(model, actuator)
        middle = (low + high) / 2
        if home is not None:
            middle = home[actuator]
        elif is_position_servo(model, actuator):
            middle = data.actuator_length[actuator]
        center[actuator] = np.clip(middle, low, high)
        half[actuator] = max(high - center[actuator], center[actuator] - low)
    return Controls(center, half)


def is_position_servo(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether the control is a length that the actuator pulls towards."""
    return (
        position_gain(model, actuator) > 0
        and int(model.actuator_dyntype[actuator]) != _INTEGRATOR
        and model.actuator_gainprm[actuator, 0] != 0
    )


def position_gain(model: mujoco.MjModel, actuator: int) -> float:
    """Force lost per length beyond the target (N/m or N m/rad), 0 without such feedback."""
    return -_feedback(model, actuator, 1)


def velocity_gain(model: mujoco.MjModel, actuator: int) -> float:
    """Force lost per rate of length (N s/m or N m s/rad), 0 without such feedback."""
    return -_feedback(model, actuator, 2)


def _feedback(model: mujoco.MjModel, actuator: int, term: int) -> float:
    if int(model.actuator_biastype[actuator]) != _AFFINE:
        return 0.0
    return float(model.actuator_biasprm[actuator, term])


def time_constant(model: mujoco.MjModel, actuator: int) -> float:
    """Time constant of the filter between control and force, s; 0 without one."""
    kind = int(model.actuator_dyntype[actuator])
    muscle = kind == int(mujoco.mjtDyn.mjDYN_MUSCLE)
    return float(model.actuator_dynprm[actuator, 0]) if kind in _FILTERS or muscle else 0.0


def force_span(model: mujoco.MjModel, actuator: int, half: float) -> float:
    """Largest force (at the transmission, without gear) of half a control span, limits included."""
    if int(model.actuator_gaintype[actuator]) == _MUSCLE:
        _, _, force, scale = model.actuator_gainprm[actuator, :4]
        span = force if force > 0 else scale / max(float(model.actuator_acc0[actuator]), 1e-9)
    else:
        span = abs(model.actuator_gainprm[actuator, 0]) * half
    if model.actuator_forcelimited[actuator]:
        span = min(span, float(np.abs(model.actuator_forcerange[actuator]).max()))
    return float(span)


def _span(model: mujoco.MjModel, actuator: int) -> tuple[float, float]:
    """Lower and upper end of the physical control."""
    if model.actuator_ctrllimited[actuator]:
        low, high = model.actuator_ctrlrange[actuator]
        return float(low), float(high)
    gear = float(model.actuator_gear[actuator, 0])
    joint = driven_joint(model, actuator)
    if is_position_servo(model, actuator) and joint >= 0 and model.jnt_limited[joint]:
        low, high = sorted(gear * model.jnt_range[joint])
        return float(low), float(high)
    gain = abs(float(model.actuator_gainprm[actuator, 0]))
    if (
        model.actuator_forcelimited[actuator]
        and gain > 0
        and int(model.actuator_biastype[actuator]) != _AFFINE
    ):
        half = float(np.abs(model.actuator_forcerange[actuator]).max()) / gain
        return -half, half
    warnings.warn(
        f"actuator {actuator_label(model, actuator)} has no control range; actions -1 to 1 mean "
        f"±{UNLIMITED_CONTROL}",
        stacklevel=3,
    )
    return -UNLIMITED_CONTROL, UNLIMITED_CONTROL
