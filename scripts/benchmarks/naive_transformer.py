"""The rival of the limb transformer: the same idea from PyTorch's ready parts."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from ...agents.policies import Observation
from ...agents.policies.limb_policy import LimbPolicy
from ...envs.tokens import TokenSpec


class NaiveTransformer(LimbPolicy):
    """What one writes first: ``nn.TransformerEncoder`` over limbs, and a second one for the critic.

    Layers, attention and their initialisation are as PyTorch ships them (normalisation after each
    residual sum, bias everywhere); dropout alone is off, since PPO compares probabilities of the same
    network before and after an update. Embedding a limb is one linear layer on its token beside the sum
    of its joint rows. Normaliser, heads and exploration scale are those of every policy here, so it
    trains with the same code; it cannot be saved as a run's policy.

    Args:
        spec: What the columns of ``tokens`` and ``joints`` mean.
        width: Size of a limb's embedding; a multiple of ``heads``.
        layers: Number of encoder layers.
        heads: Number of attention heads.
        feedforward: Hidden size of a layer's feed-forward network.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.
    """

    def __init__(
        self,
        spec: TokenSpec,
        width: int = 64,
        layers: int = 2,
        heads: int = 2,
        feedforward: int = 128,
        initial_log_std: float = -0.5,
    ) -> None:
        make_encoder = functools.partial(_Encoder, spec, width, layers, heads, feedforward)
        super().__init__(spec, make_encoder, width, "trunk", initial_log_std=initial_log_std)
        self.layers, self.heads, self.feedforward = layers, heads, feedforward


class _Encoder(nn.Module):
    """From normalised tokens (B, N, F) and joints (B, N, J, G) to limb features (B, N, width)."""

    def __init__(self, spec: TokenSpec, width: int, layers: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(spec.token_size + spec.joint_size, width)
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.0, batch_first=True)
        # Nested tensors are a prototype that warns, and with seven limbs made this three times slower.
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        limbs = torch.cat((tokens, joints.sum(-2)), -1)  # limbs: (B, N, F + G); padding is zero
        return self.encoder(self.embedding(limbs), src_key_padding_mask=observation["mask"] == 0)
