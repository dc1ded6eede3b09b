"""A session in a window of our own: the world, what the agent receives, and what goes on inside it."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import mujoco
import numpy as np

from ...envs.errors import UserError, check_installed
from ...envs.locomotion.pictures.rendering import BodyRenderer, find_backend
from ...envs.sensors.cartpole_swingup import LENGTH, TRACK, CartPoles
from .inside import shown_by_slots
from .mujoco_viewer import follow
from .session import KEYS, Bars, Session, Viewer
from .video import patch_picture

WIDTH, HEIGHT, MARGIN = 1180, 740, 16
WORLD = (640, 426)  # pixels of the world of bodies and carts; patches stand over the whole width
LINE, TEXT = 19, 14  # pixels from line to line, and of the letters
UNSEEN = ("dummy", "offscreen")  # drivers that SDL takes of itself where no other works
MOST_BARS = 20
# The colours are of Okabe and Ito's palette.
BACKGROUND, INK, PALE, BLUE, ORANGE = "#FFFFFF", "#111111", "#8A8A8A", "#0072B2", "#D55E00"
PYGAME_KEYS = {key.label.lower(): key.action for key in KEYS}


class WindowViewer(Viewer):
    """A window by pygame; Escape closes it.

    Raises:
        UserError: pygame is not installed or opens no window, or a body cannot be drawn.
    """

    is_open = True

    def __init__(self, session: Session) -> None:
        check_installed("viewer=window", {"pygame": "pygame-ce"}, "view")
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
        self._opened, self._renderer = 0, None

    def pressed(self) -> list[str]:
        """Actions of the keys that have been pressed since the last call."""
        pygame, actions = self._pygame, []
        for event in pygame.event.get():
            if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
                self.is_open = False
            elif event.type == pygame.KEYDOWN and pygame.key.name(event.key) in PYGAME_KEYS:
                actions.append(PYGAME_KEYS[pygame.key.name(event.key)])
        return actions

    def close(self) -> None:
        """Close the window."""
        self._release()
        self.is_open = False
        self._pygame.quit()

    def show(self, session: Session) -> None:
        """Draw the session."""
        self.screen.fill(BACKGROUND)
        below = self._show_patches(session) if session.kind == "patches" else self._show_world(session)
        for name, value in session.text():
            while value and self._font.size(value)[0] > WORLD[0] - 80:
                value = value[:-2] + "…"
            self._write(name, MARGIN, below, colour=PALE)
            self._write(value, MARGIN + 80, below, bold=not name)
            below += LINE
        keys = [(key.label, key.short) for key in session.keys] + [("Esc", "close")]
        rows = -(-len(keys) // 3)
        for index, (label, short) in enumerate(keys):
            x, y = MARGIN + 190 * (index // rows), below + LINE // 2 + LINE * (index % rows)
            self._write(label, x, y, colour=PALE)
            self._write(short, x + 84, y)
        self._pygame.display.flip()

    def _show_patches(self, session: Session) -> int:
        """The world, what is received, where the agent looks; the pixel where they end."""
        attention = session.attention
        of_slots = None if attention is None else attention[shown_by_slots(session.env)]
        picture = patch_picture(session.env, session.observation, of_slots)
        panels = picture.shape[1] / picture.shape[0]
        height = min(380, round((WIDTH - 2 * MARGIN) / panels))
        width = round(height * panels)
        names = ("the world", "what the agent receives", "where it looks")[: 2 if attention is None else 3]
        for index, name in enumerate(names):
            self._write(name, MARGIN + index * width / len(names), MARGIN, bold=True)
        self._picture(picture, MARGIN + LINE + 4, (width, height))
        return MARGIN + LINE + 4 + height + 14

    def _show_world(self, session: Session) -> int:
        """The world, with bars beside it; the pixel where it ends."""
        self._picture(self._world(session), MARGIN, WORLD)
        y, received, inside = MARGIN, session.received(), session.inside()
        parts = [(received, ORANGE)] if received else []
        parts += [(part, BLUE) for part in inside]
        most = MOST_BARS if len(parts) == 1 else max(6, 34 // max(len(parts), 1) - 2)
        for part, colour in parts:
            y = self._bars(part, MARGIN + WORLD[0] + 24, y, colour, most) + 12
        return MARGIN + WORLD[1] + 12

    def _bars(self, bars: Bars, x: int, y: int, colour: str, most: int) -> int:
        """Bars from y on; the pixel where they end."""
        width = WIDTH - x - MARGIN
        self._write(bars.title, x, y, bold=True)
        y += LINE
        left = min(max(self._font.size(name)[0] for name in bars.names[:most]) + 12, width // 2)
        signed = bool((bars.values < 0).any())
        room, longest = width - left - 52, max(float(np.abs(bars.values).max()), 1e-9)
        room //= 2 if signed else 1
        zero = x + left + (room if signed else 0)
        for name, value in zip(bars.names[:most], bars.values[:most], strict=True):
            length = round(abs(float(value)) / longest * room)
            start = zero - length if value < 0 else zero
            self._pygame.draw.rect(self.screen, colour, (start, y + 4, max(length, 1), LINE - 8))
            self._write(name, x, y)
            self._write(f"{value:.2f}", x + width - 46, y)
            y += LINE
        if len(bars.names) > most:
            self._write(f"and {len(bars.names) - most} more", x, y, colour=PALE)
            y += LINE
        return y

    def _write(self, text: str, x: float, y: float, *, bold: bool = False, colour: str = INK) -> None:
        font = self._bold if bold else self._font
        self.screen.blit(font.render(text, True, colour), (x, y))

    def _picture(self, picture: np.ndarray, y: int, size: tuple[int, int]) -> None:
        pygame = self._pygame
        surface = pygame.surfarray.make_surface(np.ascontiguousarray(picture.swapaxes(0, 1)))
        self.screen.blit(pygame.transform.scale(surface, size), (MARGIN, y))

    def _world(self, session: Session) -> np.ndarray:
        """(height, width, 3) uint8."""
        if session.scene() is not None:
            return self._drawn_scene(session)
        surface = self._pygame.Surface(WORLD)
        surface.fill("#F3F3F3")
        source = session.env.source
        if isinstance(source, CartPoles):
            x, _, angle, _ = source.state[:, 0].tolist()
            self._draw_cart(surface, x, angle)
        else:
            text = f"{session.body} has no picture; its readings are at the right"
            surface.blit(self._font.render(text, True, PALE), (20, 20))
        return self._pygame.surfarray.array3d(surface).swapaxes(0, 1)

    def _draw_cart(self, surface: object, x: float, angle: float) -> None:
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
        model, data, root = session.scene()
        if session.opened != self._opened:
            self._release()
            self._opened = session.opened
            self._pygame.display.set_caption(f"somite-view: {session.body}")
            if session.kind == "limbs":
                self._renderer = BodyRenderer(session.env, *WORLD)
            else:
                find_backend()
                self._renderer = mujoco.Renderer(model, WORLD[1], WORLD[0])
        if session.kind == "limbs":
            return self._renderer.picture(0)
        camera = mujoco.MjvCamera()
        follow(camera, model, root)
        camera.type, camera.lookat[:] = int(mujoco.mjtCamera.mjCAMERA_FREE), data.xpos[root]
        self._renderer.update_scene(data, camera)
        return self._renderer.render()

    def _release(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
