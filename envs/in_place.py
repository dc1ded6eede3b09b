"""Tensors written to where they are, and copied without waking threads; nothing waits for a device."""

from __future__ import annotations

import torch
from torch import Tensor

_FEW = 30_000
"""Numbers that torch copies on a CPU without waking its threads, whose cores the simulation needs."""


def replace(values: Tensor, where: Tensor | None, others: Tensor) -> None:
    """Write ``others`` into those rows of ``values`` (B, ...) that ``where`` (B,) names; None: into all."""
    values.copy_(others if where is None else torch.where(wide(where, values), others, values))


def clear(values: Tensor, where: Tensor) -> None:
    """Write 0 into the rows of ``values`` (B, ...) that ``where`` (B,) names, in place."""
    values.masked_fill_(wide(where, values), 0)


def wide(where: Tensor, values: Tensor) -> Tensor:
    """A condition on leading dimensions as one on ``values``, which have more."""
    return where.reshape(*where.shape, *[1] * (values.ndim - where.ndim))


def at_a_time(values: Tensor) -> int:
    """How many of these numbers to copy at a time, so that nothing waits for threads where few would do."""
    count = max(1, values.numel())
    return _FEW if values.device.type == "cpu" and count < 10 * _FEW else count
