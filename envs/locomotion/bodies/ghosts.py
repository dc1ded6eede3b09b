"""Bodies of unlike trees in few layouts, so that few batches simulate them: what one lacks is a ghost.

A ghost has no mass, no force and no contact, only a rotor's inertia: it stays where its joint is, and the
equations of the body's own parts are those without it. It is no limb, and nobody is told of it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import mujoco
import numpy as np
from scipy.optimize import linear_sum_assignment

from .model import COORDINATES, SCALAR, JointSlot, Limb, body_geoms, body_joints, driven_joint
from .morphology import Morphology

NOWHERE = -1e3
"""m, radius of a ghost's geoms: as much above the ground as others are in it. Whether geoms may touch is one
for all bodies of a layout in MuJoCo Warp, their sizes are not."""

ENDLESS = 1e10
"""rad, m: half the range of a joint without limits in a layout whose joints have them."""

Tree = tuple[tuple[int, ...], tuple["Tree", ...]]
"""Kinds of a part's joints, and what hangs from it."""

_NO_GHOSTS = ("ntendon", "neq", "nflex", "nmesh", "nhfield", "npair", "nexclude", "nplugin", "na", "nmocap")
_NO_GHOSTS += ("nsensor", "nsite", "nkey", "nuserdata")
_STRUCTURAL = ("adr", "num", "id", "_simple", "_plugin", "_user", "_ctrlspec", "_history", "_group")


def _of_bare(name: str) -> property:
    """What ghosts do not change."""
    return property(lambda self: getattr(self.bare, name))


@dataclass(frozen=True, eq=False)
class Ghosted(Morphology):
    """A body among ghosts: it is ``bare``, and its parts have other numbers in ``model``.

    Args:
        bare: the body alone.
        layout: equal to that of the bodies that share its layout.
        numbers: of its bodies, joints (jnt), dofs, geoms, actuators and coordinates (qpos) in ``model``.
    """

    bare: Morphology | None = None
    layout: object = None
    numbers: dict[str, np.ndarray] | None = None

    @functools.cached_property
    def limbs(self) -> tuple[Limb, ...]:  # noqa: D102
        bodies, joints, actuators = (self.numbers[kind].tolist() for kind in ("body", "jnt", "actuator"))
        joints, actuators = [*joints, -1], [*actuators, -1]  # -1: none
        return tuple(
            Limb(
                limb.name,
                tuple(bodies[part] for part in limb.bodies),
                limb.parent,
                tuple(JointSlot(joints[s.joint], actuators[s.actuator], s.axis) for s in limb.slots),
            )
            for limb in self.bare.limbs
        )

    @functools.cached_property
    def initial_qpos(self) -> np.ndarray:  # noqa: D102
        qpos = self.model.qpos0.copy()
        qpos[self.numbers["qpos"]] = self.bare.initial_qpos
        return qpos

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray]:  # noqa: D102
        return self.numbers["qpos"], self.numbers["dof"]

    @property
    def structure(self) -> tuple:  # noqa: D102
        return (self.layout,)

    limb_descriptors = _of_bare("limb_descriptors")
    joint_descriptors = _of_bare("joint_descriptors")
    tip, tip_center = _of_bare("tip"), _of_bare("tip_center")
    hash, identity, _start = _of_bare("hash"), _of_bare("identity"), _of_bare("_start")


def in_few_layouts(bodies: Sequence[Morphology], most: int | None) -> list[Morphology]:
    """The bodies, in at most so many layouts for each kind of root and of physics; None: as they are.

    Layouts begin as those of single bodies; again and again the two are merged that cost the fewest ghosts.
    Bodies with tendons, meshes, contacts between their own limbs and the like stay as they are.
    """
    groups: dict[object, list[Morphology]] = {}
    for body in dict.fromkeys(bodies) if most else ():
        groups.setdefault(_kind(body), []).append(body)
    ghosted: dict[Morphology, Morphology] = {}
    for kind, group in groups.items():
        if kind is not None and len({body.structure for body in group}) > most:
            for tree, members in _layouts(group, most):
                ghosted.update(_with_ghosts(tree, members))
    return [ghosted.get(body, body) for body in bodies]


