"""What ``gymnasium.make_vec("somite/Locomotion-v0", ...)`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .bodies.morphology import Morphology
from .vector_env import LocomotionVectorEnv


def make_vec(
    num_envs: int = 1,
    body: str | Morphology = "cheetah_7_full",
    bodies: Sequence[str | Morphology] | None = None,
    **options: Any,
) -> LocomotionVectorEnv:
    """``num_envs`` rows of one body, or spread over several; options as for the class."""
    return LocomotionVectorEnv([body] if bodies is None else bodies, num_envs, **options)
