"""Which rows a call of ``reset`` means."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import UserError


def rows_to_reset(options: dict[str, Any] | None, num_envs: int, started: bool) -> np.ndarray:
    """Indices of the rows that are to start an episode: all, or those of ``options["reset_mask"]``.

    Args:
        options: of Gymnasium's ``reset``.
        num_envs: B.
        started: whether there has been a reset before.

    Raises:
        UserError: a mask for the first reset, or one that is not (B,) bool with a True in it.
    """
    mask = (options or {}).get("reset_mask")
    if mask is None:
        return np.arange(num_envs)
    if not started:
        raise UserError("the first reset() starts every row; give no reset_mask")
    mask = np.asarray(mask)
    if mask.shape != (num_envs,) or mask.dtype != bool or not mask.any():
        raise UserError(f"reset_mask must be ({num_envs},) bool with a True in it, not {mask!r}")
    return np.flatnonzero(mask)
