"""How the world of CarRacing looks: what changes between training and test.

After Tang, Nguyen and Ha, "Neuroevolution of self-interpretable agents", GECCO 2020, section 4.3 (colours,
bars, a red blob), and Tang and Ha, "The sensory neuron as a transformer", NeurIPS 2021, section 4.4
(pictures in place of the grass). Backgrounds are pictures, plain colours, and patterns made from a seed.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import UserError, nearest, one_line
from ..files import read_regular
from ..numbers import FLAG, NAMES, SHARE, checked, real

SIZE = 96
DARKER = 2  # by so much pygame's averaging down makes every picture darker: a plain 102 becomes 100


def shade(color: Sequence[float]) -> tuple[int, int, int]:
    """A colour of Gymnasium's drawing as the observation shows it."""
    return tuple(max(int(part) - DARKER, 0) for part in color)


FIELD_COLOR, SQUARE_COLOR = shade((102, 204, 102)), shade((102, 230, 102))
"""Of the grass, and of the lighter squares on it."""

GRASS = "grass"
BAR_WIDTH = 7  # columns of the black bar at each side, of 96
BLOB_CENTRE, BLOB_RADIUS, BLOB_COLOR = (24, 30), 7, (255, 0, 0)
"""Of the red blob: column and row, and pixels, of 96."""


@checked("env.scenery")
@dataclass(frozen=True)
class Scenery:
    """What is drawn otherwise than in the original; ``conf/env_parts/scenery.yaml`` says what the keys mean.

    Raises:
        UserError: an unknown background or an invalid number.
    """

    background: Annotated[str | tuple[str, ...], NAMES] = GRASS
    motion: Annotated[float, real(0)] = 0.0
    color_shift: Annotated[float, SHARE] = 0.0
    bars: Annotated[bool, FLAG] = False
    blob: Annotated[bool, FLAG] = False

    def __post_init__(self) -> None:
        for name in self._names:
            background_maker(name)

    @property
    def _names(self) -> Sequence[str]:
        return [self.background] if isinstance(self.background, str) else self.background

    def draw(self, rng: np.random.Generator) -> Look:
        """How one episode looks."""
        background = background_maker(self._names[int(rng.integers(len(self._names)))])(rng)
        angle = rng.uniform(0, 2 * np.pi)
        velocity = self.motion * np.array([math.cos(angle), math.sin(angle)])
        factors, table = 1.0 + rng.uniform(-self.color_shift, self.color_shift, 3), None
        if self.color_shift:
            table = np.clip(np.arange(256)[:, None] * factors, 0, 255).astype(np.uint8)[None]
        return Look(self, background, velocity, table)


@dataclass(frozen=True)
class Look:
    """How the pictures of one episode are changed.

    Args:
        scenery: bars and blob.
        background: (96, 96, 3) uint8 in place of the grass, or None.
        velocity: (2,) columns and rows that it moves in a frame.
        table: (1, 256, 3) uint8, what each level of each colour becomes, or None.
    """

    scenery: Scenery
    background: np.ndarray | None
    velocity: np.ndarray
    table: np.ndarray | None

    def apply(self, picture: np.ndarray, frame: int, rows: int) -> None:
        """Change a picture (96, 96, 3) uint8 of that frame of the episode, in the ``rows`` above the bar."""
        import cv2

        world = picture[:rows]
        if self.background is not None:
            across, down = (self.velocity * frame).astype(int)
            background = np.roll(self.background, (down, across), (0, 1))
            for color in (FIELD_COLOR, SQUARE_COLOR):
                cv2.copyTo(background[:rows], cv2.inRange(world, color, color), world)
        if self.table is not None:
            world[:] = cv2.LUT(world, self.table)
        if self.scenery.bars:
            world[:, :BAR_WIDTH] = world[:, -BAR_WIDTH:] = 0
        if self.scenery.blob:
            cv2.circle(world, BLOB_CENTRE, BLOB_RADIUS, BLOB_COLOR, -1)


_Y, _X = np.mgrid[:SIZE, :SIZE]


def _random_color(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, 3).astype(np.uint8)


def _two_colors(rng: np.random.Generator, second: np.ndarray) -> np.ndarray:
    """A picture of two colours, the second where the numbers (96, 96) are odd."""
    return np.stack([_random_color(rng), _random_color(rng)])[second % 2]


def _blend(rng: np.random.Generator, share: np.ndarray) -> np.ndarray:
    """From one colour to another, of which the picture has ``share`` (96, 96)."""
    share = share[..., None]
    return (_random_color(rng) * (1 - share) + _random_color(rng) * share).astype(np.uint8)


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
    phase = (_X * np.cos(angle) + _Y * np.sin(angle)) / width + rng.uniform(0, 2)
    return _two_colors(rng, phase.astype(int))


