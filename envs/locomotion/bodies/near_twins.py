"""How unlike planar bodies are, so that none that is drawn is one of the literature's or close to one."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from . import recipes
from .model import body_geoms, body_joints, read_limbs

ABSENT = 0.08
"""m: shorter limbs (of the longest geom, round ends included) do not count when bodies are compared."""

NEAR = 0.15
"""A drawn body is at least this `distance` from every body of the literature."""

HELD_OUT = {**recipes.CHEETAHS, **recipes.WALKERS, **recipes.HOPPERS, **recipes.HUMANOIDS_2D}


@dataclass(frozen=True)
class _Part:
    """What counts of a limb; ``place``: (x, z) m of its joint from its parent's (the root's middle)."""

    mass: float
    length: float
    place: np.ndarray
    children: tuple[_Part, ...]

    @functools.cached_property
    def tree(self) -> tuple:
        """Of the limbs it carries, their order aside."""
        return tuple(sorted(child.tree for child in self.children))


def distance(one: mujoco.MjModel, other: mujoco.MjModel) -> float:
    """How unlike two planar bodies are: 0 for equal ones, infinite for unlike trees of limbs.

    The largest relative difference in mass, length and place of a joint among the limbs, of the matching of
    the two trees in which it is smallest. A place is where a limb's joint stands at the start in the plane,
    seen from its parent's, relative to the parent's length. Limbs shorter than `ABSENT` do not count (what
    they carry hangs on their parents), and neither do angles, springs and motors.
    """
    return _apart(_part(one), _part(other))


def distances(model: mujoco.MjModel) -> dict[str, float]:
    """The `distance` of a planar body from each of `HELD_OUT`."""
    own = _part(model)
    return {name: _apart(own, other) for name, other in _held_out().items()}


def is_near_literature(model: mujoco.MjModel) -> bool:
    """Whether a body is closer than `NEAR` to one of `HELD_OUT`."""
    return min(distances(model).values()) < NEAR


@functools.cache
def _held_out() -> dict[str, _Part]:
    return {name: _part(recipe().compile()) for name, recipe in HELD_OUT.items()}


def _part(model: mujoco.MjModel) -> _Part:
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    limbs = read_limbs(model)

    def read(index: int, seen_from: np.ndarray | None) -> _Part:
        body = limbs[index].bodies[0]
        geoms = list(body_geoms(model, body))
        lengths = [2 * (model.geom_size[g, 0] + _half(model, g)) for g in geoms]
        longest = int(np.argmax(lengths))
        joint = data.geom_xpos[geoms[longest]]
        if limbs[index].parent >= 0:
            joint = data.xanchor[next(iter(body_joints(model, body)))]
        place = joint[[0, 2]] - (joint[[0, 2]] if seen_from is None else seen_from)
        children = [i for i, limb in enumerate(limbs) if limb.parent == index]
        found = []
        for child in [read(i, joint[[0, 2]]) for i in children]:
            if child.length >= ABSENT:
                found.append(child)
            else:
                found += [replace(own, place=own.place + child.place) for own in child.children]
        return _Part(float(model.body_mass[body]), float(lengths[longest]), place, tuple(found))

    return read(0, None)


def _half(model: mujoco.MjModel, geom: int) -> float:
    return float(model.geom_size[geom, 1]) if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE else 0.0


def _apart(one: _Part, other: _Part) -> float:
    if one.tree != other.tree:
        return math.inf
    own = max(_relative(one.mass, other.mass), _relative(one.length, other.length))
    scale = max(one.length, other.length)
    pairs = [
        [max(_apart(a, b), float(np.linalg.norm(a.place - b.place)) / scale) for b in other.children]
        for a in one.children
    ]
    matchings = itertools.permutations(range(len(pairs)))
    return max(own, min(max((pairs[i][k] for i, k in enumerate(m)), default=0.0) for m in matchings))


def _relative(one: float, other: float) -> float:
    return abs(one - other) / max(one, other)
