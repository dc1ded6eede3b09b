"""What is read from compiled models everywhere: kinds, limits, bounds, and what holds a body in place."""

from __future__ import annotations

from collections.abc import Iterable

import mujoco
import numpy as np

_JOINTS, _TRANSMISSIONS = mujoco.mjtJoint, mujoco.mjtTrn
FREE, BALL = int(_JOINTS.mjJNT_FREE), int(_JOINTS.mjJNT_BALL)
SLIDE, HINGE = int(_JOINTS.mjJNT_SLIDE), int(_JOINTS.mjJNT_HINGE)
SCALAR = (HINGE, SLIDE)
"""Kinds of joints, as models store them."""

JOINT = (int(_TRANSMISSIONS.mjTRN_JOINT), int(_TRANSMISSIONS.mjTRN_JOINTINPARENT))
TENDON, SITE = int(_TRANSMISSIONS.mjTRN_TENDON), int(_TRANSMISSIONS.mjTRN_SITE)
ADHESION, CRANK = int(_TRANSMISSIONS.mjTRN_BODY), int(_TRANSMISSIONS.mjTRN_SLIDERCRANK)
"""What actuators act through."""

ENDLESS, UNBOUNDED = 1e3, 1e8
"""Where a joint or tendon ends beyond this (rad, m) it is taken to have no end there; a control or force
beyond this to have no bound. Files write ``inf``, ``1e10`` or the like for both."""

HELD = 1e6
"""A joint whose damping would stop it this many times faster than a time step is held, not moved."""

_FREE_SPAN = {HINGE: np.pi, SLIDE: 0.5}
"""How far (rad, m) beyond its reference position a joint with one end only is taken to go."""

_TIES = (int(mujoco.mjtEq.mjEQ_WELD), int(mujoco.mjtEq.mjEQ_CONNECT))


def quaternion_matrix(quaternion: np.ndarray) -> np.ndarray:
    """(4,) unit quaternion, w first, as (3, 3) rotation."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quaternion, float))
    return matrix.reshape(3, 3)


def body_joints(model: mujoco.MjModel, body: int) -> range:
    """Ids of a body's own joints, in the order in which they act."""
    first = int(model.body_jntadr[body])
    return range(first, first + int(model.body_jntnum[body]))


def body_geoms(model: mujoco.MjModel, body: int) -> range:
    """Ids of a body's own geoms."""
    first = int(model.body_geomadr[body])
    return range(first, first + int(model.body_geomnum[body]))


def touching_geoms(model: mujoco.MjModel) -> np.ndarray:
    """(ngeom,) bool: those that can touch something."""
    return (model.geom_contype | model.geom_conaffinity) != 0


def leading(coefficients: np.ndarray) -> float:
    """The ordinary stiffness or damping: the first coefficient of MuJoCo's polynomial springs and dampers."""
    return float(np.ravel(coefficients)[0])


def moment_arms(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """(nu, nv) how much longer each actuator's transmission is for each velocity."""
    moment = np.zeros((model.nu, model.nv))
    mujoco.mju_sparse2dense(
        moment, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind
    )
    return moment


def geom_bounds(
    model: mujoco.MjModel, geom: int, position: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Axis-aligned bounds (3,), (3,) of a geom placed at ``position`` with ``rotation`` (3, 3) or (9,)."""
    kind, rotation = int(model.geom_type[geom]), rotation.reshape(3, 3)
    if kind in (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_SPHERE)):
        radius = model.geom_size[geom, 0]
        along = 0.0 if kind == int(mujoco.mjtGeom.mjGEOM_SPHERE) else model.geom_size[geom, 1]
        half = np.abs(rotation[:, 2]) * along + radius
        return position - half, position + half
    center, size = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    middle, half = position + rotation @ center, np.abs(rotation) @ size
    return middle - half, middle + half


def placed_bounds(model: mujoco.MjModel, data: mujoco.MjData, geoms: Iterable[int]) -> np.ndarray:
    """(K, 2, 3) m: lower and upper corner of each of ``geoms``, in the world."""
    corners = [geom_bounds(model, int(g), data.geom_xpos[g], data.geom_xmat[g]) for g in geoms]
    return np.array(corners).reshape(-1, 2, 3)


def joint_range(model: mujoco.MjModel, joint: int) -> tuple[float, float] | None:
    """Lower and upper end (rad, m) of a joint; None: it has none. A ball's lower end is 0.

    An end that is infinite or beyond ``ENDLESS`` is none. Of a joint with one end only the other is taken to
    be a half turn, or half a metre, beyond its reference position.
    """
    if not model.jnt_limited[joint]:
        return None
    reference = float(model.qpos0[model.jnt_qposadr[joint]])
    return _ends(model.jnt_range[joint], reference, _FREE_SPAN.get(int(model.jnt_type[joint])))


def tendon_range(model: mujoco.MjModel, tendon: int) -> tuple[float, float] | None:
    """Shortest and longest length (m) of a tendon; None: it has none, or one end only is far away."""
    if not model.tendon_limited[tendon]:
        return None
    return _ends(model.tendon_range[tendon], float(model.tendon_length0[tendon]), 0.5)


def _ends(ends: np.ndarray, reference: float, span: float | None) -> tuple[float, float] | None:
    low, high = (float(end) for end in ends)
    if low < -ENDLESS and high > ENDLESS:
        return None
    if span is None:  # of a ball
        return None if high > ENDLESS else (low, high)
    if low < -ENDLESS:
        return min(high, reference) - span, high
    if high > ENDLESS:
        return low, max(low, reference) + span
    return low, high


def force_bound(model: mujoco.MjModel, actuator: int) -> float | None:
    """Largest force of an actuator's ``forcerange``; None: it is not limited."""
    bound = float(np.abs(model.actuator_forcerange[actuator]).max())
    return bound if model.actuator_forcelimited[actuator] and bound < UNBOUNDED else None


def control_bounds(model: mujoco.MjModel, actuator: int) -> tuple[float, float]:
    """Ends of an actuator's ``ctrlrange``, infinite where it has none."""
    if not model.actuator_ctrllimited[actuator]:
        return -np.inf, np.inf
    low, high = (float(end) for end in model.actuator_ctrlrange[actuator])
    return (low if low > -UNBOUNDED else -np.inf), (high if high < UNBOUNDED else np.inf)


def is_held(model: mujoco.MjModel, joint: int) -> bool:
    """Whether a joint's damping alone keeps it where it is, as models do that lock a base in place."""
    dof = int(model.jnt_dofadr[joint])
    return leading(model.dof_damping[dof]) * model.opt.timestep > HELD * max(float(model.dof_M0[dof]), 1e-12)


def is_tied(model: mujoco.MjModel, bodies: tuple[int, ...]) -> bool:
    """Whether an equality constraint ties a limb's bodies to the world or a mocap body, as grippers are."""
    for constraint in np.flatnonzero(model.eq_active0):
        if int(model.eq_type[constraint]) not in _TIES:
            continue
        ends = [int(model.eq_obj1id[constraint]), int(model.eq_obj2id[constraint])]
        if int(model.eq_objtype[constraint]) == int(mujoco.mjtObj.mjOBJ_SITE):
            ends = [int(model.site_bodyid[site]) for site in ends]
        for own, other in (ends, ends[::-1]):
            anchor = int(model.body_weldid[other])
            if own in bodies and (anchor == 0 or model.body_mocapid[anchor] >= 0):
                return True
    return False
