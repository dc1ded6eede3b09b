"""An episode of any agent as a video, where there are pictures of its task."""

from __future__ import annotations

import logging
from pathlib import Path

from ...envs.errors import UserError
from ...envs.task_set import TaskSet
from ..agent import Agent
from .patch_video import film_sensors
from .video import film

log = logging.getLogger(__name__)


def to_film(task: TaskSet) -> TaskSet | None:
    """The task as `film_episode` wants it; None, and it is told why, where there can be no video of it."""
    try:
        return task if task.kind == "limbs" else task.for_filming()
    except UserError as error:
        log.warning("no video: %s", error)
        return None


def film_episode(agent: Agent, task: TaskSet, body: str, path: Path, seed: int) -> bool:
    """Write an mp4 of one episode and tell so, or tell why there is none.

    Args:
        agent: acts deterministically.
        task: made by `to_film`.
        body: name, of limbs.
        path: of the file; its folder is made.
        seed: of the start, as in `run_episodes`.

    Returns:
        Whether there is one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if task.kind == "limbs":
            film(agent, task, body, path, seed)
        else:
            film_sensors(agent, task, path, seed)
    except UserError as error:  # nothing here draws: the numbers stand without pictures
        log.warning("no video: %s", error)
        return False
    log.info("video: %s", path)
    return True
