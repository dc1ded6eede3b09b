"""How many contacts and constraints of a body MuJoCo Warp has to have room for.

Warp's arrays have a fixed size. Contacts of all worlds share one array, constraints have so many places in
every world. What a body can have is counted here: too few would be found out in the midst of a run, and
places that are never used cost memory and, of constraints, time.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

_MOST_OF_A_PAIR = 8
_OF_A_PAIR = {
    "plane sphere": 1,
    "plane capsule": 2,
    "plane ellipsoid": 1,
    "sphere sphere": 1,
    "sphere capsule": 1,
    "sphere box": 1,
    "capsule capsule": 2,
    "capsule box": 2,
}
_EQUALITIES, _MOST_OF_AN_EQUALITY = mujoco.mjtEq, 6
_OF_AN_EQUALITY = {
    int(_EQUALITIES.mjEQ_CONNECT): 3,
    int(_EQUALITIES.mjEQ_JOINT): 1,
    int(_EQUALITIES.mjEQ_TENDON): 1,
}
_SELF_CONTACTS_OF_A_GEOM = 4
"""Contacts of a body's own parts with each other that are thought to be there at a time."""


class Capacities(NamedTuple):
    """Places in one world: of contacts, whose sum all worlds share, and of the solver's rows."""

    contacts: int
    constraints: int


def capacities(
    model: mujoco.MjModel, contacts: int | None = None, constraints: int | None = None
) -> Capacities:
    """What a body needs, where no number is given.

    Every pair that the ground is of counts in full. Pairs of the body's own parts are too many to all touch:
    as many contacts as there are parts, times four, are thought to be enough, and that is checked in a run.
    """
    if contacts is None:
        grounded, own = _contacts(model)
        contacts = max(grounded + min(own, _SELF_CONTACTS_OF_A_GEOM * model.ngeom), 1)
    if constraints is None:
        constraints = max(_other_constraints(model) + contacts * _rows_of_a_contact(model), 1)
    return Capacities(contacts, constraints)


def _contacts(model: mujoco.MjModel) -> tuple[int, int]:
    """Contacts with what stands still, and of moving parts with each other, if all that can touch does."""
    one, other = np.triu_indices(model.ngeom, 1)
    named = {frozenset(pair) for pair in zip(model.pair_geom1, model.pair_geom2, strict=True)}
    touch = _may_touch(model, one, other)
    touch |= [frozenset(pair) in named for pair in zip(one, other, strict=True)]  # whatever else is said
    kinds = [mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower() for kind in model.geom_type]
    pairs = [
        " ".join(kinds[geom] for geom in sorted(pair, key=model.geom_type.__getitem__))
        for pair in zip(one[touch], other[touch], strict=True)
    ]
    counts = np.array([_OF_A_PAIR.get(pair, _MOST_OF_A_PAIR) for pair in pairs], int)
    still = model.body_weldid[model.geom_bodyid] == 0
    grounded = (still[one] | still[other])[touch]
    return int(counts[grounded].sum()), int(counts[~grounded].sum())


def _may_touch(model: mujoco.MjModel, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which pairs (k,) of geoms MuJoCo lets touch each other, (k,) bool."""
    kinds, affinities = model.geom_contype, model.geom_conaffinity
    masks = (kinds[one] & affinities[other]) | (kinds[other] & affinities[one])
    bodies = np.sort(model.geom_bodyid[[one, other]], 0)
    excluded = np.isin((bodies[0] << 16) + bodies[1], model.exclude_signature)
    a, b = welds = model.body_weldid[bodies]
    above_a, above_b = model.body_weldid[model.body_parentid[welds]]
    # A part does not touch the one that it hangs from, unless that is the world.
    hangs = ((a != 0) & (above_b == a)) | ((b != 0) & (above_a == b))
    if int(model.opt.disableflags) & int(mujoco.mjtDisableBit.mjDSBL_FILTERPARENT):
        hangs[:] = False
    return (masks != 0) & ~excluded & (a != b) & ~hangs


def _rows_of_a_contact(model: mujoco.MjModel) -> int:
    largest = max((int(d) for d in (*model.geom_condim, *model.pair_dim)), default=1)
    if largest == 1 or int(model.opt.cone) == int(mujoco.mjtCone.mjCONE_ELLIPTIC):
        return largest
    return 2 * (largest - 1)


def _other_constraints(model: mujoco.MjModel) -> int:
    equalities = sum(_OF_AN_EQUALITY.get(int(kind), _MOST_OF_AN_EQUALITY) for kind in model.eq_type)
    dry = np.count_nonzero(model.dof_frictionloss) + np.count_nonzero(model.tendon_frictionloss)
    # A joint is at one of its limits at a time, but for margins so wide that it is at both.
    limits = 2 * (np.count_nonzero(model.jnt_limited) + np.count_nonzero(model.tendon_limited))
    return int(equalities + dry + limits)
