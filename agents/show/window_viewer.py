"""A session in a window of our own: the world, what the agent receives, and what goes on inside it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import matplotlib
import mujoco
import numpy as np

from ...envs.errors import UserError
from ...envs.locomotion.pictures.rendering import BodyRenderer, find_backend
from ...envs.sensors.cartpole_swingup import LENGTH, TRACK, CartPoles
from .inside import shown_by_slots
from .session import KEYS, Bars, Session, Viewer
from .video import patch_picture

WIDTH, HEIGHT, MARGIN = 1180, 740, 16
WORLD = (640, 426)
"""Pixels of the world of bodies and carts; pictures of patches stand over the whole width."""

LINE, TEXT = 19, 14
"""Pixels from line to line, and of the letters."""

UNSEEN = ("dummy", "offscreen")
"""Drivers that SDL takes of itself where no other works."""

MOST_BARS = 20
BACKGROUND, INK, PALE, BLUE, ORANGE = "#FFFFFF", "#111111", "#8A8A8A", "#0072B2", "#D55E00"
"""The colours are of Okabe and Ito's palette."""

PYGAME_KEYS = {key.codes.pygame: key.action for key in KEYS}


class WindowViewer(Viewer):
    """A window by pygame; Escape closes it.

    Raises:
        UserError: pygame is not installed or opens no window, or a body cannot be drawn.
    """

    def __init__(self, session: Session) -> None:
        if importlib.util.find_spec("pygame") is None:
            raise UserError("this window needs pygame-ce; 'somite[view]' brings it")
        import pygame

        super().__init__()
        self._pygame = pygame
        pygame.font.init()  # nothing else: sound would look for a device
        try:
            pygame.display.init()
            self.screen = pygame.display.set_mode((WIDTH, HEIGHT))
        except pygame.error as error:
            raise UserError(f"no window opens on this display: {error}") from error
        if pygame.display.get_driver() in UNSEEN and not os.environ.get("SDL_VIDEODRIVER"):
            pygame.display.quit()
            raise UserError(f"no window opens on the display {os.environ.get('DISPLAY', '')!r}; is it there?")
        pygame.display.set_caption(f"somite-view: {session.body}")
        fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # the same everywhere
        self._font = pygame.font.Font(str(fonts / "DejaVuSans.ttf"), TEXT)
        self._bold = pygame.font.Font(str(fonts / "DejaVuSans-Bold.ttf"), TEXT)
        self._is_open, self._opened, self._renderer = True, 0, None

    def pressed(self) -> list[str]:
        """Actions of the keys that have been pressed since the last call."""
        pygame, actions = self._pygame, []
        for event in pygame.event.get():
            if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
                self._is_open = False
            elif event.type == pygame.KEYDOWN and pygame.key.name(event.key) in PYGAME_KEYS:
                actions.append(PYGAME_KEYS[pygame.key.name(event.key)])
        return actions

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self._is_open

    def close(self) -> None:
        """Close the window."""
        self._release()
        self._is_open = False
        self._pygame.quit()

    def show(self, session: Session) -> None:
        """Draw the session."""
        self.screen.fill(BACKGROUND)
        if session.kind == "patches":
            below = self._show_patches(session)
        else:
            self._picture(self._world(session), MARGIN, MARGIN, WORLD)
            self._show_bars(session)
            below = MARGIN + WORLD[1] + 12
        self._keys(session, MARGIN, self._lines(session.text(), MARGIN, below))
        self._pygame.display.flip()

    def _show_patches(self, session: Session) -> int:
        attention = session.attention
        of_slots = None if attention is None else attention[shown_by_slots(session.env)]
        picture = patch_picture(session.env, session.observation, of_slots)
        panels = picture.shape[1] / picture.shape[0]
        height = min(380, round((WIDTH - 2 * MARGIN) / panels))
        width = round(height * panels)
        names = ("the world", "what the agent receives", "where it looks")[: 2 if attention is None else 3]
        for index, name in enumerate(names):
            self._write(name, MARGIN + index * width / len(names), MARGIN, self._bold)
        self._picture(picture, MARGIN, MARGIN + LINE + 4, (width, height))
        return MARGIN + LINE + 4 + height + 14

    def _show_bars(self, session: Session) -> None:
        x, y = MARGIN + WORLD[0] + 24, MARGIN
        parts = [(session.received(), ORANGE), *((part, BLUE) for part in session.inside())]
        parts = [(part, colour) for part, colour in parts if part is not None]
        most = MOST_BARS if len(parts) == 1 else max(6, 34 // max(len(parts), 1) - 2)
        for part, colour in parts:
            y = self._bars(part, x, y, WIDTH - x - MARGIN, colour, most) + 12

    def _bars(self, bars: Bars, x: int, y: int, width: int, colour: str, most: int) -> int:
        self._write(bars.title, x, y, self._bold)
        y += LINE
        shown = list(zip(bars.names, bars.values, strict=True))[:most]
        left = min(max(self._font.size(name)[0] for name, _ in shown) + 12, width // 2)
        room, longest = width - left - 52, max(float(np.abs(bars.values).max()), 1e-9)
        signed = bool((bars.values < 0).any())
        zero = x + left + (room // 2 if signed else 0)
        for name, value in shown:
            length = round(abs(float(value)) / longest * (room // 2 if signed else room))
            start = zero - length if value < 0 else zero
            self._pygame.draw.rect(self.screen, colour, (start, y + 4, max(length, 1), LINE - 8))
            self._write(name, x, y, self._font)
            self._write(f"{value:.2f}", x + width - 46, y, self._font)
            y += LINE
        if len(bars.names) > most:
            self._write(f"and {len(bars.names) - most} more", x, y, self._font, PALE)
            y += LINE
        return y

    def _lines(self, lines: list[tuple[str, str]], x: int, y: int) -> int:
        for name, value in lines:
            font = self._font if name else self._bold
            while value and font.size(value)[0] > WORLD[0] - 80:
                value = value[:-2] + "…"
            self._write(name, x, y, self._font, PALE)
            self._write(value, x + 80, y, font)
            y += LINE
        return y + LINE // 2

    def _keys(self, session: Session, x: int, y: int) -> None:
        keys = [(key.label, key.short) for key in session.keys] + [("Esc", "close")]
        rows = -(-len(keys) // 3)
        for index, (label, short) in enumerate(keys):
            column, row = divmod(index, rows)
            self._write(label, x + 190 * column, y + row * LINE, self._font, PALE)
            self._write(short, x + 190 * column + 84, y + row * LINE, self._font)

    def _write(self, text: str, x: float, y: float, font: object, colour: str = INK) -> None:
        self.screen.blit(font.render(text, True, colour), (x, y))

    def _picture(self, picture: np.ndarray, x: int, y: int, size: tuple[int, int]) -> None:
        pygame = self._pygame
        surface = pygame.surfarray.make_surface(np.ascontiguousarray(picture.swapaxes(0, 1)))
        self.screen.blit(pygame.transform.scale(surface, size), (x, y))

    def _world(self, session: Session) -> np.ndarray:
        """(height, width, 3) uint8."""
        if session.scene() is not None:
            return self._drawn_scene(session)
        surface = self._pygame.Surface(WORLD)
        surface.fill("#F3F3F3")
        source = session.env.source
        if isinstance(source, CartPoles):
            self._draw_cart(surface, *source.state[:, 0].tolist())
        else:
            text = f"{session.body} has no picture; its readings are at the right"
            surface.blit(self._font.render(text, True, PALE), (20, 20))
        return self._pygame.surfarray.array3d(surface).swapaxes(0, 1)

    def _draw_cart(self, surface: object, x: float, _: float, angle: float, __: float) -> None:
        draw, (width, height) = self._pygame.draw, WORLD
        scale, ground = width / (2 * TRACK + 1.0), height * 0.62
        left, right = (width / 2 + side * TRACK * scale for side in (-1, 1))
        draw.line(surface, PALE, (left, ground), (right, ground), 3)
        for end in (left, right):
            draw.line(surface, PALE, (end, ground - 12), (end, ground + 12), 3)
        at = width / 2 + x * scale
        draw.rect(surface, INK, (at - 0.22 * scale, ground - 0.1 * scale, 0.44 * scale, 0.2 * scale))
        # The pole is a uniform rod; its length is drawn twice, so that its angle is well seen.
        tip = at + 2 * LENGTH * scale * np.sin(angle), ground - 2 * LENGTH * scale * np.cos(angle)
        draw.line(surface, BLUE, (at, ground), tip, 8)
        draw.circle(surface, BLUE, tip, 8)

    def _drawn_scene(self, session: Session) -> np.ndarray:
        if session.opened != self._opened:
            self._release()
            self._opened = session.opened
            self._pygame.display.set_caption(f"somite-view: {session.body}")
            limbs = session.kind == "limbs"
            self._renderer = BodyRenderer(session.env, *WORLD) if limbs else _SceneRenderer(session)
        if session.kind == "limbs":
            return self._renderer.picture(0)
        return self._renderer.picture(session)

    def _release(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


class _SceneRenderer:
    """Draws a task of Gymnasium's from the side. Raises UserError: no backend draws on this machine."""

    def __init__(self, session: Session) -> None:
        find_backend()
        model, _, _ = session.scene()
        self._renderer = mujoco.Renderer(model, WORLD[1], WORLD[0])
        self._camera = mujoco.MjvCamera()
        self._camera.azimuth, self._camera.elevation = 90.0, -15.0
        self._camera.distance = min(3 * model.stat.extent, 8.0)

    def picture(self, session: Session) -> np.ndarray:
        _, data, root = session.scene()
        self._camera.lookat[:] = data.xpos[root]
        self._renderer.update_scene(data, self._camera)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()
