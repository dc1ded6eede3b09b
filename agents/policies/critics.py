"""Where a limb policy's value comes from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.tokens import TokenSpec
from .layers import RELU_GAIN, LimbReader, linear, masked_mean, norm

CRITICS = ("pooled", "trunk", "shared")
"""A network of its own that pools limbs, a trunk of its own like the actor's, or the actor's trunk."""


class PooledCritic(nn.Module):
    """The value of a body as a set of limbs: each read by one network, then pooled, then valued.

    After Zaheer et al., "Deep sets", NeurIPS 2017, with the mean and the largest over limbs. A value asks
    less of a network than actions do: it needs no messages between limbs. Having parameters of its own,
    it leaves the actor's trunk to the policy gradient; that a shared trunk costs returns is known
    (Andrychowicz et al., "What matters in on-policy reinforcement learning?", 2021, section 3.2), and a
    second trunk would cost half the learner's speed.

    Args:
        spec: What the columns of ``tokens`` and ``joints`` mean.
        width: Size of a limb's embedding.
    """

    def __init__(self, spec: TokenSpec, width: int) -> None:
        super().__init__()
        self.reader = LimbReader(spec, width)
        self.limb = linear(width, width, RELU_GAIN)
        self.pooled = linear(2 * width, 2 * width, RELU_GAIN)
        self.value = linear(2 * width, 1)

    def forward(self, tokens: Tensor, joints: Tensor, joint_mask: Tensor, mask: Tensor) -> Tensor:
        """From (B, N, F), (B, N, J, G), (B, N, J) and (B, N) to values (B,)."""
        x = self.reader(tokens, joints, joint_mask)  # x: (B, N, width)
        x = functional.relu(self.limb(norm(x)))  # at least 0, so that padding, as 0, is no maximum
        exists = (mask != 0).to(x.dtype).unsqueeze(-1)  # exists: (B, N, 1)
        mean = masked_mean(x.mT, mask.unsqueeze(-2))  # mean: (B, width)
        x = torch.cat((mean, (x * exists).amax(-2)), -1)  # x: (B, 2 width)
        return self.value(functional.relu(self.pooled(norm(x)))).squeeze(-1)
