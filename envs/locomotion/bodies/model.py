"""What is read from compiled models: kinds, limits, bounds, what holds a body in place, and the limb graph.

A *limb* is a body with joints, together with the jointless bodies welded to it. The unactuated joints of a
tree's root limb place it in the world and are no joint rows (where a body stands must not be seen). Trees
without an actuator are scenery. No name and no index means anything here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import mujoco
import numpy as np

from ...errors import UserError

_JOINTS, _TRANSMISSIONS = mujoco.mjtJoint, mujoco.mjtTrn
FREE, BALL = int(_JOINTS.mjJNT_FREE), int(_JOINTS.mjJNT_BALL)
SLIDE, HINGE = int(_JOINTS.mjJNT_SLIDE), int(_JOINTS.mjJNT_HINGE)
SCALAR = (HINGE, SLIDE)  # kinds of joints whose position is one number
COORDINATES, DOFS = {FREE: 7, SLIDE: 1, HINGE: 1, BALL: 4}, {FREE: 6, SLIDE: 1, HINGE: 1, BALL: 3}
"""Of a joint, in ``qpos`` and in ``qvel``."""

JOINT = (int(_TRANSMISSIONS.mjTRN_JOINT), int(_TRANSMISSIONS.mjTRN_JOINTINPARENT))
TENDON, SITE = int(_TRANSMISSIONS.mjTRN_TENDON), int(_TRANSMISSIONS.mjTRN_SITE)
ADHESION, CRANK = int(_TRANSMISSIONS.mjTRN_BODY), int(_TRANSMISSIONS.mjTRN_SLIDERCRANK)
"""What actuators act through."""

ENDLESS, UNBOUNDED = 1e3, 1e8
"""Where a joint or tendon ends beyond this (rad, m) it is taken to have no end there; a control or force
beyond this to have no bound. Files write ``inf``, ``1e10`` or the like for both."""

HELD = 1e6  # a joint whose damping would stop it this many times faster than a time step is held, not moved

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

    Of a joint with one end only the other is ``_FREE_SPAN`` beyond its reference position.
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


def actuator_label(model: mujoco.MjModel, actuator: int) -> str:
    """Name of an actuator for messages, its number where it has none."""
    return repr(model.actuator(actuator).name or actuator)


def driven_joint(model: mujoco.MjModel, actuator: int) -> int:
    """The hinge or slide joint that an actuator drives, -1 if it transmits in another way."""
    if int(model.actuator_trntype[actuator]) not in JOINT:
        return -1
    joint = int(model.actuator_trnid[actuator, 0])
    return joint if int(model.jnt_type[joint]) in SCALAR else -1


def moved_bodies(model: mujoco.MjModel) -> list[list[int]]:
    """For every actuator the bodies whose own joints it moves, by how strongly, strongest first.

    Read from the transmission's moment arms at a few drawn poses, since a tendon may slacken or pass
    a joint's axis at one of them. Adhesion and a thruster belong to the body that carries them.
    """
    strength = np.zeros((model.nu, model.nv))
    if any(driven_joint(model, actuator) < 0 for actuator in range(model.nu)):
        data, rng = mujoco.MjData(model), np.random.default_rng(0)
        for _ in range(4):
            mujoco.mj_resetData(model, data)
            velocity = rng.uniform(-0.5, 0.5, model.nv)
            mujoco.mj_integratePos(model, data.qpos, velocity, 1.0)
            mujoco.mj_forward(model, data)
            strength += np.abs(moment_arms(model, data))
    result = []
    for actuator in range(model.nu):
        if int(model.actuator_trntype[actuator]) == ADHESION:
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
        found = [int(model.dof_bodyid[dof]) for dof in dofs[order]]
        if int(model.actuator_trntype[actuator]) == SITE and model.actuator_trnid[actuator, 1] < 0:
            # A thrust along a rotor's own axis moves the rotor's joint by nothing, yet it is the rotor's.
            found = [int(model.site_bodyid[model.actuator_trnid[actuator, 0]])]
        result.append(list(dict.fromkeys(found)))
    return result


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
    depth: list[int] = []
    for parent in parents:
        depth.append(depth[parent] + 1 if parent >= 0 else 0)
    driving, transmitting = defaultdict(list), defaultdict(list)  # actuators, by joint and by limb
    for actuator, moves in enumerate(moved):
        joint = driven_joint(model, actuator)
        if joint >= 0:
            driving[joint].append(actuator)
        else:
            # Several equally far out: the one it moves most, which comes first.
            transmitting[max((limb_of[body] for body in moves), key=depth.__getitem__)].append(actuator)
    limbs: list[Limb] = []
    unnamed: dict[int, int] = defaultdict(int)
    for parts, parent in zip(bodies, parents, strict=True):
        name = model.body(parts[0]).name
        if not name:  # it is called after its parent, as the k-th without a name there
            unnamed[parent] += 1
            name = f"{limbs[parent].name if parent >= 0 else 'root'}/{unnamed[parent]}"
        slots: list[JointSlot] = []
        for joint in body_joints(model, parts[0]):
            if parent < 0 and joint not in driving:
                continue  # it places the root in the world
            if int(model.jnt_type[joint]) == BALL:
                slots += [JointSlot(joint, -1, axis) for axis in range(3)]
            else:
                slots += [JointSlot(joint, actuator) for actuator in driving.get(joint, [-1])]
        slots += [JointSlot(-1, actuator) for actuator in transmitting[len(limbs)]]
        limbs.append(Limb(name, tuple(parts), parent, tuple(slots)))
    return tuple(limbs)


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
