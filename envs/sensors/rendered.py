"""Gymnasium tasks as their own environments draw them, by ``render``."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np

from ..errors import UserError
from ..numbers import is_number
from ..user_modules import with_place
from .gymnasium_source import make_env
from .task import SensorTask

MODE = "rgb_array"
"""Of ``render``: it returns what it draws."""

FRAMES_PER_SECOND = 30
"""Of environments that say nothing of it (``metadata["render_fps"]``)."""


class RenderedTask(SensorTask):
    """A task of one Gymnasium environment, which is filmed by its own ``render``.

    Attributes:
        kwargs: arguments of the environment's own.
        frames_per_second: of its videos, where it is made by `for_filming`.
    """

    kwargs: Mapping[str, Any]
    frames_per_second: float = FRAMES_PER_SECOND

    def for_filming(self) -> RenderedTask:
        """The same task, its rows stepped by Gymnasium, and made to be drawn; see `picture_of`.

        Raises:
            UserError: it draws nothing, or cannot here; tried out by one picture.
        """
        env = make_env(self.name, self.kwargs)
        metadata = env.metadata or {}
        env.close()
        modes = metadata.get("render_modes") or ()
        if MODE not in modes:
            offered = f"only {', '.join(map(str, modes))}" if modes else "no render mode"
            raise UserError(f"{self.name} cannot be filmed: it offers {offered}, and not {MODE}")
        other = copy.copy(self)
        other.kwargs = {**self.kwargs, "render_mode": MODE}
        other.batched, other.renders = False, True
        rate = metadata.get("render_fps")
        other.frames_per_second = float(rate) if is_number(rate) and rate > 0 else FRAMES_PER_SECOND
        env = make_env(other.name, other.kwargs)
        try:
            env.reset(seed=0)
            picture_of(env)
        finally:
            env.close()
        return other


def picture_of(env: gymnasium.Env) -> np.ndarray:
    """(H, W, 3) uint8, what an environment draws of its present state.

    Raises:
        UserError: it cannot draw on this machine, or gives no picture.
    """
    try:
        with _drawing(env):
            picture = env.render()
    except UserError:
        raise
    except Exception as error:  # whatever somebody else's drawing raises: numbers stand without pictures
        raise UserError(f"{env.spec.id} cannot be drawn here: {with_place(error)}") from error
    picture = np.asarray(picture[-1] if isinstance(picture, list) and picture else picture)
    if picture.ndim != 3 or picture.shape[2] not in (3, 4) or picture.dtype != np.uint8 or not picture.size:
        raise UserError(
            f"{env.spec.id} cannot be filmed: its render() gives {picture.dtype} of shape {picture.shape}, "
            "expected uint8 of shape (height, width, 3)"
        )
    return picture[..., :3]


@contextlib.contextmanager
def _drawing(env: gymnasium.Env) -> Iterator[None]:
    """Within it, libraries that open windows do without a display.

    Gymnasium's drawing of MuJoCo looks for a display first, and breaks where there is none; it is told the
    backend that works, as long as nobody else has chosen one.
    """
    wanted = {}
    mujoco = sys.modules.get("mujoco")
    if mujoco and isinstance(getattr(env.unwrapped, "model", None), mujoco.MjModel):
        from ..locomotion.pictures.rendering import find_backend

        wanted["MUJOCO_GL"] = find_backend()
    elif sys.platform == "linux" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        wanted["SDL_VIDEODRIVER"] = "dummy"  # of pygame
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if not before[name]})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
