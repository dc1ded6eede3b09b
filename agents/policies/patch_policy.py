"""Policies of patches in any order: what they have in common, the transformer, and the jigsaw."""

from __future__ import annotations

import itertools
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
from .layers import (
    NO_TOTAL,
    RELU_GAIN,
    REPEATS,
    SIZE,
    Beside,
    Queries,
    blocks,
    convolutions,
    existing,
    heads_divide_width,
    linear,
    masked_mean,
    norm,
    perceptron,
)
from .sensor_policy import SensorPolicy

CHANGE_SCALE = 4.0
"""Of the differences between frames, which are small against the grey levels themselves."""


class PatchPolicy(SensorPolicy):
    """From a set of patches to one action vector: frames as numbers, and no running statistics.

    The columns of ``tokens`` are those of K frames (``n_recent``), newest first, of D grey levels each. The
    arguments are those of `SensorPolicy`.

    Raises:
        UserError: tokens that are not K frames.
    """

    kind = "patches"

    def __init__(self, spec: TokenSpec, feature_size: int, /, **task: Any) -> None:
        super().__init__(spec, feature_size, {"fixed": True}, **task)  # pixels have a scale already
        self.pixels, rest = divmod(spec.token_size, self.n_recent)
        if rest:
            raise UserError(f"{spec.token_size} numbers of a patch are not those of {self.n_recent} frames")

    def frames(self, observation: Observation) -> Tensor:
        """(B, N, K, D) in [0, 1], newest first."""
        tokens = observation["tokens"].to(self.log_std.dtype) / 255
        return tokens.unflatten(-1, (self.n_recent, self.pixels))


def difference_weights(weight: Tensor, frames: int) -> Tensor:
    """Weights (W, K * D) for the newest frame and the differences of K frames, as weights for the frames.

    What reads differences between frames reads frames: it is the weights that are combined, which are few,
    and not the pixels, 0 to 255.
    """
    newest, changes = (weight / 255).unflatten(-1, (frames, -1)).split((1, frames - 1), -2)
    changes = CHANGE_SCALE * changes  # of frame k - 1 less frame k
    later = functional.pad(changes, (0, 0, 0, 1))
    return (torch.cat((newest, -changes), -2) + later).flatten(-2)


