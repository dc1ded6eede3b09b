"""A session in a browser, by MuJoCo's web viewer."""

from __future__ import annotations

import logging
import queue
import socket

import mujoco
from mujoco.studio import launch_web, messages, plugin, viewer_protocol
from mujoco.studio.dear_imgui import dear_imgui as imgui

from ...envs.errors import UserError
from .mujoco_viewer import GEOMETRY, bar_lines, follow, shown_model, take_state
from .session import Session, Viewer

log = logging.getLogger(__name__)

WARNING = (
    "the web viewer listens on every network interface of this machine, without a password and without "
    "encryption: whoever reaches its port sees this session and can press its keys. Run it where a firewall "
    "or a container keeps the port to yourself; Ctrl-C ends it"
)
_SPECIAL = {"Right": "RightArrow", "Down": "DownArrow", "Up": "UpArrow", "-": "Minus", "=": "Equal"}


class WebViewer(Viewer):
    """MuJoCo's web viewer with a panel of what is said, and a button for every key.

    Raises:
        UserError: the port is taken, or none.
    """

    def __init__(self, session: Session, port: int = 0) -> None:
        super().__init__()
        try:  # else the viewer's own thread would end with a trace
            socket.create_server(("", port)).close()
        except (OSError, OverflowError) as error:
            raise UserError(
                f"the web viewer cannot listen on port {port}: {error}; port=0 takes a free one"
            ) from None
        log.warning(WARNING)
        self._panel = _Panel(session, self._pressed)
        config = viewer_protocol.ViewerConfig(title="somite-view", gfx="web", http_port=port)
        self._handle = launch_web.launch(config, plugins=[self._panel, _Guard()])
        self._opened, self._episode = 0, None
        self.show(session)

    @property
    def is_open(self) -> bool:
        """Whether it runs; a browser that leaves does not end it."""
        return self._handle.is_running()

    def show(self, session: Session) -> None:
        """Send the session as it is now."""
        model, data, root = session.scene()
        if session.opened != self._opened or (session.episode != self._episode and self._differs(model)):
            self._model = shown_model(model)  # what visitors do in the browser must not reach the simulation
            self._data = mujoco.MjData(self._model)
        self._opened, self._episode = session.opened, session.episode
        take_state(self._model, self._data, data)
        self._panel.tell(session, root)
        self._handle.sync(self._model, self._data)

    def _differs(self, model: mujoco.MjModel) -> bool:
        fresh = shown_model(model)
        return any((getattr(self._model, name) != getattr(fresh, name)).any() for name in GEOMETRY)

    def close(self) -> None:
        """Stop listening."""
        self._handle.close()


class _Panel(plugin.ViewerPlugin):
    """What the browser shows beside the body; it runs in the viewer's thread."""

    def __init__(self, session: Session, pressed: queue.SimpleQueue[str]) -> None:
        self._pressed = pressed
        self.tell(session, session.scene()[2])

    def tell(self, session: Session, root: int) -> None:
        """What is to be shown from now on."""
        told = session.text(), session.inside(), session.keys
        self._told, self._root = told, root  # replaced at once: the other thread reads them

    @messages.handler
    def on_model(self, event: messages.PostModelEvent) -> None:
        """Follow the body from the side."""
        follow(self.viewer.camera, event.model, self._root)

    @messages.handler
    def on_gui(self, _: messages.BuildGuiEvent) -> None:
        """Draw the panel and see what is pressed."""
        lines, inside, keys = self._told
        imgui.SetNextWindowPos(imgui.Vec2(12, 12), imgui.Cond.FirstUseEver)
        imgui.SetNextWindowSize(imgui.Vec2(330, 640), imgui.Cond.FirstUseEver)
        imgui.Begin("somite-view")
        for name, value in lines:
            imgui.TextUnformatted(f"{name}: {value}" if name else value)
        imgui.Separator()
        for key in keys:
            code = getattr(imgui.Key, _SPECIAL.get(key.label, key.label))
            # Once, however long it is held.
            if imgui.Button(f"{key.label}: {key.short}") or imgui.IsKeyPressed(code, False):
                self._pressed.put(key.action)
        imgui.Separator()
        for bars in inside:
            for name, value in bar_lines(bars):
                imgui.TextUnformatted(f"{name}  {value}")
        imgui.End()


class _Guard(plugin.SimPlugin):
    """Keeps what visitors may send from having any effect: they watch and press our keys."""

    @messages.handler
    def on_load_model(self, _: messages.LoadModelEvent) -> bool:
        """No files are opened."""
        return True

    @messages.handler
    def on_model(self, event: messages.ModelEvent) -> bool:
        """No models are taken."""
        return event.model is not self.handle.model

    @messages.handler
    def on_state(self, _: messages.StateEvent) -> bool:
        """No states are set."""
        return True

    @messages.handler
    def on_threads(self, _: messages.ThreadPoolEvent) -> bool:
        """No threads are started."""
        return True
