"""Patches in any order, read by learned queries into a few latents that attend to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import whole_number
from ...envs.tokens import TokenSpec
from .attention import Block, Queries
from .base import Memory, Observation
from .jigsaw import Jigsaw
from .layers import RELU_GAIN, linear, masked_mean, norm
from .patch_policy import PatchPolicy
from .sensor_policy import check_weight, tanh_network

CHANGE_SCALE = 4.0
"""Of the differences between frames, which are small against the grey levels themselves."""


class PatchTransformer(PatchPolicy):
    """One network reads every patch's last frames; latents gather from all of them and then confer.

    Of the family of Lee et al., "Set transformer", ICML 2019, and Jaegle et al., "Perceiver", ICML 2021:
    the work grows with the number of patches, not with its square. Nothing tells a patch where it is; where
    the environment keeps traces of slots (``env.senses.traces``), a small network guesses it from these,
    and where it looks for neighbours (``env.senses.neighbors``), slots tell these what they believe: see
    `Jigsaw`. With ``identify``, training asks it for the row and the column of every patch, as an auxiliary
    loss.

    Args:
        spec: What the columns of ``tokens`` mean.
        n_actions, n_recent, discrete, n_privileged: of the task, as in `SensorPolicy`.
        width: Size of a patch's embedding and of a latent.
        latents: Learned queries.
        size: Of what a latent gathers.
        layers: Blocks among the latents.
        heads: Of these; ``width`` is a multiple.
        feedforward: Hidden size of a block's feed-forward layer.
        head: Size of the hidden layer before the actions.
        place: Hidden layers of the guess where a patch is.
        rounds: Of messages between neighbours, where these are looked for.
        identify: Weight of the cross-entropies of the row and the column of every patch; 0: not asked.
        grid: Rows and columns of patches that are told apart; of use to ``identify`` and to neighbours.
        critic: ``privileged`` or ``shared``.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.

    Raises:
        UserError: ``width`` is no multiple of ``heads``, ``identify`` is no weight, or there are no traces
            to guess from.
    """

    training_sizes = (*PatchPolicy.training_sizes, "grid")

    def __init__(
        self,
        spec: TokenSpec,
        n_actions: int,
        n_recent: int,
        discrete: bool = False,
        n_privileged: int = 0,
        width: int = 64,
        latents: int = 24,
        size: int = 32,
        layers: int = 1,
        heads: int = 2,
        feedforward: int = 128,
        head: int = 128,
        place: int = 48,
        rounds: int = 8,
        identify: float = 0.0,
        grid: Sequence[int] = (0, 0),
        critic: str = "privileged",
        initial_log_std: float = -0.5,
    ) -> None:
        if width % heads:
            raise UserError(f"width must be a multiple of heads, got width {width} and heads {heads}")
        check_weight(identify)
        if identify and not spec.trace_size:
            raise UserError("agent.identify asks where a patch is, which shows in env.senses.traces=[30,250]")
        whole_number(rounds, "agent.rounds", 1)
        super().__init__(
            spec, n_actions, n_recent, discrete, n_privileged, latents * width, critic, initial_log_std
        )
        self.width, self.latents, self.size = width, latents, size
        self.layers, self.heads, self.feedforward, self.head = layers, heads, feedforward, head
        self.place, self.rounds, self.identify, self.grid = place, rounds, identify, tuple(grid)
        self.patch = linear(spec.token_size, width, RELU_GAIN)
        self.register_buffer("changes", _changes(n_recent), persistent=False)
        self.actions = linear(self.action_inputs, width, RELU_GAIN, bias=False)
        if spec.trace_size:
            first, second = linear(spec.trace_size, place, RELU_GAIN), linear(place, place, RELU_GAIN)
            self.guess = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
            self.placed = linear(place, width, RELU_GAIN, bias=False)
        if identify or spec.has_neighbors:
            self.identity = linear(place, sum(self.grid))
        if spec.has_neighbors:
            self.jigsaw = Jigsaw(self.grid, rounds)
            self.believed = linear(sum(self.grid), width, RELU_GAIN, bias=False)
        self.embed = linear(width, width, RELU_GAIN)
        self.gather = Queries(width, latents, size)
        self.widen = linear(size, width)
        # Tells the latents apart when they confer.
        self.names = nn.Parameter(torch.empty(latents, width).normal_(std=0.5))
        self.blocks = nn.ModuleList(
            Block(width, heads, feedforward, 1 / math.sqrt(2 * layers)) for _ in range(layers)
        )
        self.action = tanh_network(latents * width, head, 1, n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """What the latents know in the end, (B, latents * width), and the empty memory."""
        return self._read(*self._patches(observation, *self._places(observation))), memory

    @property
    def has_auxiliary_loss(self) -> bool:
        """Whether it is asked where each patch is."""
        return self.identify > 0

    def encode_to_learn(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """The same, and the cross-entropies of rows and columns, (B,), times ``identify``."""
        places, beliefs = self._places(observation)
        logits = self.identity(places) if beliefs is None else beliefs
        where, losses = observation["sensor"].long(), 0.0
        is_patch = (where < math.prod(self.grid)) & (observation["mask"] != 0)  # noise is nowhere
        where, columns = where.clamp(max=math.prod(self.grid) - 1), self.grid[1]
        rows_and_columns = logits.mT.split(self.grid, 1)  # (B, rows, N) and (B, columns, N)
        for guesses, right in zip(rows_and_columns, (where // columns, where % columns), strict=True):
            losses = losses + functional.cross_entropy(guesses, right, reduction="none")  # (B, N)
        features = self._read(*self._patches(observation, places, beliefs))
        return features, self.identify * masked_mean(losses, is_patch)

    def _read(self, x: Tensor, exists: Tensor) -> Tensor:
        """What the latents know in the end, (B, latents * width)."""
        latents = self.widen(self.gather(x, exists).unflatten(-1, (self.latents, self.size))) + self.names
        for block in self.blocks:  # latents: (B, latents, width)
            latents = block(latents, torch.ones_like(latents[..., 0]).unsqueeze(-2), None)
        return norm(latents).flatten(-2)

    def _places(self, observation: Observation) -> tuple[Tensor | None, Tensor | None]:
        """Guesses where patches are, (B, N, place), None without traces; and what slots come to believe.

        The beliefs are logits of rows and columns, (B, N, R + C); None without neighbours.
        """
        if not self.spec.trace_size:
            return None, None
        traces = self.normalizer.traces(observation)
        guesses = self.guess(traces)
        if not self.spec.has_neighbors:
            return guesses, None
        matches = traces[..., self.spec.trace_slice("match")]
        neighbors, mask = observation["neighbors"], observation["mask"]
        return guesses, self.jigsaw(self.identity(guesses), matches, neighbors, mask)

    def _patches(
        self, observation: Observation, places: Tensor | None, beliefs: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embedded patches (B, N, width), and which exist, (B, 1, N) of 0 and 1."""
        tokens = observation["tokens"].to(self.patch.bias.dtype)  # tokens: (B, N, K * D)
        # What reads differences between frames reads frames: it is the weights that are combined, which are
        # few, and not the pixels.
        weight = torch.matmul(self.changes, self.patch.weight.unflatten(-1, (self.n_recent, -1)))
        recent = self.actions(self.recent(observation)).unsqueeze(-2)  # recent: (B, 1, width)
        x = functional.linear(tokens, weight.flatten(-2), self.patch.bias)
        x = x + recent if places is None else x + recent + self.placed(places)
        if beliefs is not None:
            rows_and_columns = [logits.softmax(-1) for logits in beliefs.split(self.grid, -1)]
            x = x + self.believed(torch.cat(rows_and_columns, -1))
        x = functional.relu(x)  # x: (B, N, width)
        x = norm(functional.relu(self.embed(x)))
        return x, (observation["mask"] != 0).to(x.dtype).unsqueeze(-2)

    def attention(self, observation: Observation) -> Tensor:
        """Share of the latents' attention that each patch gets, (B, N)."""
        patches = self._patches(observation, *self._places(observation))
        weights = self.gather.weights(*patches)  # weights: (B, latents, N)
        return (weights / weights.sum(-1, keepdim=True)).mean(-2)

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, A) in (-1, 1), or logits (B, A)."""
        return self.bounded(self.action(features))


def _changes(frames: int) -> Tensor:
    """(K, K): column k makes, of grey levels, the newest frame or how frame k differs from the one after it.

    Weights (..., K, D) for these become weights for the frames by a product from the left.
    """
    matrix = torch.zeros(frames, frames)
    matrix[0, 0] = 1.0
    for k in range(1, frames):
        matrix[k - 1, k], matrix[k, k] = CHANGE_SCALE, -CHANGE_SCALE
    return matrix / 255
