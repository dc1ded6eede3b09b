"""What ``somite-view`` does: a window on a session, chosen by what is shown and where it runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress

from omegaconf import DictConfig, OmegaConf

from ...envs.errors import UserError
from ..device import resolve_device
from ..evaluation.runs import task_of
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folder_of
from .session import Session, Viewer

FRAMES_PER_SECOND = 40


def view(config: DictConfig) -> None:
    """Show what ``conf/view.yaml`` describes until the window is closed.

    Raises:
        UserError: a run, body or viewer that is not there, or no display.
    """
    agent = load_policy(policy_folder_of(str(config.run)), resolve_device(config.device))
    plain = OmegaConf.to_container(config, resolve=True)
    task = task_of(agent, plain["env"]).for_evaluation()
    with closing(Session(agent, task, plain["bodies"], config.seed)) as session:
        kind = choose_viewer(config.viewer, session)
        # Ctrl-C is how the viewer in a browser is left.
        with closing(make_viewer(kind, session, config.port)) as viewer, suppress(KeyboardInterrupt):
            run(session, viewer)


def choose_viewer(given: str, session: Session, has_display: bool | None = None) -> str:
    """``mujoco``, ``window`` or ``web``, where that can show the session.

    ``auto`` is MuJoCo's own for its tasks, a window of ours for others.

    Raises:
        UserError: it cannot be shown so.
    """
    is_scene = session.scene() is not None
    kind = ("mujoco" if is_scene else "window") if given == "auto" else given
    if kind != "window" and not is_scene:
        raise UserError(f"viewer={kind} shows tasks of MuJoCo, {session.body} is none: use viewer=window")
    if kind != "web" and not (_has_display(kind) if has_display is None else has_display):
        other = "viewer=web shows it in a browser, " if is_scene else ""
        raise UserError(
            "there is no display here (DISPLAY and WAYLAND_DISPLAY are empty): run this where there is one, "
            f"or through ssh -X; {other}somite-evaluate run=... video=true writes a film where there are "
            "pictures"
        )
    return kind


def _has_display(kind: str) -> bool:
    if not sys.platform.startswith("linux"):
        return True
    names = ["DISPLAY", "WAYLAND_DISPLAY"] + ["SDL_VIDEODRIVER"] * (kind == "window")
    return any(os.environ.get(name) for name in names)


def make_viewer(kind: str, session: Session, port: int = 0) -> Viewer:
    """Open a viewer of a kind that `choose_viewer` gave; the web viewer's ``port`` 0 is the first free one.

    Raises:
        UserError: what it needs is not installed or does not work here.
    """
    if kind == "mujoco":
        from .mujoco_viewer import MujocoViewer

        return MujocoViewer(session)
    if kind == "web":
        from .web_viewer import WebViewer

        return WebViewer(session, port)
    from .window_viewer import WindowViewer

    return WindowViewer(session)


def run(
    session: Session,
    viewer: Viewer,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Let the session go on in real time, with what is pressed, until the viewer is closed."""
    last = clock()
    while viewer.is_open:
        for action in viewer.pressed():
            session.press(action)
        now = clock()
        session.play(now - last)
        last = now
        viewer.show(session)
        sleep(max(0.0, 1 / FRAMES_PER_SECOND - (clock() - now)))
