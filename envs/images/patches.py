"""Pictures cut into square patches, and put together again."""

from __future__ import annotations

import numpy as np

from ..errors import UserError


def check_patch(height: int, width: int, size: int) -> None:
    """Refuses a patch that does not divide the picture. Raises UserError."""
    if height % size or width % size:
        sides = range(1, min(height, width) + 1)
        fitting = [side for side in sides if not height % side and not width % side]
        raise UserError(
            f"patches of {size} x {size} pixels do not divide a picture of {height} x {width}; sizes that "
            f"do: {', '.join(map(str, fitting))}"
        )


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
