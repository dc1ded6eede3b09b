"""Which bodies are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import UserError
from .morphology import Morphology

SCENES = ("scene", "floor", "world", "terrain", "arena")
"""Words in the names of files that are a robot's surroundings."""


@dataclass(frozen=True)
class Split:
    """Names of the bodies that are trained on (seen) and of those held out (unseen)."""

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def checked_split(
    name: str, seen: Sequence[str], unseen: Sequence[str], build: Callable[[str], Morphology]
) -> Split:
    """A split that does not leak.

    Args:
        name: of the split.
        seen: names of the bodies that are trained on.
        unseen: names of those held out.
        build: gives the body of a name.

    Raises:
        UserError: a body of one side equals a body of the other.
    """
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
    """Bodies without duplicates.

    Args:
        names: of bodies.
        build: gives the body of a name.

    Returns:
        The names that stay, of equal bodies that of the simplest file: the robot, not a scene around it;
        and for every other name the one that stands for it.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(build(name).identity, []).append(name)
    stays = {}
    for group in groups.values():
        models = {name: build(name).model for name in group}
        # A floor may have been added to the robot, which then has as many geoms as its scene.
        chosen = min(
            group,
            key=lambda n: (models[n].nbody, models[n].ngeom, any(word in n.lower() for word in SCENES)),
        )
        stays |= dict.fromkeys(group, chosen)
    return [name for name in names if stays[name] == name], {a: b for a, b in stays.items() if a != b}