def checkers(rng: np.random.Generator) -> np.ndarray:
    """A board of two colours."""
    side = int(rng.integers(4, 25))
    return _two_colors(rng, _X // side + _Y // side)


def gradient(rng: np.random.Generator) -> np.ndarray:
    """From one colour to another, in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = (np.array([_Y, _X]) + 0.5) / SIZE - 0.5
    return _blend(rng, np.clip(x * np.cos(angle) + y * np.sin(angle) + 0.5, 0, 1))


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
    return _blend(rng, (np.clip(field / field.std(), -2, 2) + 2) / 4)


def rings(rng: np.random.Generator) -> np.ndarray:
    """Rings of two colours around any place."""
    row, column, width = rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(3, 16)
    return _two_colors(rng, (np.hypot(_Y - row, _X - column) / width).astype(int))


def mosaic(rng: np.random.Generator) -> np.ndarray:
    """Cells of many colours, each around a place of its own (Voronoi's diagram)."""
    count = int(rng.integers(8, 60))
    places = rng.uniform(0, SIZE, (count, 2))
    distance = np.square(_Y[..., None] - places[:, 0]) + np.square(_X[..., None] - places[:, 1])
    return rng.integers(0, 256, (count, 3), np.uint8)[distance.argmin(-1)]


_GENERATORS = (plain, noise, stripes, checkers, gradient, blobs, clouds, rings, mosaic)
GENERATORS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {f.__name__: f for f in _GENERATORS}

_PLAIN = re.compile(r"plain:(\d+),(\d+),(\d+)")


def background_maker(name: str) -> Callable[[np.random.Generator], np.ndarray | None]:
    """What makes the background of that name: (96, 96, 3) uint8, None for the grass that is there.

    It is given the generator that draws what the name leaves open.

    Raises:
        UserError: an unknown name, an invalid colour, or a picture that cannot be read.
    """
    if name == GRASS:
        return lambda rng: None
    if name in GENERATORS:
        return GENERATORS[name]
    found = _PLAIN.fullmatch(name)
    if found:
        color = [int(part) for part in found.groups()]
        if max(color) > 255:
            raise UserError(f"env.scenery.background={name!r}: a colour is three numbers from 0 to 255")
        return lambda rng: np.full((SIZE, SIZE, 3), color, np.uint8)
    if "." in Path(name).name or "/" in name:
        picture = read_picture(name)
        return lambda rng: picture
    choices = (GRASS, *GENERATORS, "plain:<red>,<green>,<blue>")
    raise UserError(
        f"env.scenery.background={name!r}: no such background; {nearest(name, choices)}; or a picture's file"
    )


MOST_BYTES, LARGEST_SIDE, MOST_PIXELS = 64 * 2**20, 16_384, 50_000_000
"""Of a picture that is decoded: bytes of its file, and pixels of a side and of all of it."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_DAMAGES = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)
"""What Pillow raises of a damaged file."""


@lru_cache(maxsize=32)
def read_picture(path: str) -> np.ndarray:
    """(96, 96, 3) uint8, a PNG, JPEG, BMP or WebP file shrunk to the size of the observation.

    Raises:
        UserError: there is no such file, or it is none of these, cut off, damaged, or too large.
    """
    import cv2

    what = f"env.scenery.background={path!r}"
    try:
        data = read_regular(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{what}: the picture cannot be read ({one_line(str(error))})") from error
    try:
        for look in ("verify", "load"):  # a PNG's checksums; whether all rows are there
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                _check_size(what, *picture.size)
                getattr(picture, look)()
    except UnidentifiedImageError as error:
        told = "no picture: PNG, JPEG, BMP and WebP are read" if data else "empty"
        raise UserError(f"{what}: the file is {told}") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{what} has too many pixels; at most {MOST_PIXELS:,} are decoded") from error
    except _DAMAGES as error:
        raise UserError(f"{what}: the file is damaged ({one_line(str(error))})") from error
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UserError(f"{what}: the file is no picture ({one_line(str(error))})") from error
    # Turned by what the camera noted, the sides may have changed places.
    if pixels is None or sorted(pixels.shape[:2]) != sorted(picture.size):
        raise UserError(f"{what}: the file is damaged, it cannot be decoded")
    return np.ascontiguousarray(cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[:, :, ::-1])


def _check_size(what: str, width: int, height: int) -> None:
    if max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS or min(width, height) < 1:
        raise UserError(
            f"{what} has {width:,} x {height:,} pixels; at most {LARGEST_SIDE:,} on a side and "
            f"{MOST_PIXELS:,} in all are decoded"
        )
