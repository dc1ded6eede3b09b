"""What may lie in place of the grass: pictures, plain colours, and patterns made from a seed."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import UserError, nearest
from .picture_files import decode

SIZE = 96
GRASS = "grass"
PLAIN = re.compile(r"plain:(\d+),(\d+),(\d+)")


def _random_color(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, 3).astype(np.uint8)


def plain(rng: np.random.Generator) -> np.ndarray:
    """One colour."""
    return np.broadcast_to(_random_color(rng), (SIZE, SIZE, 3)).copy()


def noise(rng: np.random.Generator) -> np.ndarray:
    """Every pixel, or block of pixels, of a colour of its own."""
    block = int(rng.choice([1, 2, 4, 8]))
    cells = rng.integers(0, 256, (SIZE // block, SIZE // block, 3), np.uint8)
    return cells.repeat(block, 0).repeat(block, 1)


def stripes(rng: np.random.Generator) -> np.ndarray:
    """Stripes of two colours, of any direction and width."""
    angle, width = rng.uniform(0, np.pi), rng.uniform(3, 16)
    y, x = np.mgrid[:SIZE, :SIZE]
    phase = (x * np.cos(angle) + y * np.sin(angle)) / width + rng.uniform(0, 2)
    return np.stack([_random_color(rng), _random_color(rng)])[phase.astype(int) % 2]


def checkers(rng: np.random.Generator) -> np.ndarray:
    """A board of two colours."""
    side = int(rng.integers(4, 25))
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack([_random_color(rng), _random_color(rng)])[(x // side + y // side) % 2]


def gradient(rng: np.random.Generator) -> np.ndarray:
    """From one colour to another, in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE - 0.5
    along = np.clip(x * np.cos(angle) + y * np.sin(angle) + 0.5, 0, 1)[..., None]
    return (_random_color(rng) * (1 - along) + _random_color(rng) * along).astype(np.uint8)


def blobs(rng: np.random.Generator) -> np.ndarray:
    """Blurred discs and boxes of many colours."""
    import cv2

    picture = plain(rng)
    for _ in range(int(rng.integers(8, 30))):
        x, y, size = (int(value) for value in (*rng.integers(0, SIZE, 2), rng.integers(4, 24)))
        color = _random_color(rng).tolist()
        if rng.random() < 0.5:
            cv2.circle(picture, (x, y), size, color, -1)
        else:
            cv2.rectangle(picture, (x, y), (x + size, y + size // 2 + 1), color, -1)
    return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 4.0)))


def clouds(rng: np.random.Generator) -> np.ndarray:
    """Noise whose strength falls with its frequency, from one colour to another."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE))
    strength = 1 / np.maximum(frequency, 1 / SIZE) ** rng.uniform(1.0, 2.0)
    phases = np.exp(2j * np.pi * rng.random(frequency.shape))
    field = np.fft.irfft2(strength * phases, (SIZE, SIZE))
    share = (np.clip(field / field.std(), -2, 2)[..., None] + 2) / 4
    return (_random_color(rng) * (1 - share) + _random_color(rng) * share).astype(np.uint8)


def rings(rng: np.random.Generator) -> np.ndarray:
    """Rings of two colours around any place."""
    row, column, width = rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(3, 16)
    y, x = np.mgrid[:SIZE, :SIZE]
    ring = (np.hypot(y - row, x - column) / width).astype(int)
    return np.stack([_random_color(rng), _random_color(rng)])[ring % 2]


def mosaic(rng: np.random.Generator) -> np.ndarray:
    """Cells of many colours, each around a place of its own (Voronoi's diagram)."""
    count = int(rng.integers(8, 60))
    places = rng.uniform(0, SIZE, (count, 2))
    y, x = np.mgrid[:SIZE, :SIZE]
    distance = np.square(y[..., None] - places[:, 0]) + np.square(x[..., None] - places[:, 1])
    return rng.integers(0, 256, (count, 3), np.uint8)[distance.argmin(-1)]


GENERATORS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "plain": plain,
    "noise": noise,
    "stripes": stripes,
    "checkers": checkers,
    "gradient": gradient,
    "blobs": blobs,
    "clouds": clouds,
    "rings": rings,
    "mosaic": mosaic,
}


def check_background(name: str) -> None:
    """Refuses what is no background.

    Raises:
        UserError: an unknown name, a colour that is none, or a picture that cannot be read.
    """
    if name == GRASS or name in GENERATORS:
        return
    found = PLAIN.fullmatch(name)
    if found:
        if max(int(part) for part in found.groups()) > 255:
            raise UserError(f"env.scenery.background={name!r}: a colour is three numbers from 0 to 255")
        return
    if "." in Path(name).name or "/" in name:
        read_picture(name)
        return
    choices = (GRASS, *GENERATORS, "plain:<red>,<green>,<blue>")
    raise UserError(
        f"env.scenery.background={name!r}: there is none; {nearest(name, choices)}; or a picture's file"
    )


def make_background(name: str, rng: np.random.Generator) -> np.ndarray | None:
    """(96, 96, 3) uint8, or None for the grass that is there; ``rng`` draws what the name leaves open."""
    if name == GRASS:
        return None
    if name in GENERATORS:
        return GENERATORS[name](rng)
    found = PLAIN.fullmatch(name)
    if found:
        color = np.array([int(part) for part in found.groups()], np.uint8)
        return np.broadcast_to(color, (SIZE, SIZE, 3)).copy()
    return read_picture(name)


@lru_cache(maxsize=32)
def read_picture(path: str) -> np.ndarray:
    """(96, 96, 3) uint8, a picture's file shrunk to the size of the observation.

    Raises:
        UserError: the file is not there, or holds no whole picture of a size that is decoded.
    """
    import cv2

    picture = cv2.resize(decode(path), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture[:, :, ::-1])
