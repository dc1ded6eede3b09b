"""Attention among tokens, and from learned queries to them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import RELU_GAIN, linear, norm

SCORE_LIMIT = 50.0
"""Attention scores are clipped to plus and minus this; its exponential is far from any overflow."""

NO_TOTAL = 1e-30
"""Added to sums of weights, so that tokens that are all padding give 0."""


class Block(nn.Module):
    """Pre-norm attention and feed-forward layers (Xiong et al., "On layer normalization", 2020).

    The usual projection after attention is left out: each head writes its values into its own part of
    the residual stream, and the feed-forward layer mixes them (He and Hofmann, "Simplifying transformer
    blocks", ICLR 2024, find no loss). Attention is written out, because fused attention has no fast path
    under ``vmap`` and was no faster for a dozen tokens.
    """

    def __init__(self, width: int, heads: int, feedforward: int, residual_gain: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        parts = self.query_key_value.weight.detach().chunk(3)
        for part, gain in zip(parts, (1, 1, residual_gain), strict=True):
            nn.init.orthogonal_(part, gain)
        self.up = linear(width, feedforward, RELU_GAIN)
        self.down = linear(feedforward, width, residual_gain)

    def forward(self, x: Tensor, exists: Tensor, related: tuple[Tensor, ...] | None) -> Tensor:
        """From tokens (B, N, width) to tokens; ``related`` are scores (B, N, N) to add, one per head."""
        x = x + self.attend(norm(x), exists, related)
        return x + self.down(functional.relu(self.up(norm(x))))

    def attend(self, x: Tensor, exists: Tensor, related: tuple[Tensor, ...] | None) -> Tensor:
        """Softmax attention to tokens that exist, (B, 1, N) of 0 and 1; heads side by side, (B, N, width)."""
        size = x.shape[-1] // self.heads
        # Views of one product, one per head: batched products take them without the copies that a
        # dimension for heads would need.
        parts = self.query_key_value(x).split(size, dim=-1)  # each: (B, N, size)
        results = []
        for head in range(self.heads):
            query, key, value = parts[head :: self.heads]
            weights = _weights(query, key, exists, None if related is None else related[head])
            total = weights.sum(-1, keepdim=True) + NO_TOTAL
            results.append(torch.matmul(weights, value) / total)  # each: (B, N, size)
        return torch.cat(results, dim=-1)

    def shares(self, x: Tensor, exists: Tensor, related: tuple[Tensor, ...] | None) -> Tensor:
        """What `forward` lets each token take from each, (B, N, N), [reader, read], the mean over heads.

        A row sums to 1 over the tokens that exist. To look at: `forward` does not need it.
        """
        x = norm(x)
        parts = self.query_key_value(x).split(x.shape[-1] // self.heads, dim=-1)
        shares = []
        for head in range(self.heads):
            query, key, _ = parts[head :: self.heads]
            weights = _weights(query, key, exists, None if related is None else related[head])
            shares.append(weights / (weights.sum(-1, keepdim=True) + NO_TOTAL))
        return torch.stack(shares).mean(0)


def _weights(query: Tensor, key: Tensor, exists: Tensor, related: Tensor | None) -> Tensor:
    """Of one head, (B, N, N), [query, key], not yet divided by their sum."""
    scores = torch.matmul(query * (1 / math.sqrt(query.shape[-1])), key.mT)  # scores: (B, N, N)
    if related is not None:
        scores = scores + related
    # Bounded scores need no maximum subtracted, whose search over a few tokens would cost more
    # than the products; what is bounded is a ratio of attentions beyond exp(50).
    return scores.clamp(-SCORE_LIMIT, SCORE_LIMIT).exp() * exists


class Queries(nn.Module):
    """Learned queries that read a set of tokens into a vector of constant size.

    After Lee et al., "Set transformer", ICML 2019, section 3.2 (pooling by attention), with one head for
    every query and without the layers around it.

    Args:
        width: of the tokens.
        queries: how many.
        size: of a key and of a value.
    """

    def __init__(self, width: int, queries: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.queries = nn.Parameter(torch.empty(queries, size))
        nn.init.normal_(self.queries)
        self.key = linear(width, size, bias=False)
        self.value = linear(width, size, bias=False)

    def forward(self, x: Tensor, exists: Tensor) -> Tensor:
        """From tokens (B, N, width) and (B, 1, N) of 0 and 1 to (B, queries * size)."""
        weights = self.weights(x, exists)
        read = torch.matmul(weights, self.value(x)) / (weights.sum(-1, keepdim=True) + NO_TOTAL)
        return read.flatten(-2)

    def weights(self, x: Tensor, exists: Tensor) -> Tensor:
        """What each query gives to each token, (B, queries, N), not yet divided by its sum."""
        scores = torch.matmul(self.queries / math.sqrt(self.size), self.key(x).mT)  # (B, queries, N)
        return scores.clamp(-SCORE_LIMIT, SCORE_LIMIT).exp() * exists

    def shares(self, x: Tensor, exists: Tensor) -> Tensor:
        """Share of the queries' attention that each token gets, (B, N), the mean over queries."""
        weights = self.weights(x, exists)
        return (weights / (weights.sum(-1, keepdim=True) + NO_TOTAL)).mean(-2)
