"""An episode of any agent as a video, where there are pictures of its task."""

from __future__ import annotations

import logging
from pathlib import Path

from ..envs.errors import UserError
from ..envs.task_set import TaskSet
from .acting import Agent
from .patch_video import film_patches
from .video import film

log = logging.getLogger(__name__)


def film_episode(agent: Agent, task: TaskSet, body: str, path: Path, seed: int) -> bool:
    """Write an mp4 of one episode and tell so, or tell why there is none.

    Args:
        agent: acts deterministically.
        task: of limbs, sensors or patches.
        body: name, of limbs.
        path: of the file; its folder is made.
        seed: of the start, as in `run_episodes`.

    Returns:
        Whether there is one.
    """
    if task.kind == "sensors":
        log.warning("no video: there are pictures of bodies and of tasks with pictures only")
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    if task.kind == "patches":
        film_patches(agent, task, path, seed)
    else:
        try:
            film(agent, task, body, path, seed)
        except UserError as error:  # nothing here draws: the numbers stand without pictures
            log.warning("no video: %s", error)
            return False
    log.info("video: %s", path)
    return True
