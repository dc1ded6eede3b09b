"""Bodies with limbs that learn to move: morphologies, their limb observation, task and simulation."""

import os

from ..errors import UserError

try:
    import mujoco  # noqa: F401
except Exception as error:
    # MuJoCo loads the backend that MUJOCO_GL names as it is imported, also where nothing is drawn.
    if not os.environ.get("MUJOCO_GL"):
        raise
    raise UserError(
        f"MuJoCo does not load with MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}). Unset it, and what works "
        "is found, or set it to egl or osmesa; on Debian these need `apt-get install libegl1 libgl1` (EGL) "
        "or `apt-get install libosmesa6` (OSMesa)"
    ) from error

from .bodies.families import FAMILIES, build, get_split
from .bodies.morphology import Morphology
from .body_set import BodySet, FamilySet, RobotSet
from .env import LocomotionEnv
from .gym import make_vec
from .limb_spec import LIMB_SPEC
from .task import LocomotionTask
from .varied.damage import Damage
from .varied.variation import BodyVariation
from .varied.world import World

__all__ = [
    "FAMILIES",
    "LIMB_SPEC",
    "BodySet",
    "BodyVariation",
    "Damage",
    "FamilySet",
    "LocomotionEnv",
    "LocomotionTask",
    "Morphology",
    "RobotSet",
    "World",
    "build",
    "get_split",
    "make_vec",
]
