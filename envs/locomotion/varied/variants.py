"""Compiled variants of a body: other lengths of limbs, other worlds around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from ...errors import UserError
from ..bodies.morphology import Morphology
from .variation import BodyVariation
from .world import Terrain, World

_ALONG = (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_CYLINDER))
_ALL = (int(mujoco.mjtGeom.mjGEOM_BOX), int(mujoco.mjtGeom.mjGEOM_ELLIPSOID))
_LOOPS = (int(mujoco.mjtEq.mjEQ_CONNECT), int(mujoco.mjtEq.mjEQ_WELD))


@dataclass(frozen=True, eq=False)
class Variant:
    """A body as it is simulated in an episode: ``lengths`` (N,) factors of its limbs, and its terrain.

    It is kept by the environment that compiled it and by nobody else: a model has some hundred kilobytes, and
    every validation compiles its own.
    """

    body: Morphology
    lengths: np.ndarray
    terrain: Terrain | None = None


def compile_variants(
    body: Morphology,
    variation: BodyVariation | None,
    world: World | None,
    direction: Sequence[float] | str,
) -> list[Variant]:
    """Every variant that a body's episodes are drawn from; the body itself if nothing needs compiling.

    Raises:
        UserError: a body that cannot be edited so.
    """
    lengths = variation.draw_lengths(body.n_limbs) if variation else None
    terrains = world.draw_terrains(direction) if world else None
    if lengths is None and terrains is None:
        return [Variant(body, np.ones(body.n_limbs))]
    limbs: Sequence = [None] if lengths is None else lengths
    grounds: Sequence = terrains or [None]
    count = max(len(limbs), len(grounds))
    return [_compile(body, limbs[i % len(limbs)], grounds[i % len(grounds)]) for i in range(count)]


def _compile(body: Morphology, lengths: np.ndarray | None, terrain: Terrain | None) -> Variant:
    if body.spec is None:
        wanted_for = "env.variation.length" if terrain is None else "env.world (steps, patches)"
        raise UserError(
            f"{wanted_for} needs the source of {body.name!r}, which was given as a compiled model only; "
            "give Morphology(spec=...) too"
        )
    spec = body.spec()
    if lengths is not None:
        lengthen(spec, body, lengths)
    if terrain is not None:
        terrain.add_to(spec, body)
    try:
        model = spec.compile()
    except ValueError as error:
        raise UserError(f"a variant of {body.name!r} does not compile: {error}") from error
    made = _standing_on_ground(body, model)
    return Variant(made, np.ones(body.n_limbs) if lengths is None else lengths, terrain)


def lengthen(spec: mujoco.MjSpec, body: Morphology, factors: np.ndarray) -> None:
    """Lengthen limbs in place.

    Places and lengths in a limb's frame are multiplied by its factor. Capsules and cylinders keep their
    radius, spheres and meshes their size; boxes and ellipsoids grow in all directions. A limb of given
    inertia gets heavier in proportion, as a rod would; others get the mass of their geoms. Ranges of
    slides, tendons and keyframes stay.

    Args:
        spec: compiles to the model of ``body``.
        body: what is lengthened.
        factors: (N,) of its limbs.

    Raises:
        UserError: limbs that form a closed loop.
    """
    if any(int(equality.type) in _LOOPS for equality in spec.equalities):
        raise UserError(f"{body.name!r} has closed loops (connect or weld); its lengths cannot vary")
    model = spec.compile()  # numbers the spec's bodies
    factor_of = {part: f for limb, f in zip(body.limbs, factors, strict=True) for part in limb.bodies}
    driven = {slot.joint for limb in body.limbs for slot in limb.slots}
    roots = {limb.bodies[0] for limb in body.limbs if limb.parent < 0}
    for part in spec.bodies[1:]:
        number = int(part.id)
        above = factor_of.get(int(model.body_parentid[number]))
        if above is not None and number not in roots:
            part.pos = part.pos * above
        factor = factor_of.get(number)
        if factor is None:
            continue
        for joint in part.joints:
            if number not in roots or int(joint.id) in driven:  # the others place the body in the world
                joint.pos = joint.pos * factor
        for shape in (*part.geoms, *part.sites):
            _stretch(shape, factor)
        if part.explicitinertial:
            _stretch_inertia(part, model, number, factor)


def _stretch(shape: mujoco.MjsGeom | mujoco.MjsSite, factor: float) -> None:
    if not np.isnan(shape.fromto[0]):
        shape.fromto = shape.fromto * factor
        return
    shape.pos = shape.pos * factor
    if int(shape.type) in _ALONG:
        shape.size = shape.size * [1, factor, 1]
    elif int(shape.type) in _ALL:
        shape.size = shape.size * factor


def _stretch_inertia(part: mujoco.MjsBody, model: mujoco.MjModel, number: int, factor: float) -> None:
    """Mass in proportion; the second moment along the longest principal axis with the length, too."""
    inertia = model.body_inertia[number]
    moments = inertia.sum() / 2 - inertia  # of the mass along each principal axis
    longest = int(np.argmax(moments))
    moments = moments * factor
    moments[longest] *= factor**2
    part.fullinertia = [np.nan] * 6
    part.mass = model.body_mass[number] * factor
    part.ipos = model.body_ipos[number] * factor
    part.iquat = model.body_iquat[number]
    part.inertia = moments.sum() - moments


def _standing_on_ground(body: Morphology, model: mujoco.MjModel) -> Morphology:
    """The edited ``model`` in the start pose of ``body``, its lowest point as high above the ground."""
    home = body.initial_qpos.copy()
    names = ("full_body", "home_controls", "home_activation", "ground", "floats")
    options = {name: getattr(body, name) for name in names}
    lying = Morphology(body.name, model, home=home, **options)
    lying.raise_root(home, body.lowest_point(body.initial_qpos) - lying.lowest_point(home))
    return Morphology(body.name, model, home=home, **options)
