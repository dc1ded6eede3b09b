"""A family: bodies made from the same full body, each by a recipe."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import mujoco

from ...errors import UserError, nearest

Recipe = Callable[[], mujoco.MjSpec]
"""Makes a body, ready to be compiled."""


@dataclass(frozen=True)
class Family:
    """Bodies made from the same full body.

    Args:
        name: of the family; its members' names begin with it.
        full: name of the body with every limb, by which the padded network's slots are aligned. In an
            endless family it is no member.
        members: recipes of the listed members: those of the manifest and of the split ``all``.
        aliases: other names of members in the literature.
        others: recipes of bodies that are no members, such as a full body made for alignment only.
        draw: makes the body of a number from 0 on. With it the family is endless: every
            ``<name>_<number>`` is a body, listed or not.
    """

    name: str
    full: str
    members: Mapping[str, Recipe]
    aliases: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Recipe] = field(default_factory=dict)
    draw: Callable[[int], mujoco.MjSpec] | None = None

    def recipe(self, name: str) -> Recipe | None:
        """How the body (or alias) ``name`` is made; None if the family has none of that name."""
        name = self.aliases.get(name, name)
        if name in self.members:
            return self.members[name]
        if name in self.others:
            return self.others[name]
        number = self._number(name)
        return None if number is None else functools.partial(self.draw, number)

    def canonical(self, name: str, also: tuple[str, ...] = ()) -> str:
        """The body's name for a name or alias.

        Args:
            name: what somebody asks for.
            also: further words that would have been understood, for the message.

        Raises:
            UserError: the family has no such body; with the nearest name.
        """
        if self.recipe(name) is None:
            raise UserError(f"family {self.name!r} has no body {name!r}; {self.hint(name, also)}")
        return self.aliases.get(name, name)

    def hint(self, name: str, also: tuple[str, ...] = ()) -> str:
        """What to write instead of ``name``, for a message."""
        if self.draw is None:
            return nearest(name, [*self.known(), *also])
        words = ", ".join([f"{self.name}_1 and so on without end", *self.others, *also])
        return f"choices: {self.name}_0, {words}"

    def known(self) -> list[str]:
        """Every listed name."""
        return [*self.members, *self.aliases, *self.others]

    def _number(self, name: str) -> int | None:
        # One number has one name: quadruped_07 would be quadruped_7 again.
        match = re.fullmatch(rf"{re.escape(self.name)}_(0|[1-9][0-9]{{0,17}})", name)
        return int(match[1]) if match and self.draw else None
