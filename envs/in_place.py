"""Rows of tensors that are written to where they are, chosen by a condition which waits for nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def replace(values: Tensor, where: Tensor, others: Tensor | float) -> None:
    """Write ``others`` into the rows of ``values`` (B, ...) that ``where`` (B,) names, in place."""
    values.copy_(torch.where(wide(where, values), others, values))


def clear(values: Tensor, where: Tensor) -> None:
    """Write 0 into the rows of ``values`` (B, ...) that ``where`` (B,) names, in place."""
    values.masked_fill_(wide(where, values), 0)


def wide(where: Tensor, values: Tensor) -> Tensor:
    """A condition on leading dimensions as one on ``values``, which have more."""
    return where.reshape(*where.shape, *[1] * (values.ndim - where.ndim))
