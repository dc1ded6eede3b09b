"""Where patches are on the screen: beliefs that go from neighbour to neighbour."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import RELU_GAIN, linear

LEAST = -5.0
"""Logarithm of the smallest probability that a message gives to a place: a neighbour may be none."""

HIDDEN = 16
"""Size of the network that reads how well neighbours match."""

DOUBT = -1.0
"""Logit of what a message counts at the start."""


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
        self.trust = nn.Sequential(linear(n_matches, HIDDEN, RELU_GAIN), nn.ReLU(), linear(HIDDEN, 4))
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
