"""How many contacts and constraints of a body MuJoCo Warp has to have room for.

Warp's arrays have a fixed size. Contacts of all worlds share one array, constraints have so many places in
every world. What a body can have is counted here: too few would be found out in the midst of a run, and
places that are never used cost memory and, of constraints, time.
"""

from __future__ import annotations

from dataclasses import dataclass

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
_OF_AN_EQUALITY = {
    int(mujoco.mjtEq.mjEQ_CONNECT): 3,
    int(mujoco.mjtEq.mjEQ_WELD): 6,
    int(mujoco.mjtEq.mjEQ_JOINT): 1,
    int(mujoco.mjtEq.mjEQ_TENDON): 1,
}
_ELLIPTIC = int(mujoco.mjtCone.mjCONE_ELLIPTIC)
_SELF_CONTACTS_OF_A_GEOM = 4
"""Contacts of a body's own parts with each other that are thought to be there at a time."""


@dataclass(frozen=True)
class Capacities:
    """Places in one world.

    Attributes:
        contacts: of contacts; all worlds share the sum.
        constraints: of rows of the constraint solver.
    """

    contacts: int
    constraints: int


def capacities(
    model: mujoco.MjModel, contacts: int | None = None, constraints: int | None = None
) -> Capacities:
    """What a body needs, where no number is given.

    Every pair that the ground is of counts in full. Pairs of the body's own parts are too many to all touch:
    as many contacts as there are parts, times four, are thought to be enough, and that is checked in a run.

    Args:
        model: the body with its world.
        contacts: a given number; None: those that are counted.
        constraints: the same.
    """
    grounded, own = _contacts(model)
    counted = grounded + min(own, _SELF_CONTACTS_OF_A_GEOM * model.ngeom)
    contacts = max(counted, 1) if contacts is None else contacts
    if constraints is None:
        constraints = max(_other_constraints(model) + contacts * _rows_of_a_contact(model), 1)
    return Capacities(contacts, constraints)


def _contacts(model: mujoco.MjModel) -> tuple[int, int]:
    """Contacts with what stands still, and of moving parts with each other, if all that can touch does."""
    grounded = own = 0
    still = model.body_weldid[model.geom_bodyid] == 0
    excluded = {int(signature) for signature in model.exclude_signature}
    pairs = {
        (min(a, b), max(a, b)) for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True)
    }  # which touch whatever else is said
    for a in range(model.ngeom):
        for b in range(a + 1, model.ngeom):
            if (a, b) not in pairs and not _may_touch(model, a, b, excluded):
                continue
            kinds = sorted((int(model.geom_type[a]), int(model.geom_type[b])))
            pair = " ".join(mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower() for kind in kinds)
            count = _OF_A_PAIR.get(pair, _MOST_OF_A_PAIR)
            if still[a] or still[b]:
                grounded += count
            else:
                own += count
    return grounded, own


def _may_touch(model: mujoco.MjModel, a: int, b: int, excluded: set[int]) -> bool:
    kinds, affinities = model.geom_contype, model.geom_conaffinity
    masks = kinds[a] & affinities[b] or kinds[b] & affinities[a]
    one, other = sorted(int(model.geom_bodyid[geom]) for geom in (a, b))
    if not masks or (one << 16) + other in excluded:
        return False
    weld_one, weld_other = int(model.body_weldid[one]), int(model.body_weldid[other])
    if weld_one == weld_other:
        return False
    parents = (
        int(model.body_weldid[model.body_parentid[weld_one]]),
        int(model.body_weldid[model.body_parentid[weld_other]]),
    )
    # A part does not touch the one that it hangs from, unless that is the world.
    hangs = (weld_one and parents[1] == weld_one) or (weld_other and parents[0] == weld_other)
    filters = not int(model.opt.disableflags) & int(mujoco.mjtDisableBit.mjDSBL_FILTERPARENT)
    return not (hangs and filters)


def _rows_of_a_contact(model: mujoco.MjModel) -> int:
    dimensions = [int(d) for d in (*model.geom_condim, *model.pair_dim)]
    largest = max(dimensions, default=1)
    if largest == 1:
        return 1
    return largest if int(model.opt.cone) == _ELLIPTIC else 2 * (largest - 1)


def _other_constraints(model: mujoco.MjModel) -> int:
    equalities = sum(_OF_AN_EQUALITY.get(int(kind), 6) for kind in model.eq_type)
    dry = np.count_nonzero(model.dof_frictionloss) + np.count_nonzero(model.tendon_frictionloss)
    # A joint is at one of its limits at a time, but for margins so wide that it is at both.
    limits = 2 * (np.count_nonzero(model.jnt_limited) + np.count_nonzero(model.tendon_limited))
    return int(equalities + dry + limits)
