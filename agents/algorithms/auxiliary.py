"""A further loss that goes along with whatever the algorithm minimises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def also_minimize(values: Tensor, loss: Tensor) -> Tensor:
    """``values`` as they are; whatever is differentiated through them, so is the ``loss``, with weight 1.

    Stable-Baselines3 adds up its losses where nothing can be added; this adds at the network's outputs.

    Args:
        values: outputs on which the algorithm's loss depends.
        loss: a scalar.
    """
    return _Also.apply(values, loss)


class _Also(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, loss: Tensor) -> Tensor:  # noqa: D102
        ctx.save_for_backward(torch.ones_like(loss))
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return gradient, ctx.saved_tensors[0]
