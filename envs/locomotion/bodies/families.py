"""All families: finding and building a body by its name, and the splits into seen and unseen bodies.

The manifest (``manifest.json``) holds the total mass and the hash of every listed body, and the splits, of
which a side is a list of names, a range of numbers, or, not told, all others;
``python -m somite.envs.locomotion.bodies.families`` rewrites the masses and hashes.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import mujoco

from ...errors import UserError, nearest
from . import planar, quadruped, recipes
from .morphology import Morphology

Recipe = Callable[[], mujoco.MjSpec]  # makes a body, ready to be compiled
MANIFEST = "manifest.json"

SCENES = ("scene", "floor", "world", "terrain", "arena")
"""Words in the names of files that are a robot's surroundings."""


@dataclass(frozen=True)
class Family:
    """Bodies made from the same full body, each by a recipe.

    Args:
        name: of the family; its members' names begin with it.
        full: name of the body with every limb, by which the padded network's slots are aligned.
        members: recipes of the listed members: those of the manifest and of the split ``all``.
        aliases: other names of members in the literature.
        others: recipes of bodies that are no members, such as a full body made for alignment only.
        draw: makes the body of a number from 0 on: every ``<name>_<number>`` is a body, listed or not.
        grouped: experiments have bodies of one layout beside each other, to be simulated together.
    """

    name: str
    full: str
    members: Mapping[str, Recipe]
    aliases: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Recipe] = field(default_factory=dict)
    draw: Callable[[int], mujoco.MjSpec] | None = None
    grouped: bool = False

    def recipe(self, name: str) -> Recipe | None:
        """How the body (or alias) ``name`` is made; None if no family has it."""
        name = self.aliases.get(name, name)
        made = {**self.members, **self.others}
        if name in made:
            return made[name]
        # One number has one name: quadruped_07 would be quadruped_7 again.
        number = re.fullmatch(rf"{re.escape(self.name)}_(0|[1-9][0-9]{{0,17}})", name)
        return functools.partial(self.draw, int(number[1])) if number and self.draw else None

    def build(self, name: str) -> Morphology:
        """The body of that name. Raises UserError."""
        return build(self.canonical(name))

    def canonical(self, name: str, also: Sequence[str] = ()) -> str:
        """The name for a name or alias. Raises UserError, with the nearest name or word in ``also``."""
        if self.recipe(name) is None:
            raise UserError(f"family {self.name!r} has no body {name!r}; {self.hint(name, also)}")
        return self.aliases.get(name, name)

    def hint(self, name: str, also: Sequence[str] = ()) -> str:
        """What to write instead of ``name``."""
        if self.draw is None:
            return nearest(name, [*self.known(), *also])
        words = ", ".join([f"{self.name}_1 and so on without end", *self.others, *also])
        return f"choices: {self.name}_0, {words}"

    def known(self) -> list[str]:
        """Every listed name."""
        return [*self.members, *self.aliases, *self.others]


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("cheetah", "cheetah_7_full", recipes.CHEETAHS),
        Family("walker", "walker_7", recipes.WALKERS, recipes.WALKER_ALIASES),
        Family("hopper", "hopper_5", recipes.HOPPERS),
        Family("humanoid_2d", "humanoid_2d_9_full", recipes.HUMANOIDS_2D),
        # The split `damage` is the idea of Najarro and Risi (2020): one front leg shortened in training, the
        # other unseen. `damage_all` does so with every damage. `intact` trains Gymnasium's ant alone.
        Family("ant", "ant", recipes.ANTS),
        # The split `nervenet` trains on six legs and tries all others: NerveNet (Wang et al. 2018) trained on
        # four or six legs and tried longer bodies, and some with disabled legs, which are not made here.
        Family("centipede", "centipede_20", recipes.CENTIPEDES),
        Family("swimmer", "swimmer_13", recipes.SWIMMERS),  # the split `chain` trains on five links
        Family("humanoid", "humanoid", recipes.HUMANOIDS),  # `limbs` holds out what lacks something right
        # The split `drawn` trains on the first 64. `quadruped_full` has a leg in every place.
        Family(
            "quadruped",
            "quadruped_full",
            quadruped.QUADRUPEDS,
            others={"quadruped_full": functools.partial(quadruped.quadruped, quadruped.full_shape())},
            draw=quadruped.drawn_quadruped,
        ),
        # Drawn about the cheetahs, and about walkers, hoppers and planar humanoids, none of which is drawn.
        *(
            Family(
                name,
                f"{name}_full",
                members,
                others={f"{name}_full": functools.partial(planar.full_body, name)},
                draw=functools.partial(planar.drawn_body, name),
                grouped=True,
            )
            for name, members in (("planar", planar.PLANAR), ("planar_upright", planar.UPRIGHT))
        ),
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


