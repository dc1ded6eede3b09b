"""All families: finding and building a body by its name, and the splits into seen and unseen bodies.

The manifest (``manifest.json``) holds the total mass and the hash of every listed body, and the splits;
``python -m somite.envs.locomotion.bodies.families`` rewrites the masses and hashes.
"""

from __future__ import annotations

import difflib
import functools
import json
from importlib import resources

from ...errors import UserError, nearest
from . import planar_families, spatial_families
from .family import Family
from .morphology import Morphology
from .splits import Split, checked_split

MANIFEST = "manifest.json"

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        planar_families.cheetah(),
        planar_families.walker(),
        planar_families.hoppers(),
        planar_families.humanoids_2d(),
        spatial_families.ants(),
        spatial_families.centipedes(),
        spatial_families.swimmers(),
        spatial_families.humanoids(),
        spatial_families.quadrupeds(),
    )
}


def get_family(name: str) -> Family:
    """The family of that name. Raises UserError with the nearest name."""
    if name not in FAMILIES:
        raise UserError(f"unknown family {name!r}; {nearest(name, FAMILIES)}")
    return FAMILIES[name]


def find_member(name: str) -> tuple[Family, str]:
    """The family and canonical name of a body or alias. Raises UserError with the nearest name."""
    for family in FAMILIES.values():
        if family.recipe(name) is not None:
            return family, family.canonical(name)
    owner = {word: family for family in FAMILIES.values() for word in family.known()}
    close = difflib.get_close_matches(name, owner, n=1)
    hint = owner[close[0]].hint(name) if close else f"the families are {', '.join(FAMILIES)}"
    raise UserError(f"unknown body {name!r}; {hint}")


@functools.lru_cache(maxsize=512)
def build(name: str) -> Morphology:
    """Compile the body (or alias) ``name``. Raises UserError for an unknown name."""
    family, name = find_member(name)
    recipe = family.recipe(name)
    full_body = None if name == family.full else build(family.full)
    return Morphology(name, recipe().compile(), full_body=full_body, spec=recipe)


def load_manifest() -> dict:
    """The packaged manifest: ``version``, ``bodies`` (mass in kg, hash) and ``splits``."""
    return json.loads(resources.files(__package__).joinpath(MANIFEST).read_text(encoding="utf-8"))


def get_split(family_name: str, split_name: str) -> Split:
    """Split of a family by name; ``all`` trains on every listed member and holds out none.

    The manifest names the unseen bodies of a split, and the seen ones where those are not all others.

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
    sides = splits[split_name][family_name]
    unseen = tuple(family.canonical(name) for name in sides["unseen"])
    seen = sides.get("seen", [name for name in family.members if name not in unseen])
    return checked_split(split_name, [family.canonical(name) for name in seen], unseen, build)


def write_manifest(path: str) -> None:
    """Rewrite masses and hashes of every listed member, keeping the splits."""
    manifest = load_manifest()
    manifest["bodies"] = {
        name: {"mass": round(body.mass, 6), "hash": body.hash}
        for family in FAMILIES.values()
        for name in family.members
        for body in [build(name)]
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    write_manifest(str(resources.files(__package__).joinpath(MANIFEST)))
