"""A session in MuJoCo's own viewer."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading

import mujoco
import numpy as np

from ...envs.errors import UserError
from .session import KEYS, Bars, Session, Viewer

_SPECIAL = {"Space": 32, "Right": 262, "Backspace": 259, "Down": 264, "Up": 265}
KEY_CODES = {_SPECIAL.get(key.label) or ord(key.label): key.action for key in KEYS}  # by GLFW's numbers
CLOSING = 10.0  # seconds that a window may take to close
# What of a model differs between episodes and is seen.
GEOMETRY = ("geom_size", "geom_pos", "geom_quat", "geom_rbound", "body_pos", "body_quat", "jnt_pos")
_PROBE = (
    "import glfw, sys; ready = glfw.init(); glfw.window_hint(glfw.VISIBLE, 0); "
    "sys.exit(0 if ready and glfw.create_window(8, 8, '', None, None) else 1)"
)


class MujocoViewer(Viewer):
    """MuJoCo's window: its camera and its help, our keys and text.

    A window shows one model only: another body closes it and opens another one. Letters that do something
    here switch something of the viewer's, too, which is switched back at once.

    Raises:
        UserError: no window can be opened.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        # A window that fails would leave its thread, and us waiting for it.
        if subprocess.run([sys.executable, "-c", _PROBE], capture_output=True).returncode:
            raise UserError(
                "MuJoCo's viewer cannot open a window with OpenGL on this display; viewer=window draws "
                "without, viewer=web in a browser"
            )
        letters = {key.label for key in KEYS}
        self._flags = [index for index, name in enumerate(mujoco.mjVISSTRING) if name[2] in letters]
        self._open(session)

    def _open(self, session: Session) -> None:
        import mujoco.viewer

        model, _, root = session.scene()
        self._model = shown_model(model)
        self._data = mujoco.MjData(self._model)
        before = set(threading.enumerate())
        self._handle = mujoco.viewer.launch_passive(
            self._model, self._data, key_callback=self._key, show_left_ui=False, show_right_ui=False
        )
        self._threads = set(threading.enumerate()) - before
        follow(self._handle.cam, model, root)
        self._initial = np.array(self._handle.opt.flags)[self._flags]
        self._opened, self._episode = session.opened, None

    def _key(self, code: int) -> None:
        """Called from the window's thread."""
        if code in KEY_CODES:
            self._pressed.put(KEY_CODES[code])

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self._handle.is_running()

    def show(self, session: Session) -> None:
        """Show the session's body, and beside it what is said of it."""
        if session.opened != self._opened:
            self.close()
            self._open(session)
        model, data, _ = session.scene()
        with self._handle.lock():
            if session.episode != self._episode:
                self._episode = session.episode
                take_geometry(self._model, model)
            take_state(self._model, self._data, data)
            self._handle.opt.flags[self._flags] = self._initial
        self._handle.set_texts(_texts(session))
        self._handle.sync()

    def close(self) -> None:
        """Close the window, and wait until it is: drawing into one that has gone would end the program."""
        self._handle.close()
        for thread in self._threads:
            thread.join(CLOSING)


def follow(camera: mujoco.MjvCamera, model: mujoco.MjModel, root: int) -> None:
    """Make a camera follow a body from the side."""
    camera.type, camera.trackbodyid = int(mujoco.mjtCamera.mjCAMERA_TRACKING), root
    camera.azimuth, camera.elevation = 90.0, -15.0
    camera.distance = min(3 * model.stat.extent, 8.0)


def shown_model(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy to be drawn, which a viewer may write into; its ground goes on for ever."""
    shown = copy.copy(model)
    take_geometry(shown, model)
    return shown


def take_geometry(shown: mujoco.MjModel, model: mujoco.MjModel) -> None:
    """Bring a copy of `shown_model` to the lengths and the terrain that the model has now."""
    for name in (*GEOMETRY, "mat_texrepeat"):
        getattr(shown, name)[:] = getattr(model, name)
    for plane in np.flatnonzero(model.geom_type == int(mujoco.mjtGeom.mjGEOM_PLANE)):
        half, material = model.geom_size[plane, :2], model.geom_matid[plane]
        if material >= 0 and not model.mat_texuniform[material] and (half > 0).all():
            shown.mat_texrepeat[material] /= 2 * half  # it is then counted by the metre
        shown.geom_size[plane, :2] = 0.0


def take_state(shown: mujoco.MjModel, data: mujoco.MjData, simulated: mujoco.MjData) -> None:
    """Bring the state of a model that is drawn to that of the simulation."""
    data.time, data.qpos[:], data.qvel[:] = simulated.time, simulated.qpos, simulated.qvel
    mujoco.mj_forward(shown, data)


def _texts(session: Session) -> list[tuple[int, int, str, str]]:
    font = int(mujoco.mjtFontScale.mjFONTSCALE_100)
    inside = [line for bars in session.inside() for line in bar_lines(bars)]
    parts = (
        (mujoco.mjtGridPos.mjGRID_TOPLEFT, session.text()),
        (mujoco.mjtGridPos.mjGRID_BOTTOMLEFT, [(key.label, key.short) for key in session.keys]),
        (mujoco.mjtGridPos.mjGRID_TOPRIGHT, inside),
    )
    return [(font, int(place), *map("\n".join, zip(*rows, strict=True))) for place, rows in parts if rows]


def bar_lines(bars: Bars, most: int = 16, width: int = 12) -> list[tuple[str, str]]:
    """Numbers as lines of text with bars of up to ``width`` signs, the first ``most`` of them."""
    longest = max(float(np.abs(bars.values).max()), 1e-9)
    lines = [(bars.title, "")]
    for name, value in zip(bars.names[:most], bars.values[:most], strict=True):
        lines.append((name, f"{value:.2f} " + "|" * round(width * abs(float(value)) / longest)))
    if len(bars.names) > most:
        lines.append((f"and {len(bars.names) - most} more", ""))
    return lines
