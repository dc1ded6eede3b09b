"""Coordinates and colours as OpenCV and Gymnasium take them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

FRACTION_BITS = 4
"""Of the coordinates that OpenCV is given."""

DARKER = 2
"""By so much pygame's averaging down makes every picture darker: a plain 102 becomes 100."""


def shade(color: Sequence[float]) -> tuple[int, int, int]:
    """A colour of Gymnasium's drawing as the observation shows it."""
    return tuple(max(int(part) - DARKER, 0) for part in color)


def for_opencv(points: np.ndarray) -> np.ndarray:
    """Points as whole numbers with ``FRACTION_BITS``; OpenCV's whole pixels are their middles."""
    return np.rint((points - 0.5) * (1 << FRACTION_BITS)).astype(np.int32)


def halve(canvas: np.ndarray, picture: np.ndarray) -> None:
    """Average a canvas, larger by a power of two, down to ``picture``, which is written to."""
    height, width = picture.shape[:2]
    while canvas.shape[0] > 2 * height:  # halving is OpenCV's fast path
        size = canvas.shape[1] // 2, canvas.shape[0] // 2
        canvas = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
    picture[:] = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
