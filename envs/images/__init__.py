"""Pictures as sets of patches, of any Gymnasium environment that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import sensors
from ..sensors.senses import Senses
from ..task_set import build_parts, known_class
from .task import GymnasiumImage

__all__ = ["GymnasiumImage", "task_from_config"]


def task_from_config(config: Mapping[str, Any]) -> GymnasiumImage:
    """Rebuild a task from a saved node of ``conf/env``. Raises UserError; see `build_parts`."""
    known_class(config.get("_target_"), __name__, (GymnasiumImage,))
    return build_parts(GymnasiumImage, config, {"senses": (Senses, sensors.__name__)})
