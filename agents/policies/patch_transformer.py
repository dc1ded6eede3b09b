"""Patches in any order, read by learned queries into a few latents that attend to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import checked, real
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .layers import RELU_GAIN, REPEATS, SIZE, Queries, blocks, heads_divide_width, linear, norm, perceptron
from .sensor_policy import PatchPolicy, difference_weights, losses_of_places


@checked("agent", heads_divide_width)
class PatchTransformer(PatchPolicy):
    """One network reads every patch's last frames; latents gather from all of them and then confer.

    Of the family of Lee et al., "Set transformer", ICML 2019, and Jaegle et al., "Perceiver", ICML 2021:
    the work grows with the number of patches, not with its square. Nothing tells a patch where it is; where
    the environment keeps traces of slots (``env.senses.traces``), a small network guesses it from these.
    With ``identify``, training asks it for the row and the column of every patch, as an auxiliary loss.

    Args:
        width: Size of a patch's embedding and of a latent.
        latents: Learned queries.
        size: Of what a latent gathers.
        layers: Blocks among the latents.
        heads: Of these; ``width`` is a multiple.
        feedforward: Hidden size of a block's feed-forward layer.
        head: Size of the hidden layer before the actions.
        place: Hidden layers of the guess where a patch is.
        identify: Weight of the cross-entropies of the row and the column of every patch; 0: not asked.
        grid: Rows and columns of patches that are told apart; of use to ``identify`` alone.

    Raises:
        UserError: ``width`` is no multiple of ``heads``, ``identify`` is no weight, or there are no traces
            to guess from.
    """

    training_modules = (*PatchPolicy.training_modules, "identity")
    training_sizes = (*PatchPolicy.training_sizes, "grid")

    def __init__(
        self,
        spec: TokenSpec,
        width: Annotated[int, SIZE] = 64,
        latents: Annotated[int, SIZE] = 24,
        size: Annotated[int, SIZE] = 32,
        layers: Annotated[int, REPEATS] = 1,
        heads: Annotated[int, REPEATS] = 2,
        feedforward: Annotated[int, SIZE] = 128,
        head: Annotated[int, SIZE] = 128,
        place: Annotated[int, SIZE] = 48,
        identify: Annotated[float, real(0)] = 0.0,
        grid: Sequence[int] = (0, 0),
        **task: Any,
    ) -> None:
        if identify and not spec.trace_size:
            raise UserError("agent.identify asks where a patch is, which shows in env.senses.traces=[30,250]")
        super().__init__(spec, latents * width, **task)
        self.width, self.latents, self.size = width, latents, size
        self.layers, self.heads, self.feedforward, self.head = layers, heads, feedforward, head
        self.place, self.identify, self.grid = place, identify, tuple(grid)
        self.patch = linear(spec.token_size, width, RELU_GAIN)
        self.actions = linear(self.action_inputs, width, RELU_GAIN, bias=False)
        if spec.trace_size:
            first, second = linear(spec.trace_size, place, RELU_GAIN), linear(place, place, RELU_GAIN)
            self.guess = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
            self.placed = linear(place, width, RELU_GAIN, bias=False)
        if identify:
            self.identity = linear(place, sum(self.grid))
        self.embed = linear(width, width, RELU_GAIN)
        self.gather = Queries(width, latents, size)
        self.widen = linear(size, width)
        # Tells the latents apart when they confer.
        self.names = nn.Parameter(torch.empty(latents, width).normal_(std=0.5))
        self.blocks = blocks(layers, width, heads, feedforward)
        self.action = perceptron(latents * width, head, 1, self.n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """What the latents know in the end, (B, latents * width), and the empty memory."""
        return self._read(*self._patches(observation, self._places(observation))), memory

    def encode_to_learn(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """The same, and the cross-entropies of rows and columns, (B,), times ``identify``."""
        places = self._places(observation)
        losses = losses_of_places(self.identity(places), observation, self.grid)
        return self._read(*self._patches(observation, places)), self.identify * losses

    def _read(self, x: Tensor, exists: Tensor) -> Tensor:
        """What the latents know in the end, (B, latents * width)."""
        latents = self.widen(self.gather(x, exists).unflatten(-1, (self.latents, self.size))) + self.names
        for block in self.blocks:  # latents: (B, latents, width)
            latents = block(latents, torch.ones_like(latents[..., 0]).unsqueeze(-2), None)
        return norm(latents).flatten(-2)

    def _places(self, observation: Observation) -> Tensor | None:
        """Guesses where patches are, (B, N, place); None without traces."""
        return self.guess(self.normalizer.traces(observation)) if self.spec.trace_size else None

    def _patches(self, observation: Observation, places: Tensor | None) -> tuple[Tensor, Tensor]:
        """Embedded patches (B, N, width), and which exist, (B, 1, N) of 0 and 1."""
        tokens = observation["tokens"].to(self.patch.bias.dtype)  # tokens: (B, N, K * D)
        weight = difference_weights(self.patch.weight, self.n_recent)
        recent = self.actions(self.recent(observation)).unsqueeze(-2)  # recent: (B, 1, width)
        x = functional.linear(tokens, weight, self.patch.bias)
        x = x + recent if places is None else x + recent + self.placed(places)
        x = functional.relu(x)  # x: (B, N, width)
        x = norm(functional.relu(self.embed(x)))
        return x, (observation["mask"] != 0).to(x.dtype).unsqueeze(-2)

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """Share of the latents' attention that each patch gets, (B, N)."""
        return self.gather.shares(*self._patches(observation, self._places(observation)))
