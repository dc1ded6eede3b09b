"""Patches in any order, put together again as far as one can tell where they belong, and looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import checked, real, whole
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .layers import NO_TOTAL, RELU_GAIN, SIZE, convolutions, linear, norm, perceptron
from .sensor_policy import PatchPolicy, difference_weights, losses_of_places

CHANNELS = (32, 48, 48)
"""Of the convolutions over the screen, of which the second and the third halve its sides."""

NOTHING = 0.1
"""Patches that a place of the screen must hold to count as full."""

LEAST = -5.0
"""Logarithm of the smallest probability that a message gives to a place: a neighbour may be none."""

HIDDEN = 16
"""Size of the network that reads how well neighbours match."""

DOUBT = -1.0
"""Logit of what a message counts at the start."""


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
        grid: Rows R and columns C of the screen.
        width: Size of what a patch holds.
        place: Hidden layers of the guess where a patch is.
        rounds: Of messages between neighbours.
        features: Size of the layer after the convolutions.
        head: Size of the hidden layer before the actions.
        identify: Weight of the cross-entropies of the row and the column of every patch; 0: not asked.

    Raises:
        UserError: no traces to guess from, or numbers that cannot be meant.
    """

    def __init__(
        self,
        spec: TokenSpec,
        grid: Sequence[int],
        width: Annotated[int, SIZE] = 24,
        place: Annotated[int, SIZE] = 64,
        rounds: Annotated[int, whole(1, 256)] = 8,
        features: Annotated[int, SIZE] = 256,
        head: Annotated[int, SIZE] = 64,
        identify: Annotated[float, real(0)] = 0.1,
        **task: Any,
    ) -> None:
        if not spec.trace_size:
            raise UserError(
                "PatchJigsaw has to guess where patches are, which shows in env.senses.traces=[30,250] and "
                "env.senses.neighbors=40"
            )
        super().__init__(spec, features, **task)
        self.grid, self.width, self.place, self.rounds = tuple(grid), width, place, rounds
        self.features, self.head, self.identify = features, head, identify
        self.guess = perceptron(spec.trace_size, place, 2, sum(self.grid), 1.0, relu=True)
        if spec.has_neighbors:
            matches = spec.trace_slice("match")
            self.jigsaw = Jigsaw(self.grid, rounds, matches.stop - matches.start)
        self.patch = linear(spec.token_size, width, RELU_GAIN)
        one, two, three = CHANNELS
        self.convolve = convolutions((width + 1, one, 3, 1, 1), (one, two, 3, 2, 1), (two, three, 3, 2, 1))
        size = self.convolve(torch.zeros(1, width + 1, *self.grid)).shape[1]
        self.look = linear(size, features, RELU_GAIN)
        self.action = perceptron(features, head, 1, self.n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """Features (B, features) of the screen, and the empty memory."""
        return self._see(observation, self._beliefs(observation)), memory

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


class Jigsaw(nn.Module):
    """Slots agree with their neighbours on the row and the column that each of them shows.

    Belief propagation (Pearl, "Probabilistic reasoning in intelligent systems", 1988, section 4) on the graph
    of neighbours, loops and all: whoever has slot j to its right believes what j believes, one column further
    left. What a message counts is learned from how well the edges match. Gradients go through the last round
    alone, which is enough to learn what evidence and messages are worth, and a third of the work.

    Args:
        grid: rows R and columns C of the screen.
        rounds: messages from each slot to each of its neighbours.
        n_matches: numbers that tell how well a slot and its four neighbours match.
    """

    def __init__(self, grid: Sequence[int], rounds: int, n_matches: int) -> None:
        super().__init__()
        self.grid, self.rounds = tuple(grid), rounds
        self.trust = perceptron(n_matches, HIDDEN, 1, 4, 1.0, relu=True)
        nn.init.constant_(self.trust[-1].bias, DOUBT)

    def forward(self, evidence: Tensor, matches: Tensor, neighbors: Tensor, mask: Tensor) -> Tensor:
        """What is believed in the end.

        Args:
            evidence: (B, N, R + C), each slot's own logits of its row and of its column.
            matches: (B, N, 8), normalised.
            neighbors: (B, N, 4), slots to the right, to the left, below and above; itself for none.
            mask: (B, N), 0 where there is no patch.

        Returns:
            Logits (B, N, R + C).
        """
        batch, n = neighbors.shape[:2]
        first = n * torch.arange(batch, device=neighbors.device).view(-1, 1, 1)
        # Messages to whoever has the slot to its right, left, below, above: four in a row for each slot.
        slots = (neighbors.long() + first).flatten(0, 1)  # slots: (B * N, 4), of the whole batch
        own = torch.arange(len(slots), device=neighbors.device).unsqueeze(-1)
        silent = (slots == own) | (mask.flatten() == 0)[slots]
        weights = self.trust(matches).sigmoid().flatten(0, 1).masked_fill(silent, 0.0)  # weights: (B * N, 4)
        index = 4 * slots + torch.arange(4, device=neighbors.device)
        evidence = evidence.flatten(0, 1)
        beliefs = evidence  # beliefs: (B * N, R + C)
        with torch.no_grad():
            for _ in range(self.rounds - 1):
                beliefs = evidence + _gathered(index, self._messages(beliefs), weights)
            messages = self._messages(beliefs)
        return (evidence + _gathered(index, messages, weights)).unflatten(0, (batch, n))

    def _messages(self, beliefs: Tensor) -> Tensor:
        """(B * N * 4, R + C) logarithms of probabilities."""
        rows, columns = (b.log_softmax(-1).clamp(min=LEAST) for b in beliefs.split(self.grid, -1))
        told = (rows, _less(columns), rows, _more(columns), _less(rows), columns, _more(rows), columns)
        return torch.cat(told, -1).view(4 * len(beliefs), beliefs.shape[-1])


def _gathered(index: Tensor, messages: Tensor, weights: Tensor) -> Tensor:
    """Sums (S, R + C) of the messages at (S, 4) with these weights."""
    return functional.embedding_bag(index, messages, mode="sum", per_sample_weights=weights)


def _less(places: Tensor) -> Tensor:
    """Of the place before: what is believed of place p + 1 is told of p."""
    return functional.pad(places[:, 1:], (0, 1), value=LEAST)


def _more(places: Tensor) -> Tensor:
    """Of the place after."""
    return functional.pad(places[:, :-1], (1, 0), value=LEAST)
