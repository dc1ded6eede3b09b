"""Pictures cut into square patches, and put together again."""

from __future__ import annotations

import numpy as np

from ..errors import UserError


def check_patch(height: int, width: int, size: int, of: tuple[int, int] | None = None) -> None:
    """Refuses a patch that does not divide the picture.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        size: of the patch's side.
        of: height and width of the picture that it may be shrunk from; None: it has this size always.

    Raises:
        UserError: which sizes of patches do, and the nearest sizes of pictures.
    """
    if not height % size and not width % size:
        return
    sides = range(1, min(height, width) + 1)
    fitting = [side for side in sides if not height % side and not width % side]
    shrunk = ""
    if of is not None and size <= min(of):
        rows, columns = _multiples(height, size, of[0]), _multiples(width, size, of[1])
        sizes = dict.fromkeys(zip(rows, columns, strict=True))
        shrunk = f"; or say env.size={' or '.join(f'[{h},{w}]' for h, w in sizes)}"
    raise UserError(
        f"patches of {size} x {size} pixels do not divide a picture of {height} x {width}; "
        f"env.patch_size can be {', '.join(map(str, fitting))}{shrunk}"
    )


def _multiples(side: int, size: int, most: int) -> tuple[int, int]:
    """The nearest multiples of a ``size`` below and above a ``side``, from one to as many as ``most`` has."""
    return max(1, side // size) * size, min(-(-side // size), most // size) * size


def patch_names(rows: int, columns: int) -> tuple[str, ...]:
    """Names of patches, row by row."""
    return tuple(f"patch_{row}_{column}" for row in range(rows) for column in range(columns))


def cut(frames: np.ndarray, size: int) -> np.ndarray:
    """From frames (B, H, W, C) to patches (B, N, size * size * C), row by row; rows, columns, colours."""
    batch, height, width, colors = frames.shape
    rows, columns = height // size, width // size
    parts = frames.reshape(batch, rows, size, columns, size, colors).swapaxes(2, 3)
    return parts.reshape(batch, rows * columns, size * size * colors)  # a copy


def join(patches: np.ndarray, grid: tuple[int, int], size: int) -> np.ndarray:
    """The inverse of `cut`: frames (B, H, W, C) from patches (B, N, size * size * C)."""
    rows, columns = grid
    parts = patches.reshape(len(patches), rows, columns, size, size, -1).swapaxes(2, 3)
    return parts.reshape(len(patches), rows * size, columns * size, -1)