@functools.lru_cache(maxsize=1024)
def build(name: str) -> Morphology:
    """Compile the body (or alias) ``name``. Raises UserError for an unknown name."""
    family, name = find_member(name)
    recipe = family.recipe(name)
    full_body = None if name == family.full else build(family.full)
    return Morphology(name, recipe().compile(), full_body=full_body, spec=recipe)


def load_manifest() -> dict:
    """The packaged manifest: ``version``, ``bodies`` (mass in kg, hash) and ``splits``."""
    return json.loads(resources.files(__package__).joinpath(MANIFEST).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Split:
    """Names of the bodies that are trained on (seen) and of those held out (unseen)."""

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def get_split(family_name: str, split_name: str) -> Split:
    """Split of a family by name; ``all`` trains on every listed member and holds out none.

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
    unseen = _names(family, sides["unseen"])
    seen = _names(family, sides.get("seen", [name for name in family.members if name not in unseen]))
    return checked_split(split_name, seen, unseen, build)


def _names(family: Family, side: Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a side of a split.

    Either a list of them, or ``count`` drawn bodies: those from number ``first`` on, of these such with
    ``most_limbs`` at most where that is told, or the first of a list of ``numbers`` of the manifest.
    """
    if isinstance(side, Mapping) and "numbers" in side:
        numbers = load_manifest()["numbers"][side["numbers"]].split()[: side["count"]]
        side = [f"{family.name}_{number}" for number in numbers]
    elif isinstance(side, Mapping):
        numbered = (f"{family.name}_{number}" for number in itertools.count(side["first"]))
        most = side.get("most_limbs")
        fitting = (name for name in numbered if most is None or build(name).n_limbs <= most)
        side = list(itertools.islice(fitting, side["count"]))
    return tuple(family.canonical(name) for name in side)


def checked_split(
    name: str, seen: Sequence[str], unseen: Sequence[str], build: Callable[[str], Morphology]
) -> Split:
    """A split; ``build`` gives the body of a name. Raises UserError: a body stands on both sides."""
    identities = {build(body).identity: body for body in seen}
    for body in unseen:
        twin = identities.get(build(body).identity)
        if twin is not None:
            raise UserError(
                f"split {name!r} leaks: the unseen body {body!r} is the seen body {twin!r} "
                f"(of a scene, only what moves counts); keep both on one side"
            )
    return Split(name, tuple(seen), tuple(unseen))


def distinct(names: Sequence[str], build: Callable[[str], Morphology]) -> tuple[list[str], dict[str, str]]:
    """Names of bodies without duplicates, and for every other name the one that stands for it.

    Of equal bodies that of the simplest file stays: the robot, not a scene around it.
    """

    def size(name: str) -> tuple[int, int, bool]:
        # A floor may have been added to the robot, which then has as many geoms as its scene.
        model = build(name).model
        return model.nbody, model.ngeom, any(word in name.lower() for word in SCENES)

    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(build(name).identity, []).append(name)
    stays = {}
    for group in groups.values():
        stays |= dict.fromkeys(group, min(group, key=size))
    return [name for name in names if stays[name] == name], {a: b for a, b in stays.items() if a != b}


def manifest_text() -> str:
    """The manifest with the masses and hashes that every listed member has now; the splits stay."""
    members = [build(name) for family in FAMILIES.values() for name in family.members]
    listed = {body.name: {"mass": round(body.mass, 6), "hash": body.hash} for body in members}
    return json.dumps(load_manifest() | {"bodies": listed}, indent=1) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name(MANIFEST).write_text(manifest_text(), encoding="utf-8")
