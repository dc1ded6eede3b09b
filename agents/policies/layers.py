"""Layers that policies share: linear and convolutional ones, attention, a recurrent cell for every token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import whole

LARGEST_SIZE = 65_536
"""Of an argument of a network."""

SIZE, REPEATS = whole(1, LARGEST_SIZE), whole(1, 64)

RELU_GAIN = math.sqrt(2)
TANH_GAIN = 5 / 3

SCORE_LIMIT = 50.0
"""Attention scores are clipped to plus and minus this; its exponential is far from any overflow."""

NO_TOTAL = 1e-30
"""Added to sums of weights, so that tokens that are all padding give 0."""


def linear(inputs: int, outputs: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """Linear layer with orthogonal weights times ``gain`` and zero bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.orthogonal_(layer.weight, gain)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def perceptron(
    inputs: int, width: int, layers: int, outputs: int, gain: float, relu: bool = False
) -> nn.Sequential:
    """``layers`` hidden layers with tanh, or ReLU, and a last one whose weights start with ``gain``."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [linear(inputs, width, RELU_GAIN if relu else TANH_GAIN), nn.ReLU() if relu else nn.Tanh()]
        inputs = width
    return nn.Sequential(*parts, linear(inputs, outputs, gain))


def convolutions(*layers: Sequence[int]) -> nn.Sequential:
    """Convolutions of (inputs, outputs, size of the kernel, stride, padding), ReLUs, and flattened."""
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


def existing(observation: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """(B, 1, N), 1 where a token exists and 0 where none does, in the number type of ``like``."""
    return (observation["mask"] != 0).to(like.dtype).unsqueeze(-2)


def heads_divide_width(arguments: Mapping[str, Any]) -> None:
    """Raises UserError: the heads of attention do not share ``width`` evenly."""
    width, heads = arguments["width"], arguments["heads"]
    if width % heads:
        raise UserError(f"agent.width must be a multiple of agent.heads, got {width} and {heads}")


def _attention(scores: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of softmax attention, not yet divided by their sums over the last dimension; these sums.

    Bounded scores need no maximum subtracted, whose search over a few tokens would cost more than the
    products; what is bounded is a ratio of attentions beyond exp(50).
    """
    weights = scores.clamp(-SCORE_LIMIT, SCORE_LIMIT).exp() * exists
    return weights, weights.sum(-1, keepdim=True) + NO_TOTAL


class Beside(NamedTuple):
    """What attention takes beside the tokens.

    Args:
        exists: (B, 1, N) of 0 and 1.
        related: Scores to add, (B, N, N) for each head.
        asking: What queries and keys are made from, (B, N, width), normalised; None: from the tokens.
    """

    exists: Tensor
    related: tuple[Tensor, ...] | None = None
    asking: Tensor | None = None


class Block(nn.Module):
    """Pre-norm attention and feed-forward layers (Xiong et al., "On layer normalization", 2020).

    The usual projection after attention is left out: each head writes its values into its own part of
    the residual stream, and the feed-forward layer mixes them (He and Hofmann, "Simplifying transformer
    blocks", ICLR 2024, find no loss). Attention is written out, because fused attention has no fast path
    under ``vmap`` and was no faster for a dozen tokens.

    Methods take tokens x (B, N, width) and what is `Beside` them.
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

    def forward(self, x: Tensor, beside: Beside) -> Tensor:
        """Tokens (B, N, width)."""
        heads = self._heads(norm(x), beside)
        x = x + torch.cat([torch.matmul(weights, value) / total for weights, total, value in heads], -1)
        return x + self.down(functional.relu(self.up(norm(x))))

    def shares(self, x: Tensor, beside: Beside) -> Tensor:
        """What `forward` lets each token take from each, (B, N, N), [reader, read], the mean over heads.

        A row sums to 1 over the tokens that exist. To look at: `forward` does not need it.
        """
        heads = self._heads(norm(x), beside)
        return torch.stack([weights / total for weights, total, _ in heads]).mean(0)

    def _heads(self, x: Tensor, beside: Beside) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each head: weights (B, N, N), [query, key]; their sums (B, N, 1); values (B, N, size)."""
        exists, related, asking = beside
        size = x.shape[-1] // self.heads
        # Views of one product, one per head: batched products take them without the copies that a
        # dimension for heads would need.
        if asking is None:
            parts = self.query_key_value(x).split(size, dim=-1)  # each: (B, N, size)
        else:
            ask, tell = self.query_key_value.weight.tensor_split([2 * x.shape[-1]])
            asked, told = functional.linear(asking, ask), functional.linear(x, tell)
            parts = (*asked.split(size, dim=-1), *told.split(size, dim=-1))
        for head in range(self.heads):
            query, key, value = parts[head :: self.heads]
            scores = torch.matmul(query * (1 / math.sqrt(size)), key.mT)  # scores: (B, N, N)
            yield *_attention(scores if related is None else scores + related[head], exists), value


