"""Pictures of bodies without a display, through EGL or OSMesa, whichever works."""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import logging
import os
import re
import subprocess
import sys
from contextlib import closing

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context

from ...errors import UserError
from ..bodies.model import BALL, FREE, HINGE, placed_bounds
from ..bodies.morphology import Morphology
from ..env import LocomotionEnv

DISTANCE = 4.2  # of the camera of videos, in radii of the body: Gymnasium's cheetah is seen from 3.5 m
SHOWN_GROUPS, SHOWN_SHARE = 3, 0.5
"""MuJoCo's own choice of groups of geoms, the first three; a limb of which they hold less than this share of
its size is drawn by its other geoms."""

MARGIN = 1.12  # how much wider than the body a portrait is

# It tells everyone who draws that an optional package, which we do not use, is missing.
logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.WARNING)

_PROBE = (
    "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>'); "
    "r = mujoco.Renderer(m, 8, 8); r.update_scene(mujoco.MjData(m)); r.render()"
)


@functools.cache
def find_backend() -> str:
    """Makes MuJoCo draw through a backend that needs no display (or the user's choice), and returns its name.

    Raises:
        UserError: where none draws; it says what to install.
    """
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    for backend in [chosen] if chosen else ["egl", "osmesa"]:
        # In a process of its own, since a backend that fails cannot be changed afterwards.
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
    """Draws environments from the side, following the body at a distance that fits its size.

    The camera keeps its height as long as the body stays near it, so that hops and falls are seen.

    Args:
        env: the environment.
        width, height: of the pictures, in pixels.
        shadows: whether they are drawn; without, a picture takes a third of the time.

    Raises:
        UserError: no backend draws on this machine.
    """

    def __init__(self, env: LocomotionEnv, width: int = 480, height: int = 320, shadows: bool = True) -> None:
        find_backend()
        self.env, self.width, self.height, self.shadows = env, width, height, shadows
        self._renderers: dict[int, mujoco.Renderer] = {}

    def picture(self, row: int) -> np.ndarray:
        """(height, width, 3) uint8."""
        model, data, root = self.env.simulated(row)
        number = int(self.env.body_of_row[row])
        body = self.env.bodies[number]
        if number not in self._renderers:
            self._renderers[number] = _make_renderer(body, self.width, self.height, model)
        renderer = self._renderers[number]
        renderer.scene.flags[int(mujoco.mjtRndFlag.mjRND_SHADOW)] = self.shadows
        renderer.model.geom_size[:] = model.geom_size  # lengths and steps vary from episode to episode
        radius = _usual_radius(body)
        camera = _camera(90, -12, data.xpos[root], DISTANCE * radius)
        usual = body.ground + max(0.36 * radius, 0.6 * body.standing_height)
        # Followed upwards and downwards only where it would leave the picture: swimmers, drones, cliffs.
        away = float(data.xpos[root, 2]) - usual
        camera.lookat[2] = usual + np.sign(away) * max(0.0, abs(away) - 1.2 * radius)
        return _draw(renderer, data, camera)

    def close(self) -> None:
        """Release the drawing contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers = {}


def portrait(body: Morphology, width: int = 640, height: int = 480) -> np.ndarray:
    """(height, width, 3) uint8: the body in its start pose, as large as the picture holds.

    Raises:
        UserError: no backend draws on this machine.
    """
    find_backend()
    data, (low, high) = body.placed(body.initial_qpos), body_bounds(body)
    # What moves in a level plane is seen from above, in an upright one from the side.
    if _moves_about(body, 2):
        azimuth, elevation = 90, -55
    elif _moves_about(body, 1) or high[1] - low[1] < 0.2 * max(high[0] - low[0], high[2] - low[2]):
        azimuth, elevation = 90, -10
    else:
        azimuth, elevation = 125, -18
    camera = _camera(azimuth, elevation, (low + high) / 2)
    camera.distance = _fitting_distance(body.model, camera, _seen_boxes(body), width / height)
    with closing(_make_renderer(body, width, height)) as renderer:
        return _draw(renderer, data, camera)


def body_bounds(body: Morphology) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner (3,) m of what is seen of the limbs in the start pose."""
    boxes = _seen_boxes(body)
    return boxes[:, 0].min(0), boxes[:, 1].max(0)


def _seen_boxes(body: Morphology) -> np.ndarray:
    """(K, 2, 3) m: lower and upper corner of each geom that is seen, and the origin of each body."""
    model, data = body.model, body.placed(body.initial_qpos)
    geoms = np.flatnonzero(np.isin(model.geom_bodyid, body.parts))
    seen = geoms[_shown(body)[geoms]]
    places = data.xpos[body.parts]  # a body may have no geom at all
    corners = placed_bounds(model, data, seen if len(seen) else geoms)
    return np.concatenate([corners, np.stack([places, places], 1)])


def _usual_radius(body: Morphology) -> float:
    """Half the diagonal of the body's bounds, m; of the family's full body, so that members compare."""
    full = body.full_body or body
    radius = _diagonal(_seen_boxes(full)) / 2
    if not full.can_travel:
        radius = max(radius, 0.7 * max(full.limb_reach))  # a folded arm unfolds
    return max(radius, 1e-6)


