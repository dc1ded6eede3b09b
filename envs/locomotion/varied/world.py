"""What the world does to a body: slopes, steps, patches of other friction, pushes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...numbers import NULL, POSITIVE, SEED, between, checked, real, whole
from ...snapshots import Kept
from ..bodies.model import touching_geoms
from ..bodies.morphology import Morphology
from .variation import FACTORS, VARIANTS, intervals_of, log_uniform

MAT = 0.01
"""Thickness (m) of a patch of other friction: what stands on it does not touch the ground below."""

_HALF_WIDTH, _DEPTH = 50.0, 0.5


@checked("env.world")
@dataclass(frozen=True)
class World:
    """The ground and what happens on it, drawn for every episode; null: not there.

    **Slope.** Gravity is tilted and the ground stays level, so that heights, uprightness and termination
    are measured against the ground and not against the vertical. No feature tells the slope.

    **Steps and patches** are strips across the task's direction, one behind the other, from ``start`` on,
    with ground before and behind them. ``height`` in the observation is that above the strip below.

    **Pushes** act on the root for one step, in a drawn horizontal direction.

    Args:
        slope: [low, high] degrees, uphill in the task's direction.
        step_height: [low, high] m of the strips.
        friction: [low, high] factors on the friction of the strips. It then holds for all that touches
            them. Without steps they are mats of 1 cm.
        strip_length: [low, high] m.
        strips: how many.
        start: m from the world's origin to the first.
        push: [low, high] m/s by which a push alone would change the speed of the whole body.
        push_interval: [low, high] s between pushes.
        variants: compiled worlds that strips are drawn from.
        seed: of these.

    Raises:
        UserError: a range that is none.
    """

    slope: Annotated[Any, between(real(-90, 90, above=True, below=True)) | NULL] = None
    step_height: Annotated[Any, between(real(0, 100)) | NULL] = None
    friction: Annotated[Any, FACTORS] = None
    strip_length: Annotated[Any, between(real(0, 1000, above=True))] = (0.5, 1.5)
    strips: Annotated[int, whole(1, 1000)] = 16
    start: Annotated[float, real()] = 2.0
    push: Annotated[Any, between(real(0, 1000)) | NULL] = None
    push_interval: Annotated[Any, between(POSITIVE)] = (1.0, 3.0)
    variants: Annotated[int, VARIANTS] = 16
    seed: Annotated[int, SEED] = 0

    @property
    def has_strips(self) -> bool:
        """Whether there are steps or patches."""
        return self.step_height is not None or self.friction is not None

    @property
    def active(self) -> bool:
        """Whether there is anything but level ground."""
        return self.has_strips or self.slope is not None or self.push is not None

    def draw_terrains(self, direction: Sequence[float] | str) -> list[Terrain] | None:
        """The compiled worlds' strips, None where there are none.

        Raises:
            UserError: strips across a direction that is drawn for every episode.
        """
        if not self.has_strips:
            return None
        if isinstance(direction, str):
            raise UserError(f"steps and patches lie across the task's direction; give one, not {direction!r}")
        rng, across = np.random.default_rng(self.seed), np.asarray(direction, float)
        low, high = self.step_height or (MAT, MAT)
        factors, terrains = intervals_of(self.friction), []
        for _ in range(self.variants):
            lengths = rng.uniform(*self.strip_length, self.strips)
            uniform = rng.random((2, self.strips))
            edges, heights = self.start + np.append(0, np.cumsum(lengths)), low + (high - low) * uniform[0]
            frictions = log_uniform(factors, uniform[1]) if factors else None
            terrains.append(Terrain(across / np.hypot(*across), edges, heights, frictions))
        return terrains

    def draw_gravity(self, rng: np.random.Generator, size: float, direction: np.ndarray) -> np.ndarray:
        """(3,) gravity of an episode, of the given size, on a slope that rises in ``direction`` (2,)."""
        angle = np.radians(rng.uniform(*(self.slope or (0.0, 0.0))))
        along = -np.sin(angle) * direction
        return size * np.array([along[0], along[1], -np.cos(angle)])


@dataclass(frozen=True)
class Terrain:
    """Strips across ``direction`` (2,): ``edges`` (k + 1,) and ``heights`` (k,) in m above the ground.

    ``frictions`` (k,) are factors, None where the strips are like the ground.
    """

    direction: np.ndarray
    edges: np.ndarray
    heights: np.ndarray
    frictions: np.ndarray | None

    def add_to(self, spec: mujoco.MjSpec, body: Morphology) -> None:
        """Put the strips on the ground of a spec as boxes.

        Raises:
            UserError: there is no ground.
        """
        model, touches = body.model, touching_geoms(body.model)
        planes = touches & (model.geom_bodyid == 0) & (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
        if not planes.any():
            raise UserError(f"{body.name!r} stands on no plane; steps and patches need one")
        ground = int(np.flatnonzero(planes)[0])
        limb_geoms = np.isin(model.geom_bodyid, body.parts) & touches
        touching = np.append(np.flatnonzero(limb_geoms), ground)
        friction = model.geom_friction[touching].max(0)
        turn = float(np.arctan2(self.direction[1], self.direction[0]))
        for index, height in enumerate(self.heights):
            near, far = self.edges[index : index + 2]
            place = (near + far) / 2 * self.direction
            box = spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[*place, body.ground + (height - _DEPTH) / 2],
                size=[(far - near) / 2, _HALF_WIDTH, (height + _DEPTH) / 2],
                quat=[np.cos(turn / 2), 0, 0, np.sin(turn / 2)],
                friction=model.geom_friction[ground],
                condim=int(model.geom_condim[ground]),
                contype=int(model.geom_contype[ground]),
                conaffinity=int(model.geom_conaffinity[ground]),
                margin=float(model.geom_margin[ground]),
                solref=model.geom_solref[ground],
                solimp=model.geom_solimp[ground],
                rgba=[0.55, 0.5, 0.45, 1] if index % 2 else [0.65, 0.6, 0.5, 1],
            )
            if self.frictions is not None:
                # Otherwise the larger friction of two that touch holds, and none could be slippery.
                box.priority = 1
                box.friction = friction * self.frictions[index]
                box.condim = int(model.geom_condim[touching].max())

    def heights_around(self) -> np.ndarray:
        """(k + 2,) heights of the ground before, on and behind the strips."""
        return np.concatenate(([0.0], self.heights, [0.0]))


class Ground(Kept):
    """Height of the ground below places, for ``count`` = B rows with a terrain each.

    All have ``terrain`` at first; those that are put later have as many strips, in the same direction.
    """

    kept = ("_edges", "_heights")

    def __init__(self, count: int, terrain: Terrain) -> None:
        self._direction = terrain.direction.tolist()
        self._edges = torch.from_numpy(terrain.edges)[:, None].repeat(1, count)  # (k + 1, B)
        self._heights = torch.from_numpy(terrain.heights_around())[:, None].repeat(1, count)  # (k + 2, B)

    def put(self, row: int, terrain: Terrain) -> None:
        """Give a row a terrain."""
        self._edges[:, row] = torch.from_numpy(terrain.edges)
        self._heights[:, row] = torch.from_numpy(terrain.heights_around())

    def below(self, places: Tensor) -> Tensor:
        """(N, B) m above the level ground, of (2, N, B) ``places``."""
        x, y = self._direction
        along = places[0] * x + places[1] * y
        strip = (along[:, None] >= self._edges).sum(1)
        return self._heights.gather(0, strip)


class Pushes(Kept):
    """When rows are pushed, and how: ``count`` of them, whose steps last ``dt`` seconds."""

    kept = ("_next",)  # random streams are the environment's

    def __init__(self, world: World, count: int, dt: float) -> None:
        self._world, self._dt = world, dt
        self._next = np.zeros(count, int)
        self._rngs: list[np.random.Generator | None] = [None] * count

    def start(self, row: int, rng: np.random.Generator) -> None:
        """A new episode of a row."""
        self._rngs[row], self._next[row] = rng, self._wait(rng)

    def _wait(self, rng: np.random.Generator) -> int:
        return max(1, round(rng.uniform(*self._world.push_interval) / self._dt))

    def due(self, ages: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Rows that are pushed in the step at these ``ages`` (n,), with the change of velocity (2,) m/s."""
        pushed = []
        for row in np.flatnonzero(self._next == ages):
            rng = self._rngs[row]
            speed, angle = rng.uniform(*self._world.push), rng.uniform(-np.pi, np.pi)
            pushed.append((int(row), speed * np.array([np.cos(angle), np.sin(angle)])))
            self._next[row] += self._wait(rng)
        return pushed
