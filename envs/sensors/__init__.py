"""Tasks read by scalar sensors, each of which is a token, and what may be done to these senses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..task_set import build_parts, known_class
from .cartpole_swingup import CartPoleSwingUp
from .env import SensorEnv
from .gymnasium_task import GymnasiumTask
from .senses import Senses
from .source import Source
from .task import SensorTask

__all__ = [
    "CartPoleSwingUp",
    "GymnasiumTask",
    "SensorTask",
    "SensorEnv",
    "Senses",
    "Source",
    "task_from_config",
]

_TASKS = (CartPoleSwingUp, GymnasiumTask)


def task_from_config(config: Mapping[str, Any]) -> SensorTask:
    """Rebuild a task from a saved node of ``conf/env``. Raises UserError; see `build_parts`."""
    kind = known_class(config.get("_target_"), __name__, _TASKS)
    return build_parts(kind, config, {"senses": (Senses, __name__)})
