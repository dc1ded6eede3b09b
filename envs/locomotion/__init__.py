"""Bodies with limbs that learn to move: morphologies, their limb observation, task and simulation."""

from . import mujoco_import  # noqa: F401
from .body_set import BodySet, RobotSet
from .damage import Damage
from .env import LocomotionEnv
from .families import FAMILIES, build, get_split
from .features import LIMB_SPEC
from .morphology import Morphology
from .task import LocomotionTask
from .variation import BodyVariation
from .vector_env import LocomotionVectorEnv
from .world import World

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
