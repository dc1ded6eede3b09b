"""A picture's file, looked at before a decoder is: what it is, how large, and whether it is whole."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import UserError, one_line

MOST_BYTES, LARGEST_SIDE, MOST_PIXELS = 64 * 2**20, 16_384, 50_000_000
"""Of a picture that is decoded: bytes of its file, and pixels of a side and of all of it."""

_PNG = b"\x89PNG\r\n\x1a\n"
_NO_SIZE = (0x01, *range(0xD0, 0xD8))  # JPEG's markers that nothing belongs to
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_SCAN, _END = 0xDA, b"\xff\xd9"


def decode(path: str | Path) -> np.ndarray:
    """A picture.

    Args:
        path: of a PNG, JPEG, BMP or WebP file.

    Returns:
        (H, W, 3) uint8, blue first.

    Raises:
        UserError: there is no such file, or it is none of these, cut off, damaged, or too large.
    """
    data = _content(Path(path), f"env.scenery.background={str(path)!r}")
    try:
        width, height = _size(data)
    except (ValueError, struct.error, IndexError) as error:
        raise UserError(f"env.scenery.background={str(path)!r}: the file is {_told(error)}") from error
    if max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS or min(width, height) < 1:
        raise UserError(
            f"env.scenery.background={str(path)!r} has {width:,} x {height:,} pixels; at most "
            f"{LARGEST_SIDE:,} on a side and {MOST_PIXELS:,} in all are decoded"
        )
    import cv2

    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UserError(
            f"env.scenery.background={str(path)!r}: the file is no picture ({one_line(str(error))})"
        ) from error
    # Turned by what the camera noted, the sides may have changed places.
    if picture is None or sorted(picture.shape[:2]) != sorted((width, height)):
        raise UserError(f"env.scenery.background={str(path)!r}: the file is damaged, it cannot be decoded")
    return picture


def _content(path: Path, what: str) -> bytes:
    try:
        # A pipe would be waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UserError(f"{what}: there is no such picture ({one_line(str(error))})") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise UserError(f"{what}: there is no such picture, it is no regular file")
    with open(handle, "rb") as file:
        if found.st_size > MOST_BYTES:
            raise UserError(f"{what} has {found.st_size:,} bytes; at most {MOST_BYTES:,} are read")
        return file.read(MOST_BYTES)


def _told(error: Exception) -> str:
    return str(error) if type(error) is ValueError else "damaged: it ends too early"


def _size(data: bytes) -> tuple[int, int]:
    """Width and height. Raises ValueError: no picture, or not the whole of one."""
    if not data:
        raise ValueError("empty")
    if data.startswith(_PNG):
        return _png_size(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(data)
    if data.startswith(b"BM"):
        length, width, height = struct.unpack("<I12xii", data[2:26])
        if length > len(data):
            raise ValueError(f"damaged: it has {len(data):,} of {length:,} bytes")
        return width, abs(height)  # negative: the first row is at the top
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_size(data)
    raise ValueError("no picture: PNG, JPEG, BMP and WebP are read")


def _png_size(data: bytes) -> tuple[int, int]:
    at, size = len(_PNG), None
    while True:
        if at + 12 > len(data):
            raise ValueError("damaged: it ends too early")
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        end = at + 8 + length
        if end + 4 > len(data):
            raise ValueError("damaged: it ends too early")
        if zlib.crc32(data[at + 4 : end]) != struct.unpack(">I", data[end : end + 4])[0]:
            raise ValueError(f"damaged: the checksum of its part {kind!r} is wrong")
        if kind == b"IHDR" and size is None:
            size = struct.unpack(">II", data[at + 8 : at + 16])
        if size is None:
            raise ValueError("damaged: it does not begin with its size")
        if kind == b"IEND":
            return size
        at = end + 4


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at, size = 2, None
    while True:
        if data[at] != 0xFF:
            raise ValueError("damaged: a part of it begins where none can")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        at += 2
        if marker in _NO_SIZE:
            continue
        if marker == _SCAN:
            break
        (length,) = struct.unpack(">H", data[at : at + 2])
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", data[at + 3 : at + 7])
            size = width, height
        at += max(length, 2)
    if size is None:
        raise ValueError("damaged: it does not tell its size")
    if _END not in data[at:]:
        raise ValueError("damaged: it ends too early")
    return size


def _webp_size(data: bytes) -> tuple[int, int]:
    (length,) = struct.unpack("<I", data[4:8])
    if length + 8 > len(data):
        raise ValueError("damaged: it ends too early")
    kind = data[12:16]
    if kind == b"VP8X":
        sizes = [int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27)]
        if len(data) < 30:
            raise ValueError("damaged: it ends too early")
        return sizes[0], sizes[1]
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no picture: PNG, JPEG, BMP and WebP are read")
