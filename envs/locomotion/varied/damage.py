"""Damage in mid-episode: actuators that die and joints that lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np

from ...errors import UserError
from ...numbers import SHARE, between, checked, one_of, whole
from ...snapshots import Kept
from ..bodies.model import SCALAR
from ..bodies.morphology import Morphology

DEAD, LOCKED = 1, 2
"""What ``info["damage"]`` says of a joint row; 0: whole."""


@checked("env.damage")
@dataclass(frozen=True)
class Damage:
    """What breaks, and when. The policy is not told: its masks and descriptors stay.

    Args:
        probability: that an episode has damage.
        kind: ``actuator``: it gives no force any more; ``joint``: it locks at its present angle; ``any``.
        parts: how many break at once; fewer on a body that has no more.
        step: [first, last] step of the episode at which they break, the first one being 0.

    Raises:
        UserError: an invalid value.
    """

    probability: Annotated[float, SHARE] = 0.0
    kind: Annotated[str, one_of("actuator", "joint", "any")] = "any"
    parts: Annotated[int, whole(1, 1000)] = 1
    step: Annotated[Any, between(whole())] = (100, 500)

    @property
    def active(self) -> bool:
        """Whether anything can break."""
        return self.probability > 0


class Part(NamedTuple):
    """A joint row: ``name`` of its joint or remote actuator, index of its limb, and ``ways`` it can break.

    ``DEAD`` if it has an actuator, ``LOCKED`` if that moves a hinge or slide joint.
    """

    name: str
    limb: int
    ways: tuple[int, ...]


def parts_of(body: Morphology) -> tuple[Part, ...]:
    """The joint rows of all limbs of a body, in order."""
    model, parts = body.model, []
    for index, limb in enumerate(body.limbs):
        for slot in limb.slots:
            name = model.joint(slot.joint).name if slot.joint >= 0 else model.actuator(slot.actuator).name
            driven = slot.actuator >= 0
            can_lock = driven and slot.joint >= 0 and int(model.jnt_type[slot.joint]) in SCALAR
            ways = (DEAD,) * driven + (LOCKED,) * can_lock
            parts.append(Part(name or f"{limb.name}/{len(parts)}", index, ways))
    return tuple(parts)


class DamagePlan(Kept):
    """What will break in each of ``count`` = n rows of a body.

    Attributes:
        due: (n,) step of the episode at which each row breaks; -1: never.
        parts: of each row, (joint row among all limbs', ``DEAD`` or ``LOCKED``) of what breaks then.

    Raises:
        UserError: nothing can break in this way.
    """

    kept = ("due", "parts")

    def __init__(self, damage: Damage, body: Morphology, count: int) -> None:
        self._damage = damage
        asked = {"actuator": (DEAD,), "joint": (LOCKED,), "any": (DEAD, LOCKED)}[damage.kind]
        ways = [[way for way in part.ways if way in asked] for part in parts_of(body)]
        self._choices = [(index, own) for index, own in enumerate(ways) if own]
        if not self._choices:
            raise UserError(f"env.damage.kind={damage.kind}: {body.name!r} has no such part; try another")
        self.due = np.full(count, -1)
        self.parts: list[list[tuple[int, int]]] = [[] for _ in range(count)]

    def draw(self, row: int, rng: np.random.Generator) -> None:
        """What breaks in a row's next episode. Equally many numbers are drawn whether anything does."""
        damage = self._damage
        breaks, step = rng.random() < damage.probability, rng.integers(damage.step[0], damage.step[1] + 1)
        order, ways = rng.permutation(len(self._choices)), rng.random(len(self._choices))
        self.due[row] = step if breaks else -1
        hit = [self._choices[i] + (ways[i],) for i in order[: damage.parts]]
        self.parts[row] = [(index, kinds[int(way * len(kinds))]) for index, kinds, way in hit]