def _kind(body: Morphology) -> tuple | None:
    """What bodies must have in common; None: the body can have no ghosts."""
    model = body.model
    moving, ground = np.arange(model.ngeom)[model.geom_bodyid > 0], np.flatnonzero(model.geom_bodyid == 0)
    touches = model.geom_contype[moving, None] & model.geom_conaffinity[moving]
    roots = np.flatnonzero(model.body_parentid[1:] == 0) + 1
    joints = [driven_joint(model, actuator) for actuator in range(model.nu)]
    if (
        any(getattr(model, name) for name in _NO_GHOSTS)
        or model.opt.density > 0  # MuJoCo Warp keeps a list for all of what a fluid acts on
        or model.opt.viscosity > 0
        or model.opt.wind.any()
        or body.spec is None
        or body.home is not None
        or touches.any()
        or (model.geom_type[ground] != int(mujoco.mjtGeom.mjGEOM_PLANE)).any()
        or roots.tolist() != [body.root]
        or min(joints) < 0
        or model.nu != model.nactuator
    ):
        return None
    option = [np.asarray(getattr(model.opt, name)).tobytes() for name in _options()]
    scene = [getattr(model, name)[ground].tobytes() for name in _arrays("geom")]
    return _tree(model, body.root)[0], *option, *scene


@functools.cache
def _options() -> tuple[str, ...]:
    options = mujoco.MjModel.from_xml_string("<mujoco/>").opt
    return tuple(
        name for name in dir(options) if isinstance(getattr(options, name), (int, float, np.ndarray))
    )


@functools.cache
def _arrays(kind: str) -> tuple[str, ...]:
    """Arrays with a row for each body, joint, ... that say what it is and not where it belongs."""
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    names = [name for name in dir(model) if name.startswith(kind) and not name.endswith(_STRUCTURAL)]
    return tuple(name for name in names if isinstance(getattr(model, name), np.ndarray))


# Trees


def _tree(model: mujoco.MjModel, body: int) -> Tree:
    kinds = tuple(int(model.jnt_type[joint]) for joint in body_joints(model, body))
    return _node(kinds, [_tree(model, child) for child in _children(model, body)])


def _children(model: mujoco.MjModel, body: int) -> list[int]:
    return (np.flatnonzero(model.body_parentid[1:] == body) + 1).tolist()


def _node(kinds: tuple[int, ...], children: list[Tree]) -> Tree:
    return kinds, tuple(sorted(children, key=lambda own: (_size(own), own), reverse=True))


@functools.lru_cache(maxsize=10**5)
def _size(tree: Tree) -> int:
    return 1 + sum(map(_size, tree[1]))


@functools.lru_cache(maxsize=10**5)
def _merged(one: Tree, other: Tree) -> Tree:
    """The smallest tree in which both are contained, of joints of the same kinds."""
    pairs = _pairs(one[1], other[1])
    (left, right) = ({pair[side] for pair in pairs} for side in (0, 1))
    both = [_merged(one[1][i], other[1][k]) for i, k in pairs]
    rest = [child for i, child in enumerate(one[1]) if i not in left]
    rest += [child for k, child in enumerate(other[1]) if k not in right]
    return _node(one[0], both + rest)


def _pairs(one: Sequence[Tree], other: Sequence[Tree]) -> list[tuple[int, int]]:
    """Which children are merged: those that save most parts."""
    saved = np.array([[_saved(a, b) for b in other] for a in one]).reshape(len(one), len(other))
    pairs = zip(*linear_sum_assignment(saved, maximize=True), strict=True)
    return [(int(i), int(k)) for i, k in pairs if saved[i, k] > 0]


def _saved(one: Tree, other: Tree) -> int:
    if one[0] != other[0]:
        return 0
    return _size(one) + _size(other) - _size(_merged(one, other))


