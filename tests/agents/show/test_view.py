"""Which viewer shows what, the loop around it, and the window, drawn where nobody sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from somite.agents.show import view
from somite.agents.show.mujoco_viewer import KEY_CODES, bar_lines, shown_model, take_geometry
from somite.agents.show.session import ACTIONS, KEYS, Bars, Session
from somite.agents.show.window_viewer import PYGAME_KEYS, WindowViewer
from somite.envs.errors import UserError
from tests.agents.show.sessions import CALM, session_of


@pytest.fixture
def cheetah() -> Iterator[Session]:
    """SMP on a cheetah of four limbs."""
    session = session_of("cheetah_smp_split/smp-0", None, "cheetah_4_front")
    yield session
    session.close()


def test_every_key_is_on_every_keyboard() -> None:
    assert set(KEY_CODES.values()) == set(PYGAME_KEYS.values()) == set(ACTIONS)
    assert len(KEYS) == len(ACTIONS) == len({key.label for key in KEYS})
    letters = {chr(code): action for code, action in KEY_CODES.items() if chr(code).isalpha() and code < 128}
    assert {key.label: key.action for key in KEYS if len(key.label) == 1 and key.label.isalpha()} == letters
    table = (Path(__file__).parents[3] / "docs" / "viewing.md").read_text()
    for key in KEYS:
        assert f"| {key.label} | {key.what} |" in table, key.label


def test_the_viewer_is_chosen_by_task_and_display(cheetah: Session) -> None:
    swingup = session_of("swingup/clone-0", CALM)
    ant = session_of("ant_sensors/sensor_transformer")
    assert ant.scene()[0].nu == 8
    assert view.choose_viewer("auto", cheetah, True) == view.choose_viewer("auto", ant, True) == "mujoco"
    assert view.choose_viewer("auto", swingup, True) == "window"
    assert view.choose_viewer("window", cheetah, True) == "window"
    assert view.choose_viewer("web", cheetah, False) == "web", "only when it is asked for"
    with pytest.raises(UserError, match="no display here.*viewer=web shows it in a browser"):
        view.choose_viewer("auto", cheetah, False)
    with pytest.raises(UserError, match="no display here") as caught:
        view.choose_viewer("auto", swingup, False)
    assert "viewer=web" not in str(caught.value)
    for kind in ("web", "mujoco"):
        with pytest.raises(UserError, match="cartpole_swingup is none: use viewer=window"):
            view.choose_viewer(kind, swingup, True)


def test_the_loop_presses_plays_and_shows_until_the_window_is_closed(cheetah: Session) -> None:
    class Script:
        def __init__(self) -> None:
            self.frames, self.shown = 0, []

        is_open = property(lambda self: self.frames < 20)

        def pressed(self) -> list[str]:
            self.frames += 1
            return ["kill"] if self.frames == 10 else []

        def show(self, session: Session) -> None:
            self.shown.append((session.steps, len(session.broken)))

    clock = iter(np.arange(0, 100, 0.0125))
    script, slept = Script(), []
    view.run(cheetah, script, lambda: float(next(clock)), slept.append)
    assert len(script.shown) == 20 and script.shown[-1][1] == 1 and script.shown[8][1] == 0
    assert 8 <= cheetah.steps <= 10 and all(0 <= wait <= 1 / view.FRAMES_PER_SECOND for wait in slept)


def test_what_a_viewer_may_write_into_is_a_copy_with_the_lengths_of_the_episode(cheetah: Session) -> None:
    model = cheetah.scene()[0]
    shown = shown_model(model)
    shown.geom_size[1, 0] = 9.0
    assert model.geom_size[1, 0] != 9.0
    take_geometry(shown, model)
    assert shown.geom_size[1, 0] == model.geom_size[1, 0]
    assert (shown.geom_size[0, :2] == 0).all(), "the ground goes on for ever"


def test_numbers_become_lines_with_bars() -> None:
    lines = bar_lines(Bars("shares", ("a", "b", "c"), np.array([0.5, 0.25, 0.1])), most=2, width=8)
    assert lines == [("shares", ""), ("a", "0.50 ||||||||"), ("b", "0.25 ||||"), ("and 1 more", "")]


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame", reason="the window needs its extra")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    if "MUJOCO_GL" not in os.environ:
        monkeypatch.setenv("MUJOCO_GL", "egl")


@pytest.mark.usefixtures("no_display")
def test_the_window_shows_the_swing_up_and_takes_keys() -> None:
    import pygame

    session = session_of("swingup/clone-0", CALM)
    window = WindowViewer(session)
    window.show(session)
    before = pygame.surfarray.array3d(window.screen)
    for key in (pygame.K_x, pygame.K_z, pygame.K_SPACE, pygame.K_MINUS):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
    assert window.pressed() == ["shuffle", "pause", "slower"]
    for _ in range(40):
        session.advance()
    window.show(session)
    after = pygame.surfarray.array3d(window.screen)
    assert (after[:640, :440] != before[:640, :440]).any(), "the pole has moved"
    assert (after[700:] != before[700:]).any(), "so have the bars"
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE))
    assert window.is_open and window.pressed() == [] and not window.is_open
    window.close()


@pytest.mark.usefixtures("no_display")
def test_the_window_shows_world_and_received_patches_side_by_side() -> None:
    pytest.importorskip("Box2D", reason="CarRacing needs its extra")
    import pygame

    session = session_of("bundled/car_racing-patch_transformer", {"senses": {"shuffle": "never"}})
    for _ in range(3):
        session.advance()
    window = WindowViewer(session)

    def panels() -> list[np.ndarray]:
        window.show(session)
        screen = pygame.surfarray.array3d(window.screen)[:, 39 : 39 + 380]
        return [screen[16 + 380 * i : 16 + 380 * (i + 1)] for i in range(3)]

    world, received, looked = panels()
    assert (np.ptp(received, axis=2) == 0).all() and np.ptp(world, axis=2).max() > 50, "grey, and in colours"
    assert (looked <= world).mean() > 0.99 and (looked < world).mean() > 0.3
    grey = world.mean(2)
    plain = np.abs(received[..., 0] - grey).mean()
    session.press("shuffle")
    session.advance()
    world, received, _ = panels()
    assert np.abs(received[..., 0] - world.mean(2)).mean() > 1.5 * plain, "patches stand in other slots"
    window.close()
    session.close()