def _moves_about(body: Morphology, axis: int) -> bool:
    """Whether all joints that turn do so about one axis of the world, 1 (y) or 2 (the vertical)."""
    model, data = body.model, body.placed(body.initial_qpos)
    own = np.isin(model.jnt_bodyid, body.parts)
    kinds, axes = model.jnt_type[own], data.xaxis[own]
    if np.isin(kinds, [FREE, BALL]).any():
        return False
    hinges = kinds == HINGE
    return bool(hinges.any() and (np.abs(axes[hinges, axis]) > 0.99).all())


def _shown(body: Morphology) -> np.ndarray:
    """(ngeom,) bool: the limbs' geoms in the groups that MuJoCo shows; of a limb that they leave out, all."""
    model, data = body.model, body.placed(body.initial_qpos)
    usual = (model.geom_group < SHOWN_GROUPS) & (_alpha(model) > 0)
    drawn = np.zeros(model.ngeom, bool)
    for limb in body.limbs:
        geoms = np.flatnonzero(np.isin(model.geom_bodyid, limb.bodies))
        shown = geoms[usual[geoms]]
        sizes = [_diagonal(placed_bounds(model, data, part)) for part in (shown, geoms[~usual[geoms]])]
        drawn[geoms if sizes[0] < SHOWN_SHARE * sizes[1] and not model.nskin else shown] = True
    return drawn


def _alpha(model: mujoco.MjModel) -> np.ndarray:
    """(ngeom,) opacity."""
    of_material = model.mat_rgba[model.geom_matid, 3] if model.nmat else np.ones(model.ngeom)
    return np.where((model.geom_matid >= 0), of_material, model.geom_rgba[:, 3])


def _diagonal(boxes: np.ndarray) -> float:
    """Of what holds all boxes (K, 2, 3), low and high, m; 0 of none."""
    return float(np.linalg.norm(boxes[:, 1].max(0) - boxes[:, 0].min(0))) if len(boxes) else 0.0


def _make_renderer(
    body: Morphology, width: int, height: int, model: mujoco.MjModel | None = None
) -> mujoco.Renderer:
    model = copy.copy(body.model if model is None else model)  # ours to give a buffer as large as the picture
    shown = np.flatnonzero(_shown(body))
    model.geom_group[shown] = np.minimum(model.geom_group[shown], SHOWN_GROUPS - 1)
    unseen = shown[_alpha(model)[shown] == 0]
    model.geom_matid[unseen], model.geom_rgba[unseen] = -1, (0.6, 0.6, 0.6, 1)
    buffer = model.vis.global_
    buffer.offwidth, buffer.offheight = max(buffer.offwidth, width), max(buffer.offheight, height)
    # What is drawn begins and ends at multiples of the extent: here the body's, however large the scene is.
    scale = 4 * _usual_radius(body) / model.stat.extent
    if scale < 1:
        model.vis.map.znear *= scale
    if model.nlight == 0:
        model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.4, 0.6
    renderer = mujoco.Renderer(model, height, width)
    renderer.scene.flags[int(mujoco.mjtRndFlag.mjRND_REFLECTION)] = 0  # five times faster
    return renderer


def _draw(renderer: mujoco.Renderer, data: mujoco.MjData, camera: mujoco.MjvCamera) -> np.ndarray:
    options = mujoco.MjvOption()
    options.geomgroup[:] = [1] * SHOWN_GROUPS + [0] * (6 - SHOWN_GROUPS)
    renderer.update_scene(data, camera, options)
    return renderer.render()


def _camera(azimuth: float, elevation: float, at: np.ndarray, distance: float = 1.0) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type = int(mujoco.mjtCamera.mjCAMERA_FREE)
    camera.azimuth, camera.elevation, camera.lookat[:], camera.distance = azimuth, elevation, at, distance
    return camera


def _fitting_distance(
    model: mujoco.MjModel, camera: mujoco.MjvCamera, boxes: np.ndarray, aspect: float
) -> float:
    """Distance (m) from which all corners of ``boxes`` (K, 2, 3), low and high, are in the picture."""
    turn, rise = np.deg2rad(camera.azimuth), np.deg2rad(camera.elevation)
    forward = np.array([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)])
    right = np.array([np.sin(turn), -np.cos(turn), 0.0])
    up = np.cross(right, forward)
    chosen = np.array(list(itertools.product((0, 1), repeat=3)))  # (8, 3): low or high of each axis
    corners = boxes[:, chosen, np.arange(3)] - camera.lookat  # (K, 8, 3)
    slope = np.tan(np.deg2rad(model.vis.global_.fovy) / 2) / MARGIN
    needed = [
        np.abs(corners @ right) / (slope * aspect) - corners @ forward,
        np.abs(corners @ up) / slope - corners @ forward,
    ]
    return max(float(np.max(needed)), 1e-6)


def file_name(body: str) -> str:
    """The name of a body as that of a file: the bodies of a folder may be called after their folders."""
    name = re.sub(r"[^\w.+-]+", "_", body).strip("._")
    return "sheet_" if name == "sheet" else name or "body"