def blocks(layers: int, width: int, heads: int, feedforward: int) -> nn.ModuleList:
    """Blocks, each of which adds twice to the residual stream: its scale does not depend on their number."""
    gain = 1 / math.sqrt(2 * layers)
    return nn.ModuleList(Block(width, heads, feedforward, gain) for _ in range(layers))


class Queries(nn.Module):
    """Learned queries that read tokens (B, N, width) into a vector of constant size.

    After Lee et al., "Set transformer", ICML 2019, section 3.2 (pooling by attention), with one head for
    every query and without the layers around it. ``size`` is that of a key and of a value.
    """

    def __init__(self, width: int, queries: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.queries = nn.Parameter(torch.empty(queries, size))
        nn.init.normal_(self.queries)
        self.key = linear(width, size, bias=False)
        self.value = linear(width, size, bias=False)

    def forward(self, x: Tensor, exists: Tensor) -> Tensor:
        """(B, queries * size); ``exists`` is (B, 1, N) of 0 and 1."""
        weights, total = self._weights(x, exists)
        return (torch.matmul(weights, self.value(x)) / total).flatten(-2)

    def shares(self, x: Tensor, exists: Tensor) -> Tensor:
        """Share of the queries' attention that each token gets, (B, N), the mean over queries."""
        weights, total = self._weights(x, exists)
        return (weights / total).mean(-2)

    def _weights(self, x: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
        """What each query gives to each token, (B, queries, N), and its sums (B, queries, 1)."""
        return _attention(torch.matmul(self.queries / math.sqrt(self.size), self.key(x).mT), exists)


class TokenLSTM(nn.Module):
    """LSTM cell (Hochreiter and Schmidhuber 1997) with PyTorch's parameters, order of gates and start.

    It is written out: ``nn.LSTMCell`` has no rule for batches of parameters (``torch.func.vmap``).
    ``hidden`` is H, the size of its state.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden)

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))

        self.hidden = hidden
        self.weight_ih = uniform(4 * hidden, inputs)
        self.weight_hh = uniform(4 * hidden, hidden)
        self.bias_ih = uniform(4 * hidden)
        self.bias_hh = uniform(4 * hidden)

    def initial(self, batch_size: int, n_tokens: int) -> dict[str, Tensor]:
        """Hidden and cell state (B, N, H) of zeros."""
        zeros = self.weight_hh.new_zeros(batch_size, n_tokens, self.hidden)
        return {"hidden": zeros, "cell": zeros}

    def forward(
        self, own: Tensor, common: Tensor, memory: dict[str, Tensor], mask: Tensor
    ) -> dict[str, Tensor]:
        """The next hidden and cell state (B, N, H); a token that is missing in ``mask`` (B, N) keeps its.

        Inputs are each token's ``own`` (B, N, ...), which come first, and those ``common`` to all (B, ...).
        """
        lead = mask.shape
        hidden, before = (memory[key].flatten(0, -2).mT for key in ("hidden", "cell"))  # (H, B * N)
        told = torch.cat((own, common.unsqueeze(-2).expand(*lead, common.shape[-1])), -1)
        told = told.flatten(0, -2).mT  # told: (inputs, B * N)
        # One product for all of it. Its rows are gates, so that each gate's numbers lie together:
        # vectorised functions are several times as fast on long stretches of memory as on short ones.
        columns = torch.cat((hidden, told, torch.ones_like(told[:1])))
        weights = torch.cat((self.weight_hh, self.weight_ih, (self.bias_ih + self.bias_hh).unsqueeze(-1)), 1)
        enter, keep, candidate, leave = torch.matmul(weights, columns).chunk(4)  # each (H, B * N)
        cell = keep.sigmoid() * before + enter.sigmoid() * candidate.tanh()
        after = leave.sigmoid() * cell.tanh()
        there = (mask != 0).flatten()
        return {
            "hidden": torch.where(there, after, hidden).mT.unflatten(0, lead),
            "cell": torch.where(there, cell, before).mT.unflatten(0, lead),
        }
