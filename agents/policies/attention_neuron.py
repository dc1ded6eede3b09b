"""The published agents of Tang and Ha: sensors, or patches, gathered by attention of fixed queries."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.numbers import FLAG, checked, whole
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .layers import LARGEST_SIZE, NO_TOTAL, SIZE, TokenLSTM, linear, norm, perceptron
from .patch_policy import PatchPolicy
from .sensor_policy import SensorPolicy

QUERY_SIZE = 8


def position_table(rows: int, size: int = QUERY_SIZE) -> Tensor:
    """(rows, size) fixed queries: sines on even, cosines on odd columns (Vaswani et al. 2017)."""
    row, column = np.arange(rows)[:, None], np.arange(size)[None]
    angle = row / 10000.0 ** (2 * (column // 2) / size)
    return torch.from_numpy(np.where(column % 2 == 0, np.sin(angle), np.cos(angle))).float()


@checked("agent")
class AttentionNeuron(SensorPolicy):
    """The agent of Tang and Ha, "The sensory neuron as a transformer", NeurIPS 2021, for scalar sensors.

    Sensor i, with a recurrent cell of its own state and shared parameters, turns its reading o_i and the
    last action into a key; M fixed queries gather m = tanh(sum over i of tanh(q k_i) o_i). There is no
    normaliser, as published. Section 4.1 (CartPole) has neither biases nor a scale in the attention and a
    linear head; section 4.2 (Ant) has both and a hidden layer.
    """

    def __init__(
        self,
        spec: TokenSpec,
        rows: Annotated[int, SIZE] = 16,
        hidden: Annotated[int, SIZE] = 8,
        key_size: Annotated[int, SIZE] = 32,
        bias: Annotated[bool, FLAG] = False,
        scaled: Annotated[bool, FLAG] = False,
        head: Annotated[int, whole(0, LARGEST_SIZE)] = 0,
        **task: Any,
    ) -> None:
        super().__init__(spec, rows, {"fixed": True}, **task)
        self.rows, self.hidden, self.key_size = rows, hidden, key_size
        self.bias, self.scaled, self.head = bias, scaled, head
        self.cell = TokenLSTM(spec.token_size + self.action_inputs, hidden)
        self.query = nn.Linear(QUERY_SIZE, key_size, bias=bias)
        self.key = nn.Linear(hidden, key_size, bias=bias)
        # With the layer before it bounded by tanh, the published head is one layer or two.
        outputs = self.n_actions
        self.action = perceptron(rows, head, 1, outputs, 1.0) if head else linear(rows, outputs)
        self.register_buffer("table", position_table(rows), persistent=False)

    def initial_memory(self, batch_size: int, n_tokens: int) -> Memory:
        """Hidden and cell state of every sensor, zero."""
        return self.cell.initial(batch_size, n_tokens)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """What the queries gather, (B, M), and the sensors' next memory."""
        tokens, weights, memory = self._weigh(observation, memory)
        # A missing sensor reads 0, so it adds nothing to the sum over sensors.
        return torch.tanh(torch.matmul(tokens[..., :1].mT, weights).squeeze(-2)), memory

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """Share of the fixed queries' attention that each sensor gets, (B, N).

        Weights are signed here and no shares: this is the sum of their absolute values over queries,
        divided by that over all sensors.
        """
        sizes = self._weigh(observation, memory)[1].abs().sum(-1) * (observation["mask"] != 0)  # (B, N)
        return sizes / (sizes.sum(-1, keepdim=True) + NO_TOTAL)

    def _weigh(self, observation: Observation, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Tokens (B, N, F), the attention that M queries pay them, (B, N, M), and the next memory."""
        tokens = self.normalizer.tokens(observation)
        memory = self.cell(tokens, self.recent(observation), memory, observation["mask"])
        query = self.query(self.table)  # query: (M, key_size)
        if self.scaled:
            query = query / math.sqrt(self.key_size)
        # Both projections in one product.
        scores = torch.matmul(memory["hidden"], self.key.weight.mT @ query.mT)
        return tokens, torch.tanh(scores + self.key.bias @ query.mT if self.bias else scores), memory


@checked("agent")
class PatchAttentionNeuron(PatchPolicy):
    """The agent of Tang and Ha, "The sensory neuron as a transformer", NeurIPS 2021, section 4.4 (CarRacing).

    Fixed queries gather a map of S x S vectors (``map_size``) from the patches, in any order;
    self-attention among the map's places votes for the most important ones (Tang, Nguyen and Ha,
    "Neuroevolution of self-interpretable agents", GECCO 2020), whose coordinates a recurrent cell turns
    into actions. The map is mixed with that of the step before by a share that depends on the cell and the
    action. Choosing places has no gradient: it is evolved. At the published sizes it has 7,212 parameters.
    """

    has_gradient = False

    def __init__(
        self,
        spec: TokenSpec,
        map_size: Annotated[int, SIZE] = 32,
        size: Annotated[int, SIZE] = 16,
        vote_size: Annotated[int, SIZE] = 4,
        places: Annotated[int, SIZE] = 10,
        hidden: Annotated[int, SIZE] = 16,
        **task: Any,
    ) -> None:
        super().__init__(spec, hidden, **task)
        n_actions = self.n_actions
        self.map_size, self.size, self.vote_size = map_size, size, vote_size
        self.places, self.hidden = places, hidden
        self.query = nn.Linear(QUERY_SIZE, size)
        self.key = nn.Linear((self.n_recent - 1) * self.pixels + n_actions, size)
        self.gathered = nn.Linear(spec.token_size, size)
        self.vote_query = nn.Linear(size, vote_size)
        self.vote_key = nn.Linear(size, vote_size)
        self.cell = TokenLSTM(2 * places, hidden)
        self.action = nn.Linear(hidden, n_actions)
        self.mix = nn.Sequential(
            nn.Linear(hidden + n_actions, hidden), nn.Tanh(), nn.Linear(hidden, 1), nn.Sigmoid()
        )
        self.register_buffer("table", position_table(map_size**2), persistent=False)
        side = torch.arange(map_size) / map_size
        self.register_buffer("where", torch.cartesian_prod(side, side), persistent=False)  # (S * S, 2)

    def initial_memory(self, batch_size: int, n_tokens: int) -> Memory:
        """The cell's state (B, 1, hidden), the map (B, S * S, size) and its share (B, 1), zero."""
        zeros = self.query.weight.new_zeros
        memory = self.cell.initial(batch_size, 1)
        picture = zeros(batch_size, self.map_size**2, self.size)
        return {**memory, "map": picture, "share": zeros(batch_size, 1)}

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """The cell's state (B, hidden), and the next memory."""
        share = memory["share"].unsqueeze(-1)
        picture = (1 - share) * self._gather(observation) + share * memory["map"]  # (B, S * S, size)
        votes = torch.matmul(self.vote_query(picture), self.vote_key(picture).mT).softmax(-1).sum(-2)
        chosen = votes.topk(self.places, dim=-1).indices  # chosen: (B, places)
        places = self.where[chosen].flatten(-2).unsqueeze(-2)  # places: (B, 1, 2 * places)
        nothing, there = places[..., 0, :0], torch.ones_like(places[..., 0])
        state = self.cell(places, nothing, {key: memory[key] for key in ("hidden", "cell")}, there)
        features = state["hidden"].squeeze(-2)  # features: (B, hidden)
        action = torch.tanh(self.action(features))
        return features, {**state, "map": picture, "share": self.mix(torch.cat([features, action], -1))}

    def _gather(self, observation: Observation) -> Tensor:
        """The map (B, S * S, size) of this step."""
        frames, weights = self._weigh(observation)
        values = self.gathered(norm(frames).flatten(-2))  # values: (B, N, size)
        return norm(functional.relu(torch.matmul(weights, values)))

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """Share of the attention that each patch gets of this step's map, (B, N)."""
        return self._weigh(observation)[1].mean(-2)

    def _weigh(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Frames (B, N, K, D), oldest first; what each place takes from each patch, (B, S * S, N)."""
        frames = self.frames(observation).flip(-2)
        changes = (frames[..., 1:, :] - frames[..., :-1, :]).mT.flatten(-2)  # (B, N, D * (K - 1))
        last = observation["recent_actions"][..., -1:, :]  # last: (B, 1, A)
        told = torch.cat([changes, last.expand(*changes.shape[:-1], -1).to(changes)], -1)
        scores = torch.matmul(self.query(self.table), self.key(told).mT) / math.sqrt(self.size)
        missing = (observation["mask"] == 0).unsqueeze(-2)  # missing: (B, 1, N)
        return frames, scores.masked_fill(missing, -torch.inf).softmax(-1)
