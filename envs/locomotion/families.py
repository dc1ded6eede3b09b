"""The planar families of the literature: which bodies they have, and how each is made.

Members and held-out splits are those of shared modular policies (Huang, Mordatch, Pathak 2020) and
Amorpheus (Kurin et al. 2021). A member is an edit of the family's full body: the limbs it lacks.
The manifest (``manifest.json``) holds the total mass and the hash of every compiled member, and the
splits; ``python -m somite.envs.locomotion.families`` rewrites the masses and hashes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

import mujoco

from ..errors import UserError, nearest
from . import bases
from .morphology import Morphology

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Member:
    """A body of a family: the base it starts from, and the limbs (with all they carry) it lacks."""

    base: Callable[[], mujoco.MjSpec]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """Bodies made from the same full body.

    ``full`` names the member with every limb, by which the padded network's slots are aligned.
    ``aliases`` are other names of the same body in the literature.
    """

    name: str
    full: str
    members: dict[str, Member]
    aliases: dict[str, str]


def _cheetah() -> Family:
    base = functools.partial(bases.gymnasium_model, "half_cheetah.xml")
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
        f"cheetah_{name}": Member(base, legs["b"][back : back + 1] + legs["f"][front : front + 1])
        for (back, front), name in names.items()
    }
    return Family("cheetah", "cheetah_7_full", members, {})


def _walker() -> Family:
    base = functools.partial(bases.gymnasium_model, "walker2d_v5.xml")
    removed = {
        2: ("leg", "thigh_left"),
        3: ("leg", "leg_left"),
        4: ("foot", "leg_left"),
        5: ("foot", "foot_left"),
        6: ("foot_left",),
        7: (),
    }
    members = {f"walker_{parts}": Member(base, limbs) for parts, limbs in removed.items()}
    # The literature counts each body twice, with its children in two orders.
    aliases = {f"walker_{p}_{order}": f"walker_{p}" for p in removed for order in ("main", "flipped")}
    return Family("walker", "walker_7", members, aliases)


def _hopper() -> Family:
    members = {f"hopper_{parts}": Member(functools.partial(bases.hopper, parts)) for parts in (3, 4, 5)}
    return Family("hopper", "hopper_5", members, {})


def _humanoid_2d() -> Family:
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
    members = {f"humanoid_2d_{name}": Member(bases.humanoid_2d, limbs) for name, limbs in removed.items()}
    return Family("humanoid_2d", "humanoid_2d_9_full", members, {})


def _ant() -> Family:
    # The spatial body of the parity tests and of the speed comparison.
    members = {"ant": Member(functools.partial(bases.gymnasium_model, "ant.xml"))}
    return Family("ant", "ant", members, {})


FAMILIES = {family.name: family for family in (_cheetah(), _walker(), _hopper(), _humanoid_2d(), _ant())}


def get_family(name: str) -> Family:
    """The family of that name. Raises UserError with the nearest name."""
    if name not in FAMILIES:
        raise UserError(f"unknown family {name!r}; {nearest(name, FAMILIES)}")
    return FAMILIES[name]


def find_member(name: str) -> tuple[Family, str]:
    """The family and canonical name of a member or alias. Raises UserError with the nearest name."""
    for family in FAMILIES.values():
        canonical = family.aliases.get(name, name)
        if canonical in family.members:
            return family, canonical
    known = [n for family in FAMILIES.values() for n in (*family.members, *family.aliases)]
    raise UserError(f"unknown body {name!r}; {nearest(name, known)}")


@functools.lru_cache(maxsize=256)
def build(name: str) -> Morphology:
    """Compile the member (or alias) ``name``. Raises UserError for an unknown name."""
    family, name = find_member(name)
    member = family.members[name]
    spec = member.base()
    for limb in member.removed:
        spec.delete(spec.body(limb))
    return Morphology(name, spec.compile(), full_body=None if name == family.full else build(family.full))


def load_manifest() -> dict:
    """The packaged manifest: ``version``, ``bodies`` (mass in kg, hash) and ``splits``."""
    return json.loads(resources.files(__package__).joinpath(MANIFEST).read_text())


@dataclass(frozen=True)
class Split:
    """Names of the bodies that are trained on (seen) and of those held out (unseen)."""

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def get_split(family_name: str, split_name: str) -> Split:
    """Split of a family by name; ``all`` trains on every member and holds out none.

    Raises:
        UserError: unknown family or split, or a split in which a body stands on both sides.
    """
    family = get_family(family_name)
    if split_name == "all":
        return Split("all", tuple(family.members), ())
    splits = load_manifest()["splits"]
    choices = [name for name, families in splits.items() if family_name in families]
    if split_name not in choices:
        raise UserError(
            f"family {family_name!r} has no split {split_name!r}; {nearest(split_name, [*choices, 'all'])}"
        )
    unseen = tuple(find_member(name)[1] for name in splits[split_name][family_name]["unseen"])
    seen = tuple(name for name in family.members if name not in unseen)
    return checked_split(split_name, seen, unseen)


def checked_split(name: str, seen: Sequence[str], unseen: Sequence[str]) -> Split:
    """A split whose sides share no body, by the hash of the compiled bodies and not by name.

    Raises:
        UserError: a body of one side equals a body of the other.
    """
    hashes = {build(body).hash: body for body in seen}
    for body in unseen:
        twin = hashes.get(build(body).hash)
        if twin is not None:
            raise UserError(
                f"split {name!r} leaks: the unseen body {body!r} is the seen body {twin!r} "
                f"(equal hashes); keep both on one side"
            )
    return Split(name, tuple(seen), tuple(unseen))


def write_manifest(path: str) -> None:
    """Rewrite masses and hashes of every member, keeping the splits."""
    manifest = load_manifest()
    manifest["bodies"] = {
        name: {"mass": round(body.mass, 6), "hash": body.hash}
        for family in FAMILIES.values()
        for name in family.members
        for body in [build(name)]
    }
    with open(path, "w") as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    write_manifest(str(resources.files(__package__).joinpath(MANIFEST)))
