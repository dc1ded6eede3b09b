"""Pictures of bodies without a display, through EGL or OSMesa, whichever works."""

from __future__ import annotations

import copy
import functools
import importlib
import os
import subprocess
import sys

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context

from ..errors import UserError
from .vector_env import LocomotionVectorEnv

_PROBE = (
    "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>'); "
    "r = mujoco.Renderer(m, 8, 8); r.update_scene(mujoco.MjData(m)); r.render()"
)


@functools.cache
def find_backend() -> str:
    """Makes MuJoCo draw through a backend that needs no display, and returns its name.

    A value that the user has set is kept. Otherwise EGL and then OSMesa are tried, each in a process of
    its own, since a backend that fails cannot be changed afterwards.

    Raises:
        UserError: where none draws; it says what to install.
    """
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    for backend in [chosen] if chosen else ["egl", "osmesa"]:
        environment = {**os.environ, "MUJOCO_GL": backend}
        probe = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True)
        if probe.returncode == 0:
            # MuJoCo chooses when it is imported, which has happened; its renderer looks the choice up here.
            module = backend if backend in ("egl", "osmesa", "cgl") else "glfw"
            gl_context.GLContext = importlib.import_module(f"mujoco.{module}").GLContext
            return backend
    tried = f"MUJOCO_GL={chosen}" if chosen else "EGL and OSMesa"
    raise UserError(
        f"cannot draw without a display: {tried} failed. Install one of them, for example on Debian "
        "`apt-get install libegl1 libgl1` (EGL) or `apt-get install libosmesa6` (OSMesa)"
    )


class BodyRenderer:
    """Draws rows of a vector environment from the side, following the body.

    Args:
        env: the environment.
        width, height: of the pictures, in pixels.

    Raises:
        UserError: no backend draws on this machine.
    """

    def __init__(self, env: LocomotionVectorEnv, width: int = 480, height: int = 320) -> None:
        find_backend()
        self.env, self.width, self.height = env, width, height
        self._renderers: dict[int, mujoco.Renderer] = {}
        self._options = mujoco.MjvOption()

    def picture(self, row: int) -> np.ndarray:
        """(height, width, 3) uint8."""
        model, data, root = self.env.simulated(row)
        body = int(self.env.body_of_row[row])
        if body not in self._renderers:
            model = copy.copy(model)  # ours to give a buffer as large as the picture
            buffer = model.vis.global_
            buffer.offwidth = max(buffer.offwidth, self.width)
            buffer.offheight = max(buffer.offheight, self.height)
            renderer = mujoco.Renderer(model, self.height, self.width)
            renderer.scene.flags[int(mujoco.mjtRndFlag.mjRND_REFLECTION)] = 0  # five times faster
            self._renderers[body] = renderer
        renderer = self._renderers[body]
        camera = mujoco.MjvCamera()
        camera.type = int(mujoco.mjtCamera.mjCAMERA_FREE)
        camera.lookat[:] = data.xpos[root]
        camera.lookat[2] = max(0.3, 0.6 * self.env.bodies[body].standing_height)
        camera.distance, camera.azimuth, camera.elevation = 3.5, 90, -12
        renderer.update_scene(data, camera, self._options)
        return renderer.render()

    def close(self) -> None:
        """Release the drawing contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers = {}