def losses_of_places(logits: Tensor, observation: Observation, grid: Sequence[int]) -> Tensor:
    """Cross-entropies (B,) of the row and the column of every patch, averaged over those that exist.

    Of logits (B, N, R + C); ``grid`` is R and C, ``observation`` says which sensor each slot shows.
    """
    where, (_, columns), losses = observation["sensor"].long(), grid, 0.0
    is_patch = (where < math.prod(grid)) & (observation["mask"] != 0)  # noise is nowhere
    where = where.clamp(max=math.prod(grid) - 1)
    rows_and_columns = logits.mT.split(tuple(grid), 1)  # (B, R, N) and (B, C, N)
    for guesses, right in zip(rows_and_columns, (where // columns, where % columns), strict=True):
        losses = losses + functional.cross_entropy(guesses, right, reduction="none")  # (B, N)
    return masked_mean(losses, is_patch)


@checked("agent", heads_divide_width)
class PatchTransformer(PatchPolicy):
    """One network reads every patch's last frames; latents gather from all of them and then confer.

    Of the family of Lee et al., "Set transformer", ICML 2019, and Jaegle et al., "Perceiver", ICML 2021:
    the work grows with the number of patches, not with its square. Nothing tells a patch where it is; where
    the environment keeps traces of slots (``env.senses.traces``), a small network guesses it from these.
    With ``identify``, training asks it for the row and the column of every patch, of those of ``grid``, as an
    auxiliary loss.

    Raises:
        UserError: ``identify`` without traces to guess from.
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
            raise UserError("agent.identify asks where a patch is: say env.senses.traces=[30,250], too")
        super().__init__(spec, latents * width, **task)
        self.width, self.latents, self.size = width, latents, size
        self.layers, self.heads, self.feedforward, self.head = layers, heads, feedforward, head
        self.place, self.identify, self.grid = place, identify, tuple(grid)
        self.patch = linear(spec.token_size, width, RELU_GAIN)
        self.actions = linear(self.action_inputs, width, RELU_GAIN, bias=False)
        if spec.trace_size:
            self.guess = perceptron(spec.trace_size, place, 1, place, RELU_GAIN, relu=True)
            self.guess.append(nn.ReLU())
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
        latents = self.widen(self.gather(x, exists).unflatten(-1, (self.latents, self.size))) + self.names
        for block in self.blocks:  # latents: (B, latents, width)
            latents = block(latents, Beside(torch.ones_like(latents[..., 0]).unsqueeze(-2)))
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
        x = norm(functional.relu(self.embed(functional.relu(x))))  # x: (B, N, width)
        return x, existing(observation, x)

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """Share of the latents' attention that each patch gets, (B, N)."""
        return self.gather.shares(*self._patches(observation, self._places(observation)))


NOTHING = 0.1
"""Patches that a place of the screen must hold to count as full."""

LEAST_BELIEF = -5.0
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
    NeurIPS 2019). ``grid`` is rows R and columns C of the screen.

    Raises:
        UserError: no traces to guess from.
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
                "PatchJigsaw has to guess where patches are: say env.senses.traces=[30,250] and "
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
        # The second and the third halve the sides of the screen.
        self.convolve = convolutions((width + 1, 32, 3, 1, 1), (32, 48, 3, 2, 1), (48, 48, 3, 2, 1))
        size = self.convolve(torch.zeros(1, width + 1, *self.grid)).shape[1]
        self.look = linear(size, features, RELU_GAIN)
        self.action = perceptron(features, head, 1, self.n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """Features (B, features) of the screen, and the empty memory."""
        return self._see(observation, self._beliefs(observation)), memory

    def encode_to_learn(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """The same, and the cross-entropies of rows and columns, (B,), times ``identify``."""
        beliefs = self._beliefs(observation)
        losses = losses_of_places(beliefs, observation, self.grid)
        return self._see(observation, beliefs), self.identify * losses

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
    """Slots agree with their neighbours on the row and the column, of ``grid``, that each of them shows.

    Belief propagation (Pearl, "Probabilistic reasoning in intelligent systems", 1988, section 4) on the graph
    of neighbours, loops and all: whoever has slot j to its right believes what j believes, one column further
    left. What a message counts is learned from how well the edges match. Gradients go through the last round
    alone, which is enough to learn what evidence and messages are worth, and a third of the work.
    ``n_matches`` numbers tell how well a slot and its four neighbours match.
    """

    def __init__(self, grid: Sequence[int], rounds: int, n_matches: int) -> None:
        super().__init__()
        self.grid, self.rounds = tuple(grid), rounds
        self.trust = perceptron(n_matches, HIDDEN, 1, 4, 1.0, relu=True)
        nn.init.constant_(self.trust[-1].bias, DOUBT)

    def forward(self, evidence: Tensor, matches: Tensor, neighbors: Tensor, mask: Tensor) -> Tensor:
        """What is believed in the end, logits (B, N, R + C), of each slot's own, ``evidence`` (B, N, R + C).

        ``matches`` (B, N, 8) are normalised; ``neighbors`` (B, N, 4) are the slots to the right, to the left,
        below and above, itself for none; ``mask`` (B, N) is 0 where there is no patch.
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

        def told(beliefs: Tensor) -> Tensor:
            parts = itertools.chain.from_iterable(self.messages(beliefs))
            return torch.cat(tuple(parts), -1).view(4 * len(beliefs), beliefs.shape[-1])

        def heard(messages: Tensor) -> Tensor:
            sums = functional.embedding_bag(index, messages, mode="sum", per_sample_weights=weights)
            return evidence + sums

        with torch.no_grad():
            for _ in range(self.rounds - 1):
                beliefs = heard(told(beliefs))
            messages = told(beliefs)
        return heard(messages).unflatten(0, (batch, n))

    def messages(self, beliefs: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """What beliefs (..., R + C) tell whoever has the slot to its right, left, below and above.

        Four times the logarithms of probabilities of its row (..., R) and of its column (..., C).
        """
        rows, columns = (b.log_softmax(-1).clamp(min=LEAST_BELIEF) for b in beliefs.split(self.grid, -1))
        return (
            (rows, _shifted(columns, -1)),
            (rows, _shifted(columns, 1)),
            (_shifted(rows, -1), columns),
            (_shifted(rows, 1), columns),
        )


def _shifted(places: Tensor, by: int) -> Tensor:
    """What is believed of place p is told of p + ``by``; of the place at the edge nothing is."""
    kept, pad = (places[..., 1:], (0, 1)) if by < 0 else (places[..., :-1], (1, 0))
    return functional.pad(kept, pad, value=LEAST_BELIEF)
