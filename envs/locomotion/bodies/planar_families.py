"""The planar families of the literature.

Members are those of shared modular policies (Huang, Mordatch, Pathak 2020) and Amorpheus (Kurin et al.
2021). A member is its family's full body without some limbs.
"""

from __future__ import annotations

import functools

import mujoco

from .family import Family
from .model_edits import gymnasium_model, without
from .planar_bases import hopper, humanoid_2d


def _cheetah_without(*limbs: str) -> mujoco.MjSpec:
    return without(gymnasium_model("half_cheetah.xml"), *limbs)


def _walker_without(*limbs: str) -> mujoco.MjSpec:
    return without(gymnasium_model("walker2d_v5.xml"), *limbs)


def _humanoid_2d_without(*limbs: str) -> mujoco.MjSpec:
    return without(humanoid_2d(), *limbs)


def cheetah() -> Family:
    """Fifteen: Gymnasium's half-cheetah with 0 to 3 segments left of each leg."""
    legs = {"b": ("bthigh", "bshin", "bfoot"), "f": ("fthigh", "fshin", "ffoot")}
    names = {
        (1, 0): "2_back",
        (0, 1): "2_front",
        (2, 0): "3_back",
        (1, 1): "3_balanced",
        (0, 2): "3_front",
        (3, 0): "4_allback",
        (0, 3): "4_allfront",
        (2, 1): "4_back",
        (1, 2): "4_front",
        (3, 1): "5_back",
        (2, 2): "5_balanced",
        (1, 3): "5_front",
        (3, 2): "6_back",
        (2, 3): "6_front",
        (3, 3): "7_full",
    }
    members = {
        f"cheetah_{name}": functools.partial(
            _cheetah_without, *legs["b"][back : back + 1], *legs["f"][front : front + 1]
        )
        for (back, front), name in names.items()
    }
    return Family("cheetah", "cheetah_7_full", members)


def walker() -> Family:
    """Six: Gymnasium's walker and five with fewer parts."""
    removed = {
        2: ("leg", "thigh_left"),
        3: ("leg", "leg_left"),
        4: ("foot", "leg_left"),
        5: ("foot", "foot_left"),
        6: ("foot_left",),
        7: (),
    }
    members = {
        f"walker_{parts}": functools.partial(_walker_without, *limbs) for parts, limbs in removed.items()
    }
    # The literature counts each body twice, with its children in two orders.
    aliases = {f"walker_{p}_{order}": f"walker_{p}" for p in removed for order in ("main", "flipped")}
    return Family("walker", "walker_7", members, aliases)


def hoppers() -> Family:
    """Three, of 3, 4 (Gymnasium's) and 5 parts."""
    members = {f"hopper_{parts}": functools.partial(hopper, parts) for parts in (3, 4, 5)}
    return Family("hopper", "hopper_5", members)


def humanoids_2d() -> Family:
    """Eight planar humanoids of 7 to 9 parts."""
    removed = {
        "9_full": (),
        "8_left_knee": ("left_shin",),
        "8_right_knee": ("right_shin",),
        "7_left_arm": ("left_upper_arm",),
        "7_right_arm": ("right_upper_arm",),
        "7_left_leg": ("left_thigh",),
        "7_right_leg": ("right_thigh",),
        "7_lower_arms": ("left_lower_arm", "right_lower_arm"),
    }
    members = {
        f"humanoid_2d_{name}": functools.partial(_humanoid_2d_without, *limbs)
        for name, limbs in removed.items()
    }
    return Family("humanoid_2d", "humanoid_2d_9_full", members)
