"""The spatial families: damaged ants, centipedes, swimmers, humanoids without limbs, drawn quadrupeds."""

from __future__ import annotations

import functools

import mujoco

from .family import Family
from .model_edits import gymnasium_model, without
from .quadruped import drawn_shape, full_shape, quadruped
from .spatial_bases import ANT_LEGS, DAMAGES, ant, centipede, swimmer


def ants() -> Family:
    """Seventeen: Gymnasium's ant, and each of its four legs damaged in four ways.

    The split ``damage`` is the idea of Najarro and Risi (2020): one front leg shortened in training, the
    other unseen. ``damage_all`` does so with every damage. ``intact`` trains Gymnasium's ant alone.
    """
    damaged = {f"ant_{leg}_{damage}": (leg, damage) for leg in ANT_LEGS for damage in DAMAGES}
    members = {"ant": ant} | {name: functools.partial(ant, *which) for name, which in damaged.items()}
    return Family("ant", "ant", members)


def centipedes() -> Family:
    """Nine, of 4 to 20 legs.

    The split ``nervenet`` trains on six legs and tries all others: NerveNet (Wang et al. 2018) trained on
    four or six legs and tried longer bodies, and some with disabled legs, which are not made here.
    """
    members = {f"centipede_{legs}": functools.partial(centipede, legs) for legs in range(4, 21, 2)}
    return Family("centipede", "centipede_20", members)


def swimmers() -> Family:
    """Eleven chains of 3 (Gymnasium's) to 13 links; the split ``chain`` trains on five links."""
    members = {f"swimmer_{links}": functools.partial(swimmer, links) for links in range(3, 14)}
    return Family("swimmer", "swimmer_13", members)


def _humanoid_without(*limbs: str) -> mujoco.MjSpec:
    return without(gymnasium_model("humanoid.xml"), *limbs)


def humanoids() -> Family:
    """Eleven: Gymnasium's humanoid, and ten without some limbs.

    The split ``limbs`` holds out all bodies that lack something on the right.
    """
    parts = {"lower_arm": "lower_arm", "arm": "upper_arm", "foot": "foot", "shin": "shin"}
    removed = {
        f"no_{side}_{part}": (f"{side}_{limb}",) for side in ("left", "right") for part, limb in parts.items()
    }
    removed |= {
        f"no_{part}s": (f"left_{limb}", f"right_{limb}")
        for part, limb in parts.items()
        if part.endswith("arm")
    }
    members = {"humanoid": _humanoid_without} | {
        f"humanoid_{name}": functools.partial(_humanoid_without, *limbs) for name, limbs in removed.items()
    }
    return Family("humanoid", "humanoid", members)


LISTED_QUADRUPEDS = 128


def _drawn_quadruped(number: int) -> mujoco.MjSpec:
    return quadruped(drawn_shape(number))


def quadrupeds() -> Family:
    """Endless; numbers 0 to 127 are listed, the split ``drawn`` trains on the first 64 of them.

    ``quadruped_full`` has a leg in every place. It is no member, and only aligns slots.
    """
    members = {
        f"quadruped_{number}": functools.partial(_drawn_quadruped, number)
        for number in range(LISTED_QUADRUPEDS)
    }
    others = {"quadruped_full": lambda: quadruped(full_shape())}
    return Family("quadruped", "quadruped_full", members, others=others, draw=_drawn_quadruped)
