"""A transformer over limbs: every limb attends to every other, whatever the body."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.numbers import FLAG, checked, one_of
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .layers import REPEATS, SIZE, blocks, heads_divide_width, norm
from .limb_policy import CRITICS, LimbPolicy, LimbReader, relations

TREE_LIMIT = 4
"""Depths and steps along the tree above this number are not told apart."""


class Trunk(nn.Module):
    """Reader and blocks: from normalised tokens and joints to limb features (B, N, width)."""

    doublings: int | None = None
    """See `relations`."""

    def __init__(
        self, spec: TokenSpec, width: int, layers: int, heads: int, feedforward: int, tree_encoding: bool
    ) -> None:
        super().__init__()
        self.reader = LimbReader(spec, width)
        self.blocks = blocks(layers, width, heads, feedforward)
        self.tree_encoding = tree_encoding
        if tree_encoding:
            self.depth = nn.Parameter(torch.zeros(TREE_LIMIT + 1, width))
            self.relation = nn.Parameter(torch.zeros((TREE_LIMIT + 1) ** 2 + 1, heads))
            nn.init.normal_(self.depth, std=0.1)
            nn.init.normal_(self.relation, std=0.1)

    def forward(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        """From (B, N, F) and (B, N, J, G) to (B, N, width)."""
        x, exists, related = self._read(tokens, joints, observation)
        for block in self.blocks:
            x = block(x, exists, related)
        return norm(x)

    def attention(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        """What each limb takes from each in `forward`, (B, layers, N, N), [layer, reader, read]."""
        x, exists, related = self._read(tokens, joints, observation)
        layers = []
        for block in self.blocks:
            layers.append(block.shares(x, exists, related) * exists.mT)
            x = block(x, exists, related)
        return torch.stack(layers, 1)

    def _read(
        self, tokens: Tensor, joints: Tensor, observation: Observation
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...] | None]:
        """Limbs (B, N, width), which exist (B, 1, N), and the scores of their relations."""
        x = self.reader(tokens, joints, observation["joint_mask"])  # x: (B, N, width)
        exists = (observation["mask"] != 0).to(x.dtype).unsqueeze(-2)  # exists: (B, 1, N)
        related = None
        if self.tree_encoding:
            parent, mask = observation["parent"], observation["mask"]
            depth, relation = relations(parent, mask, TREE_LIMIT, self.doublings)
            x = x + functional.embedding(depth, self.depth)
            related = functional.embedding(relation, self.relation).unbind(-1)  # each: (B, N, N)
        return x, exists, related


@checked("agent", heads_divide_width)
class LimbTransformer(LimbPolicy):
    """Transformer over limb tokens.

    After Amorpheus (Kurin et al., "My body is a cage", ICLR 2021) and MetaMorph (Gupta et al., ICLR
    2022), with ``tree_encoding`` after SWAT (Hong et al., "Structure-aware transformer policy for
    inhomogeneous multi-task RL", ICLR 2022). SWAT numbers limbs by traversals, which depend on the
    order of children; here a limb is told its depth, and attention the path between two limbs (steps
    up, steps down), which do not.

    Args:
        width: Size of a limb's embedding; a multiple of ``heads``.
        layers: Number of blocks.
        heads: Number of attention heads.
        feedforward: Hidden size of a block's feed-forward layer.
        tree_encoding: Tell depth and relations from ``parent``.
        critic: as in `LimbPolicy`.

    Raises:
        UserError: ``width`` is no multiple of ``heads``, or ``critic`` is none of these.
    """

    def __init__(
        self,
        spec: TokenSpec,
        width: Annotated[int, SIZE] = 64,
        layers: Annotated[int, REPEATS] = 2,
        heads: Annotated[int, REPEATS] = 2,
        feedforward: Annotated[int, SIZE] = 64,
        tree_encoding: Annotated[bool, FLAG] = False,
        critic: Annotated[str, one_of(*CRITICS)] = "pooled",
        **common: Any,
    ) -> None:
        make_trunk = functools.partial(Trunk, spec, width, layers, heads, feedforward, tree_encoding)
        super().__init__(spec, make_trunk, width, critic, **common)
        self.layers, self.heads, self.feedforward = layers, heads, feedforward
        self.tree_encoding = tree_encoding

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """What each limb takes from each, (B, layers, N, N), [layer, reader, read]; mean over heads."""
        return self.trunk.attention(*self.normalizer(observation), observation)
