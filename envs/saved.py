"""Task sets from the configuration that a policy was saved with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import car_racing, images, locomotion, sensors
from .task_set import TaskSet


def task_set_of(config: Mapping[str, Any]) -> TaskSet:
    """Rebuild what ``conf/env`` described when the policy was trained.

    Nothing is looked up by the names in it (a policy may come from a stranger): ``_target_`` must be one
    of the classes that are known here.

    Raises:
        UserError: another target, an unknown key, or a value that cannot be meant.
    """
    target = str(config.get("_target_"))
    for package in (sensors, car_racing, images):
        if target.startswith(package.__name__ + "."):
            return package.task_from_config(config)
    return locomotion.BodySet.from_config(config)
