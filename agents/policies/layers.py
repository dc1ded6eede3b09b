"""Parts that limb policies share: read a limb with its joints, act on each joint, pool values.

Shapes: B batch, N limb slots, J joint slots of a limb, F token features, G joint features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import real, whole
from ...envs.tokens import TokenSpec

LARGEST_SIZE = 65_536
"""Of an argument of a network."""

SIZE, REPEATS, LOG_STD = whole(1, LARGEST_SIZE), whole(1, 64), real(-20, 5)

RELU_GAIN = math.sqrt(2)


def linear(inputs: int, outputs: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """Linear layer with orthogonal weights times ``gain`` and zero bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.orthogonal_(layer.weight, gain)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def convolutions(*layers: Sequence[int]) -> nn.Sequential:
    """Convolutions with orthogonal weights, each followed by a ReLU, and flattened in the end.

    Args:
        layers: inputs, outputs, size of the kernel, stride and padding of each.
    """
    parts: list[nn.Module] = []
    for layer in layers:
        parts += [nn.Conv2d(*layer), nn.ReLU()]
        nn.init.orthogonal_(parts[-2].weight, RELU_GAIN)
        nn.init.zeros_(parts[-2].bias)
    return nn.Sequential(*parts, nn.Flatten())


def norm(values: Tensor) -> Tensor:
    """Layer normalisation over the last dimension without scale and shift.

    A linear layer follows everywhere and holds both, so leaving them out loses nothing.
    """
    return functional.layer_norm(values, values.shape[-1:])


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last dimension of ``values`` where ``mask`` is not 0; 0 where nothing is."""
    weights = (mask != 0).to(values.dtype)
    return (values * weights).sum(-1) / weights.sum(-1).clamp(min=1)


class LimbReader(nn.Module):
    """One network that reads a limb's token and its joint rows, in any number and order.

    A row is read together with the token: hidden = relu(A token) + sum over existing joint rows of
    relu(A token + C joint + c). The sum is free of order and counts the joints, which a mean would
    not. There is no further layer: the trunk begins with a linear one.
    """

    def __init__(self, spec: TokenSpec, width: int) -> None:
        super().__init__()
        self.token = linear(spec.token_size, width, RELU_GAIN)
        self.joint = linear(spec.joint_size, width, RELU_GAIN)

    def forward(self, tokens: Tensor, joints: Tensor, joint_mask: Tensor) -> Tensor:
        """From (B, N, F), (B, N, J, G) and (B, N, J) to embeddings (B, N, width)."""
        token = self.token(tokens)  # token: (B, N, width)
        rows = functional.relu(token.unsqueeze(-2) + self.joint(joints))  # rows: (B, N, J, width)
        rows = rows * (joint_mask != 0).to(rows.dtype).unsqueeze(-1)
        return functional.relu(token) + rows.sum(-2)  # (B, N, width)


class JointHead(nn.Module):
    """One network from (limb embedding, joint row) to that joint's action mean.

    The last layer starts with a gain of 0.01, so that a new policy acts near zero and its noise
    explores around the bodies' rest (Andrychowicz et al., "What matters in on-policy reinforcement
    learning?", 2021, section 3.2).
    """

    def __init__(self, spec: TokenSpec, width: int) -> None:
        super().__init__()
        self.limb = linear(width, width, RELU_GAIN)
        self.joint = linear(spec.joint_size, width, RELU_GAIN, bias=False)
        self.action = linear(width, 1, 0.01)

    def forward(self, features: Tensor, joints: Tensor, action_mask: Tensor) -> Tensor:
        """From (B, N, width), (B, N, J, G) and (B, N, J) to means (B, N, J), 0 where masked."""
        hidden = self.limb(features).unsqueeze(-2) + self.joint(joints)  # hidden: (B, N, J, width)
        mean = self.action(functional.relu(hidden)).squeeze(-1)  # mean: (B, N, J)
        return torch.where(action_mask != 0, mean, 0.0)


class ValueHead(nn.Module):
    """A value per limb, averaged over the limbs that exist.

    A mean, not a sum: returns are normalised per body, so the scale must not grow with the limbs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.limb = linear(width, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """From (B, N, width) and (B, N) to values (B,)."""
        return masked_mean(self.limb(features).squeeze(-1), mask)


def heads_divide_width(arguments: Mapping[str, Any]) -> None:
    """Raises UserError: the heads of attention do not share ``width`` evenly."""
    width, heads = arguments["width"], arguments["heads"]
    if width % heads:
        raise UserError(f"agent.width must be a multiple of agent.heads, got {width} and {heads}")
