"""Bodies with limbs that learn to move: morphologies, their limb observation, task and simulation."""

from . import mujoco_import  # noqa: F401
from .bodies.families import FAMILIES, build, get_split
from .bodies.morphology import Morphology
from .body_set import BodySet, RobotSet
from .env import LocomotionEnv
from .features import LIMB_SPEC
from .task import LocomotionTask
from .varied.damage import Damage
from .varied.variation import BodyVariation
from .varied.world import World
from .vector_env import LocomotionVectorEnv

__all__ = [
    "FAMILIES",
    "LIMB_SPEC",
    "BodySet",
    "BodyVariation",
    "Damage",
    "LocomotionEnv",
    "LocomotionTask",
    "LocomotionVectorEnv",
    "Morphology",
    "RobotSet",
    "World",
    "build",
    "get_split",
]
