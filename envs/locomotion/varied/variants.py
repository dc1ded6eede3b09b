"""Compiled variants of a body: other lengths of limbs, other worlds around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...errors import UserError
from ..bodies.morphology import Morphology
from ..observation import LimbLayout, make_layout
from .lengthening import fresh_spec, lengthen, standing_on_ground
from .variation import BodyVariation
from .world import Terrain, World


@dataclass(frozen=True, eq=False)
class Variant:
    """A body as it is simulated in an episode: ``lengths`` (N,) factors of its limbs, and its terrain.

    It is kept by the environment that compiled it and by nobody else: a model has some hundred kilobytes, and
    every validation compiles its own.
    """

    body: Morphology
    lengths: np.ndarray
    terrain: Terrain | None = None
    _layouts: dict[tuple, LimbLayout] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _ = self.body.height_unit, self.body.tip  # computed here and not at the start of an episode

    def layout(self, slots: tuple[int, ...], n_limbs: int, n_joints: int) -> LimbLayout:
        """Its row of a layout."""
        key = slots, n_limbs, n_joints
        if key not in self._layouts:
            self._layouts[key] = make_layout([(self.body, slots)], n_limbs, n_joints)
        return self._layouts[key]


def compile_variants(
    body: Morphology,
    variation: BodyVariation | None,
    world: World | None,
    direction: Sequence[float] | str,
) -> list[Variant]:
    """Every variant that a body's episodes are drawn from; the body itself if nothing needs compiling.

    Args:
        body: the body.
        variation: gives lengths.
        world: gives steps and patches.
        direction: of the task.

    Raises:
        UserError: a body that cannot be edited so.
    """
    lengths = variation.draw_lengths(body.n_limbs) if variation else np.ones((1, body.n_limbs))
    varies = variation is not None and bool(variation.intervals("length"))
    terrains = world.draw_terrains(direction) if world else None
    if not varies and terrains is None:
        return [Variant(body, lengths[0])]
    limbs: Sequence = lengths if varies else [None]
    grounds: Sequence = terrains or [None]
    count = max(len(limbs), len(grounds))
    return [_compile(body, limbs[i % len(limbs)], grounds[i % len(grounds)]) for i in range(count)]


def _compile(body: Morphology, lengths: np.ndarray | None, terrain: Terrain | None) -> Variant:
    spec = fresh_spec(body, "env.variation.length" if terrain is None else "env.world (steps, patches)")
    if lengths is not None:
        lengthen(spec, body, lengths)
    if terrain is not None:
        terrain.add_to(spec, body)
    try:
        model = spec.compile()
    except ValueError as error:
        raise UserError(f"a variant of {body.name!r} does not compile: {error}") from error
    made = standing_on_ground(body, model)
    return Variant(made, np.ones(body.n_limbs) if lengths is None else lengths, terrain)
