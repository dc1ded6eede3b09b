"""The rival of the limb transformer: the same idea from PyTorch's ready parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...agents.policies import Memory, Observation, Policy
from ...agents.policies.layers import JointHead, ValueHead
from ...envs.tokens import TokenSpec


class NaiveTransformer(Policy):
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
        super().__init__(spec, initial_log_std)
        self.width, self.layers, self.heads, self.feedforward = width, layers, heads, feedforward
        self.actor = _Encoder(spec, width, layers, heads, feedforward)
        self.critic = _Encoder(spec, width, layers, heads, feedforward)
        self.action_head = JointHead(spec, width)
        self.value_head = ValueHead(width)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """Features of the limbs, (B, N, width), meaningless at padding, and the empty memory."""
        return self.actor(*self.normalizer(observation), observation["mask"]), memory

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, N, J) in nominal units, 0 where ``action_mask`` is 0."""
        return self.action_head(features, self.normalizer.joints(observation), observation["action_mask"])

    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,): mean over limbs of the critic's own encoder."""
        features = self.critic(*self.normalizer(observation), observation["mask"])
        return self.value_head(features, observation["mask"])


class _Encoder(nn.Module):
    """From normalised tokens (B, N, F) and joints (B, N, J, G) to limb features (B, N, width)."""

    def __init__(self, spec: TokenSpec, width: int, layers: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(spec.token_size + spec.joint_size, width)
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.0, batch_first=True)
        # Nested tensors are a prototype that warns, and with seven limbs made this three times slower.
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, joints: Tensor, mask: Tensor) -> Tensor:
        limbs = torch.cat((tokens, joints.sum(-2)), -1)  # limbs: (B, N, F + G); padding is zero
        return self.encoder(self.embedding(limbs), src_key_padding_mask=mask == 0)
