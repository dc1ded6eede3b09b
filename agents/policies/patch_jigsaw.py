"""Patches in any order, put together again as far as one can tell where they belong, and looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import checked, one_of, real, whole
from ...envs.tokens import TokenSpec
from .attention import NO_TOTAL
from .base import Memory, Observation
from .choices import Discrete
from .jigsaw import Jigsaw
from .layers import LOG_STD, RELU_GAIN, SIZE, convolutions, linear, norm
from .patch_policy import PatchPolicy, difference_weights, losses_of_places
from .sensor_policy import SENSOR_CRITICS, tanh_network

CHANNELS = (32, 48, 48)
"""Of the convolutions over the screen, of which the second and the third halve its sides."""

NOTHING = 0.1
"""Patches that a place of the screen must hold to count as full."""


@checked("agent")
class PatchJigsaw(PatchPolicy):
    """Every patch finds out where it is; places of the screen attend to the patches that may be theirs.

    One small network guesses the row and the column of each patch from the traces of its slot
    (``env.senses.traces``), neighbours agree on them where they are looked for (``env.senses.neighbors``,
    see `Jigsaw`), and another reads its last frames. Then each place of the screen takes the mean of what
    the patches hold, weighted by how much they are believed to be there: attention whose weights are
    beliefs. What comes of it is a picture, dim where places are doubtful, for an ordinary convolutional
    network. Nothing of it depends on the order of the slots.

    Where patches are is learnt from training's question alone (``identify``), as an auxiliary loss; what to
    do about it, from the task. The last actions are not read: a student that sees them learns to go on with
    what its teacher did, not why (de Haan, Jayaraman, Levine, "Causal confusion in imitation learning",
    NeurIPS 2019).

    Args:
        spec: What the columns of ``tokens`` and of ``traces`` mean.
        grid: Rows R and columns C of the screen.
        n_actions, n_recent, discrete, n_privileged: of the task, as in `SensorPolicy`.
        width: Size of what a patch holds.
        place: Hidden layers of the guess where a patch is.
        rounds: Of messages between neighbours.
        features: Size of the layer after the convolutions.
        head: Size of the hidden layer before the actions.
        identify: Weight of the cross-entropies of the row and the column of every patch; 0: not asked.
        critic: as in `SensorPolicy`.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.

    Raises:
        UserError: no traces to guess from, or numbers that cannot be meant.
    """

    def __init__(
        self,
        spec: TokenSpec,
        grid: Sequence[int],
        n_actions: int,
        n_recent: int,
        discrete: Discrete = False,
        n_privileged: int = 0,
        width: Annotated[int, SIZE] = 24,
        place: Annotated[int, SIZE] = 64,
        rounds: Annotated[int, whole(1, 256)] = 8,
        features: Annotated[int, SIZE] = 256,
        head: Annotated[int, SIZE] = 64,
        identify: Annotated[float, real(0)] = 0.1,
        critic: Annotated[str, one_of(*SENSOR_CRITICS)] = "auto",
        initial_log_std: Annotated[float, LOG_STD] = -0.5,
    ) -> None:
        if not spec.trace_size:
            raise UserError(
                "PatchJigsaw has to guess where patches are, which shows in env.senses.traces=[30,250] and "
                "env.senses.neighbors=40"
            )
        super().__init__(spec, n_actions, n_recent, discrete, n_privileged, features, critic, initial_log_std)
        self.grid, self.width, self.place, self.rounds = tuple(grid), width, place, rounds
        self.features, self.head, self.identify = features, head, identify
        first, second = linear(spec.trace_size, place, RELU_GAIN), linear(place, place, RELU_GAIN)
        self.guess = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), linear(place, sum(self.grid)))
        if spec.has_neighbors:
            matches = spec.trace_slice("match")
            self.jigsaw = Jigsaw(self.grid, rounds, matches.stop - matches.start)
        self.patch = linear(spec.token_size, width, RELU_GAIN)
        one, two, three = CHANNELS
        self.convolve = convolutions((width + 1, one, 3, 1, 1), (one, two, 3, 2, 1), (two, three, 3, 2, 1))
        size = self.convolve(torch.zeros(1, width + 1, *self.grid)).shape[1]
        self.look = linear(size, features, RELU_GAIN)
        self.action = tanh_network(features, head, 1, n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """Features (B, features) of the screen, and the empty memory."""
        return self._see(observation, self._beliefs(observation)), memory

    @property
    def has_auxiliary_loss(self) -> bool:
        """Whether it is asked where each patch is."""
        return self.identify > 0

    def encode_to_learn(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """The same, and the cross-entropies of rows and columns, (B,), times ``identify``."""
        beliefs = self._beliefs(observation)
        return self._see(observation, beliefs), self.identify * losses_of_places(
            beliefs, observation, self.grid
        )

    def _beliefs(self, observation: Observation) -> Tensor:
        """Logits (B, N, R + C) of each patch's row and column."""
        traces = self.normalizer.traces(observation)
        evidence = self.guess(traces)
        if not self.spec.has_neighbors:
            return evidence
        matches = traces[..., self.spec.trace_slice("match")]
        return self.jigsaw(evidence, matches, observation["neighbors"], observation["mask"])

    def _see(self, observation: Observation, beliefs: Tensor) -> Tensor:
        """Features (B, features) of the screen."""
        rows, columns = self._chances(observation, beliefs)
        tokens = observation["tokens"].to(rows.dtype)  # tokens: (B, N, K * D)
        weight = difference_weights(self.patch.weight, self.n_recent)
        held = torch.relu(functional.linear(tokens, weight, self.patch.bias))  # held: (B, N, width)
        held = torch.cat((held, torch.ones_like(held[..., :1])), -1)
        # What each place is given, and of how many patches: (B, R, N) times (B, N, C * (width + 1)).
        spread = (columns.unsqueeze(-1) * held.unsqueeze(-2)).flatten(-2)
        screen = (rows.mT @ spread).unflatten(-1, (columns.shape[-1], -1))  # screen: (B, R, C, width + 1)
        content, count = screen[..., :-1], screen[..., -1:]
        screen = torch.cat((content / (count + NOTHING), count), -1).permute(0, 3, 1, 2)
        # Screens have far more in common than they differ in, which would drive the head to its bounds.
        return norm(torch.relu(self.look(self.convolve(screen))))

    def _chances(self, observation: Observation, beliefs: Tensor) -> tuple[Tensor, Tensor]:
        """Of each patch, to be in each row (B, N, R) and column (B, N, C); no row where there is no patch.

        Times a factor: on average there is one patch for each place, even if all come twice.
        """
        rows, columns = (logits.softmax(-1) for logits in beliefs.detach().split(self.grid, -1))
        exists = (observation["mask"] != 0).to(rows.dtype)
        exists = exists * math.prod(self.grid) / exists.sum(-1, keepdim=True).clamp(min=1)
        return rows * exists.unsqueeze(-1), columns

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """Share of the screen that each patch is taken for, (B, N)."""
        rows, columns = self._chances(observation, self._beliefs(observation))
        count = rows.mT @ columns  # count: (B, R, C)
        taken = torch.einsum("bnr,bnc,brc->bn", rows, columns, 1 / (count + NOTHING))
        return taken / (taken.sum(-1, keepdim=True) + NO_TOTAL)

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, A) in (-1, 1), or logits (B, A)."""
        return self.bounded(self.action(features))