def _layouts(bodies: Sequence[Morphology], most: int) -> Iterator[tuple[Tree, list[Morphology]]]:
    """Trees of layouts, and the bodies of each."""
    members: dict[Tree, list[Morphology]] = {}
    for body in bodies:
        members.setdefault(_tree(body.model, body.root), []).append(body)
    by_tree = sorted(members.items(), key=lambda own: own[0])  # whatever order the bodies come in
    layouts = dict(enumerate(by_tree))

    def cost(one: int, other: int) -> int:
        (a, of_a), (b, of_b) = layouts[one], layouts[other]
        merged = _size(_merged(a, b))
        return (merged - _size(a)) * len(of_a) + (merged - _size(b)) * len(of_b)

    costs = {(i, k): cost(i, k) for i in layouts for k in range(i)}
    for number in range(len(layouts), 2 * len(layouts) - most):
        pair = min(costs, key=costs.get)
        (a, of_a), (b, of_b) = map(layouts.pop, pair)
        costs = {key: value for key, value in costs.items() if not {*key} & {*pair}}
        layouts[number] = _merged(a, b), of_a + of_b
        costs |= {(number, k): cost(number, k) for k in layouts if k != number}
    yield from layouts.values()


def _embedded(tree: Tree, model: mujoco.MjModel, body: int, at: int = 0) -> dict[int, int]:
    """Which part of a tree, counted from its root ``at``, parents first, each body of a model is."""
    children, found = _children(model, body), {body: at}
    starts = at + 1 + np.cumsum([0, *map(_size, tree[1])])
    for i, k in _pairs(tree[1], [_tree(model, child) for child in children]):
        found |= _embedded(tree[1][i], model, children[k], int(starts[i]))
    return found


# Models


def _with_ghosts(tree: Tree, bodies: Sequence[Morphology]) -> Iterator[tuple[Morphology, Morphology]]:
    """Each of these bodies, and itself in the layout of a tree."""
    if len({body.structure for body in bodies}) == 1:
        return
    parts_of = [_embedded(tree, body.model, body.root) for body in bodies]
    size = _size(tree)
    geoms: list[dict[int, int]] = [{} for _ in range(size)]  # most of each type, of each part
    motors: list[dict[int, int]] = [{} for _ in range(size)]  # most of each of its joints
    for body, parts in zip(bodies, parts_of, strict=True):
        for number, part in parts.items():
            most_and_own = (geoms, _types(body.model, number)), (motors, _driven(body.model, number))
            for most, own in most_and_own:
                for key in own:
                    most[part][key] = max(most[part].get(key, 0), own.count(key))
    base = _compiled(tree, bodies[0], geoms, motors)
    numbers = [_numbers(base, body.model, parts) for body, parts in zip(bodies, parts_of, strict=True)]
    for body, own in zip(reversed(bodies), reversed(numbers), strict=True):
        _copy(base, body.model, own)  # so that each ghost is like one of the bodies in what all must share
    limited = np.zeros(base.njnt, bool)
    for body, own in zip(bodies, numbers, strict=True):
        limited[own["jnt"][body.model.jnt_limited.astype(bool)]] = True
    layout = object()
    for body, own in zip(bodies, numbers, strict=True):
        model = copy.copy(base)
        _vanish(model)
        _copy(model, body.model, own)
        free = own["jnt"][~body.model.jnt_limited.astype(bool)]
        model.jnt_range[free] = -ENDLESS, ENDLESS
        model.jnt_limited[:] = limited
        # By which the solver's tolerance is divided, for each velocity.
        model.stat.meaninertia = body.model.stat.meaninertia * body.model.nv / model.nv
        given = {field.name: getattr(body, field.name) for field in fields(Morphology)} | {"model": model}
        yield body, Ghosted(**given, bare=body, layout=layout, numbers=own)


def _types(model: mujoco.MjModel, body: int) -> list[int]:
    return [int(model.geom_type[geom]) for geom in body_geoms(model, body)]


def _driven(model: mujoco.MjModel, body: int) -> list[int]:
    """For each actuator of a body, which of its joints it drives."""
    joints = [driven_joint(model, actuator) for actuator in range(model.nu)]
    return [joint - int(model.body_jntadr[body]) for joint in joints if joint in body_joints(model, body)]


