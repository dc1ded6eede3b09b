"""Which bodies are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import UserError
from .morphology import Morphology


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
    hashes = {build(body).hash: body for body in seen}
    for body in unseen:
        twin = hashes.get(build(body).hash)
        if twin is not None:
            raise UserError(
                f"split {name!r} leaks: the unseen body {body!r} is the seen body {twin!r} "
                f"(equal hashes); keep both on one side"
            )
    return Split(name, tuple(seen), tuple(unseen))
