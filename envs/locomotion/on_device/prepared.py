"""Varied bodies that are drawn before a run, since models are edited and compiled on the host."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from ..bodies.morphology import Morphology
from ..controls import Actuated
from ..observation import LimbLayout
from ..task import LocomotionTask
from ..varied.conditions import Varied
from ..varied.variation import BodyVariation
from ..varied.world import World
from ..vector_env import LocomotionVectorEnv

VARIED = ("limb_descriptors", "joint_descriptors", "reference", "middle", "half_range")
"""Of a layout, what differs between the variants of a body."""

_SEED = 8_110_001


@dataclass(frozen=True)
class Prepared:
    """K variants of a body, each as it would be simulated in an episode.

    Attributes:
        models: K compiled models.
        bodies: K morphologies: which standing height, tip and controls they have.
        starts: (K, nq) start positions.
        layout: of K rows with the limbs packed together; None: the body's own.
    """

    models: list[mujoco.MjModel]
    bodies: list[Morphology]
    starts: np.ndarray
    layout: LimbLayout | None = None

    def controls(self) -> Actuated:
        """What actions mean to each of the K."""
        found = Actuated(self.bodies[0], len(self.bodies))
        for row, body in enumerate(self.bodies):
            found.set(row, body)
        return found


def prepare(
    body: Morphology,
    task: LocomotionTask,
    frame_skip: int | None,
    variation: BodyVariation | None,
    world: World | None,
    count: int,
) -> Prepared:
    """Draw variants of a body; the body alone where nothing varies.

    They are drawn as `LocomotionVectorEnv` draws them for its episodes.

    Args:
        body: the body.
        task: what it does.
        frame_skip: substeps of a step.
        variation: what varies of the body.
        world: what varies around it.
        count: K.
    """
    if Varied.read(variation, None, world) is None:
        return Prepared([body.model], [body], body.initial_qpos[None])
    env = LocomotionVectorEnv(
        [body], count, task, frame_skip=frame_skip, threads=1, variation=variation, world=world
    )
    env.reset(seed=_SEED)
    block = env._blocks[0]
    conditions = block.conditions
    prepared = Prepared(
        list(conditions.models.models),
        [conditions.body(row) for row in range(count)],
        block.starts.copy(),
        env._readings.layout,
    )
    env.close()
    return prepared