def _compiled(
    tree: Tree, like: Morphology, geoms: Sequence[dict[int, int]], motors: Sequence[dict[int, int]]
) -> mujoco.MjModel:
    """A model with all parts of a layout, in the scene of a body."""
    spec = like.spec()
    spec.delete(spec.body(like.model.body(like.root).name))
    number = 0

    def add(parent: mujoco.MjsBody, own: Tree) -> None:
        nonlocal number
        part, number = number, number + 1
        kinds, children = own
        body = parent.add_body(name=f"part_{part}", mass=1.0, inertia=[1, 1, 1], explicitinertial=True)
        for index, kind in enumerate(kinds):
            joint = body.add_joint(
                name=f"part_{part}_{index}", type=mujoco.mjtJoint(kind), limited=False, armature=1.0
            )
            for _ in range(motors[part].get(index, 0)):
                spec.add_actuator(trntype=mujoco.mjtTrn.mjTRN_JOINT, target=joint.name).set_to_motor()
        for kind, count in geoms[part].items():
            for _ in range(count):
                body.add_geom(type=mujoco.mjtGeom(kind), size=[0.1, 0.1, 0.1])
        for child in children:
            add(body, child)

    add(spec.worldbody, tree)
    model = spec.compile()
    # Boxes around geoms, which are others in each body: they sort out none.
    model.bvh_aabb[model.body_bvhnum[0] :, 3:] = -NOWHERE
    return model


def _numbers(base: mujoco.MjModel, model: mujoco.MjModel, parts: dict[int, int]) -> dict[str, np.ndarray]:
    """Of what a model has, the numbers in the layout of ``base``, where its bodies are these ``parts``."""
    body = np.zeros(model.nbody, int)
    joint, geom = np.zeros(model.njnt, int), np.arange(model.ngeom)  # the scene's geoms come first in both
    for own, part in parts.items():
        body[own] = other = part + 1
        joint[list(body_joints(model, own))] = list(body_joints(base, other))
        free = list(body_geoms(base, other))
        for own_geom in body_geoms(model, own):
            geom[own_geom] = next(g for g in free if base.geom_type[g] == model.geom_type[own_geom])
            free.remove(geom[own_geom])
    actuator, free = np.zeros(model.nu, int), list(range(base.nu))
    for own in range(model.nu):
        wanted = joint[driven_joint(model, own)]
        actuator[own] = next(number for number in free if driven_joint(base, number) == wanted)
        free.remove(actuator[own])
    dofs = [base.jnt_dofadr[joint[j]] + i - model.jnt_dofadr[j] for i, j in enumerate(model.dof_jntid)]
    widths = [COORDINATES[int(kind)] for kind in model.jnt_type]
    qpos = [base.jnt_qposadr[joint[j]] + k for j, width in enumerate(widths) for k in range(width)]
    found = {"body": body, "jnt": joint, "dof": dofs, "geom": geom, "actuator": actuator, "qpos": qpos}
    return {kind: np.array(own, int) for kind, own in found.items()}


def _copy(base: mujoco.MjModel, model: mujoco.MjModel, numbers: dict[str, np.ndarray]) -> None:
    for kind, own in numbers.items():
        for name in _arrays(kind):
            getattr(base, name)[own] = getattr(model, name)


def _vanish(model: mujoco.MjModel) -> None:
    """Make ghosts of all parts."""
    moving = model.geom_bodyid > 0
    model.geom_size[moving] = model.geom_rbound[moving] = NOWHERE
    model.geom_pos[moving] = 0.0
    for kind, names in {
        "body": "pos ipos mass inertia subtreemass invweight0 gravcomp",
        "jnt": "pos stiffness stiffnesspoly",
        "dof": "damping dampingpoly frictionloss",
        "actuator": "gear gainprm biasprm acc0 armature damping dampingpoly",
    }.items():
        for name in names.split():
            getattr(model, f"{kind}_{name}")[:] = 0.0
    model.dof_armature[:] = model.dof_M0[:] = model.dof_invweight0[:] = 1.0
    scalar = np.isin(model.jnt_type, SCALAR)
    model.jnt_range[scalar] = -ENDLESS, ENDLESS
    model.qpos0[model.jnt_qposadr[scalar]] = model.qpos_spring[model.jnt_qposadr[scalar]] = 0.0
