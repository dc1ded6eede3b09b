"""Pictures from strangers: what is decoded, and what is refused before a decoder sees it."""

from __future__ import annotations

import os
import resource
import struct
import time
import zlib

import cv2
import numpy as np
import pytest

from somite.envs.car_racing.scenery import SIZE, read_picture
from somite.envs.errors import UserError

RNG = np.random.default_rng(0)
COLORS = cv2.resize(RNG.integers(0, 256, (12, 16, 3), np.uint8), (64, 48))
"""(48, 64, 3), blue first."""


def encoded(kind, picture=COLORS, *options):
    return cv2.imencode(kind, picture, options)[1].tobytes()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows, depth=8, colors=2, palette=b""):
    size = struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, 0)
    parts = [chunk(b"IHDR", size), chunk(b"PLTE", palette) if palette else b"", chunk(b"IDAT", rows)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def read(folder, data):
    file = folder / "background"
    file.write_bytes(data)
    read_picture.cache_clear()
    return read_picture(str(file))


def refused(folder, data):
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as error:
        read(folder, data)
    assert time.process_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "KiB"
    message = str(error.value)
    assert str(folder / "background") in message and "\n" not in message
    return message


GOOD = {
    "png": encoded(".png"),
    "grey": encoded(".png", COLORS[..., 0]),
    "16 bit": encoded(".png", COLORS.astype(np.uint16) * 257),
    "with transparency": encoded(".png", np.dstack([COLORS, COLORS[..., :1]])),
    "palette": png(2, 2, zlib.compress(b"\0\0\1\0\1\0"), 8, 3, b"\xff\0\0\0\xff\0"),
    "one pixel": encoded(".png", COLORS[:1, :1]),
    "one row": encoded(".png", COLORS[:1]),
    "jpeg": encoded(".jpg"),
    "progressive jpeg": encoded(".jpg", COLORS, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "bmp": encoded(".bmp"),
    "webp": encoded(".webp"),
    "webp without loss": encoded(".webp", COLORS, cv2.IMWRITE_WEBP_QUALITY, 101),
    "large": encoded(".png", np.zeros((4000, 6000, 3), np.uint8)),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=list(GOOD))
def test_pictures_of_every_kind_are_read(tmp_path, data):
    picture = read(tmp_path, data)
    assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8


def test_colours_are_those_of_the_file(tmp_path):
    wanted = cv2.resize(COLORS, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    assert np.array_equal(read(tmp_path, GOOD["png"]), wanted)
    assert np.array_equal(read(tmp_path, GOOD["16 bit"]), wanted)


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello", "is no picture"),
    "tiff": (encoded(".tiff"), "is no picture"),
    "half a png": (GOOD["png"][: len(GOOD["png"]) // 2], "damaged"),
    "half a jpeg": (GOOD["jpeg"][: len(GOOD["jpeg"]) // 2], "truncated"),
    "a jpeg without its last byte": (GOOD["jpeg"][:-1], "truncated"),
    "half a bmp": (GOOD["bmp"][:1000], "damaged"),
    "half a webp": (GOOD["webp"][: len(GOOD["webp"]) // 2], "damaged"),
    "a flipped bit": (GOOD["png"][:60] + bytes([GOOD["png"][60] ^ 1]) + GOOD["png"][61:], "broken PNG"),
    "a bomb": (png(60_000, 60_000, zlib.compress(bytes(10**7))), "too many pixels"),
    "a flat bomb": (png(2**31 - 1, 1, zlib.compress(bytes(10**6))), "pixels"),
    "no width": (png(0, 1, zlib.compress(b"\0")), "is no picture"),
    "too few rows": (png(4000, 4000, zlib.compress(b"\0" * 5)), "truncated"),
    "a bmp of gigabytes": (b"BM" + struct.pack("<I8xIii", 26, 40, 60_000, -60_000), "damaged"),
    "a jpeg of gigabytes": (
        b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(9) + b"\xff\xda\x00\x02\xff\xd9",
        "too many pixels",
    ),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=list(BAD))
def test_what_is_no_whole_picture_is_refused(tmp_path, data, said):
    assert said in refused(tmp_path, data)


def test_nobody_waits_for_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero", tmp_path, tmp_path / "missing.png", "x\0.png"):
        with pytest.raises(UserError, match="the picture cannot be read"):
            read_picture(str(path))


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    file = tmp_path / "background"
    file.write_bytes(GOOD["png"])
    os.truncate(file, 20 * 2**30)
    with pytest.raises(UserError, match="at most 67,108,864 are read"):
        read_picture(str(file))
