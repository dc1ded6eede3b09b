"""A morphology: a compiled body, its limbs, and where it starts and stands."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import mujoco
import numpy as np

from .limbs import Limb, geom_bounds, joint_descriptors, limb_descriptors, quaternion_matrix, read_limbs


@dataclass(frozen=True, eq=False)
class Morphology:
    """A body that can be simulated.

    Args:
        name: what tables and logs call it; nothing else depends on it.
        model: the compiled model. It is never edited.
        full_body: the body this one lacks limbs of (None: it is complete). It gives the height above
            the ground at which this body starts, and aligns the padded network's slots.
    """

    name: str
    model: mujoco.MjModel
    full_body: Morphology | None = None

    @functools.cached_property
    def limbs(self) -> tuple[Limb, ...]:
        """Limbs, parents before children; N of them."""
        return read_limbs(self.model)

    @property
    def n_limbs(self) -> int:
        """N."""
        return len(self.limbs)

    @property
    def n_joints(self) -> int:
        """J, the largest number of joint slots of a limb."""
        return max(len(limb.slots) for limb in self.limbs)

    @functools.cached_property
    def limb_descriptors(self) -> np.ndarray:
        """(N, 18) float32."""
        return limb_descriptors(self.model, self.limbs)

    @functools.cached_property
    def joint_descriptors(self) -> tuple[tuple[np.ndarray, ...], ...]:
        """For every limb the (18,) float32 descriptors of each of its joint slots."""
        return tuple(
            tuple(joint_descriptors(self.model, slot) for slot in limb.slots) for limb in self.limbs
        )

    @functools.cached_property
    def mass(self) -> float:
        """Total mass of the limbs in kg."""
        return float(sum(self.model.body_mass[list(limb.bodies)].sum() for limb in self.limbs))

    @functools.cached_property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that equal bodies share, whatever their names or child order."""
        return body_hash(self.model)

    @functools.cached_property
    def aligned_slots(self) -> tuple[int, ...]:
        """For every limb its slot in the full body, found by limb name (for the padded network)."""
        if self.full_body is None:
            return tuple(range(self.n_limbs))
        slot_of = {limb.name: slot for slot, limb in enumerate(self.full_body.limbs)}
        return tuple(slot_of[limb.name] for limb in self.limbs)

    @functools.cached_property
    def initial_qpos(self) -> np.ndarray:
        """(nq,) start position: as near to the ground as the full body starts."""
        qpos = self.model.qpos0.copy()
        if self.full_body is not None:
            shift = _lowest_point(self.full_body) - _lowest_point(self)
            _raise_root(self.model, self.limbs[0].bodies[0], qpos, shift)
        return qpos

    @functools.cached_property
    def standing_height(self) -> float:
        """Height of the root's origin above the body's lowest point in its start position, m."""
        data = mujoco.MjData(self.model)
        mujoco.mj_kinematics(self.model, data)
        return float(data.xpos[self.limbs[0].bodies[0], 2] - _lowest_point(self))


def _lowest_point(morphology: Morphology) -> float:
    """Height of the lowest point of all limbs' geoms, at ``qpos0``; of their origins if they have none."""
    model = morphology.model
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    bodies = [body for limb in morphology.limbs for body in limb.bodies]
    lows = [
        geom_bounds(model, int(g), data.geom_xpos[g], data.geom_xmat[g].reshape(3, 3))[0][2]
        for g in np.flatnonzero(np.isin(model.geom_bodyid, bodies))
    ]
    return min(lows, default=data.xpos[bodies, 2].min())


def _raise_root(model: mujoco.MjModel, root: int, qpos: np.ndarray, shift: float) -> None:
    """Move the root up by ``shift`` metres through its free joint or its vertical slide, if any."""
    first = int(model.body_jntadr[root])
    start = quaternion_matrix(model.body_quat[root])
    for joint in range(first, first + int(model.body_jntnum[root])):
        address, kind = int(model.jnt_qposadr[joint]), int(model.jnt_type[joint])
        upward = float(start[2] @ model.jnt_axis[joint])
        if kind == int(mujoco.mjtJoint.mjJNT_FREE):
            qpos[address + 2] += shift
        elif kind == int(mujoco.mjtJoint.mjJNT_SLIDE) and abs(upward) > 0.99:
            qpos[address] += shift * np.sign(upward)


def body_hash(model: mujoco.MjModel) -> str:
    """Hash of what a model's physics depends on; names and the order of children do not enter.

    Numbers are rounded to six digits, since compilation is exact to about fifteen only.
    """
    options = _digits(model.opt.timestep, model.opt.integrator, model.opt.gravity)
    return _digest(options + _subtree(model, 0))


def _subtree(model: mujoco.MjModel, body: int) -> str:
    children = [b for b in range(1, model.nbody) if model.body_parentid[b] == body]
    parts = [_digits(model.body_pos[body], quaternion_matrix(model.body_quat[body]))]
    axes = quaternion_matrix(model.body_iquat[body])
    tensor = axes @ np.diag(model.body_inertia[body]) @ axes.T
    parts.append(_digits(model.body_mass[body], model.body_ipos[body], tensor))
    first = int(model.body_jntadr[body])
    joints = range(first, first + int(model.body_jntnum[body]))
    parts += [_joint(model, joint) for joint in joints]  # their order is part of the physics
    first = int(model.body_geomadr[body])
    parts += sorted(_geom(model, geom) for geom in range(first, first + int(model.body_geomnum[body])))
    parts += sorted(_digest(_subtree(model, child)) for child in children)
    return "|".join(parts)


def _joint(model: mujoco.MjModel, joint: int) -> str:
    dof, address = int(model.jnt_dofadr[joint]), int(model.jnt_qposadr[joint])
    actuators = sorted(
        _digits(
            model.actuator_gear[a],
            model.actuator_gainprm[a],
            model.actuator_biasprm[a],
            model.actuator_ctrlrange[a],
            model.actuator_forcerange[a],
        )
        for a in range(model.nu)
        if model.actuator_trnid[a, 0] == joint
    )
    limits = model.jnt_range[joint] if model.jnt_limited[joint] else ()
    own = _digits(
        model.jnt_type[joint],
        model.jnt_axis[joint],
        model.jnt_pos[joint],
        limits,
        np.ravel(model.jnt_stiffness[joint]),
        np.ravel(model.dof_damping[dof]),
        model.dof_armature[dof],
        model.dof_frictionloss[dof],
        model.qpos0[address],
        model.qpos_spring[address],
    )
    return own + "+".join(actuators)


def _geom(model: mujoco.MjModel, geom: int) -> str:
    return _digits(
        model.geom_type[geom],
        model.geom_size[geom],
        model.geom_pos[geom],
        quaternion_matrix(model.geom_quat[geom]),
        model.geom_friction[geom],
        model.geom_condim[geom],
        model.geom_contype[geom],
        model.geom_conaffinity[geom],
        model.geom_margin[geom],
        model.geom_solref[geom],
        model.geom_solimp[geom],
    )


def _digits(*values: np.ndarray | float) -> str:
    flat = np.concatenate([np.ravel(np.asarray(value, float)) for value in values])
    flat = np.where(np.abs(flat) < 1e-9, 0.0, flat)
    return ",".join(f"{value:.5e}" for value in flat)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
