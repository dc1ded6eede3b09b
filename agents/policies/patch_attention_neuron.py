"""The published agent for shuffled patches, with the published order of parameters."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...envs.numbers import checked, one_of
from ...envs.tokens import TokenSpec
from .attention_neuron import QUERY_SIZE, position_table
from .base import Memory, Observation
from .choices import Discrete
from .flat_parameters import set_flat
from .layers import LOG_STD, SIZE, norm
from .patch_policy import PatchPolicy
from .recurrent import TokenLSTM
from .sensor_policy import SENSOR_CRITICS


@checked("agent")
class PatchAttentionNeuron(PatchPolicy):
    """The agent of Tang and Ha, "The sensory neuron as a transformer", NeurIPS 2021, section 4.4 (CarRacing).

    Fixed queries gather a map of S x S vectors from the patches, in any order; self-attention among the
    map's places votes for the most important ones (Tang, Nguyen and Ha, "Neuroevolution of
    self-interpretable agents", GECCO 2020), whose coordinates a recurrent cell turns into actions. The map
    is mixed with that of the step before by a share that depends on the cell and the action. Choosing
    places has no gradient: it is evolved. At the published sizes it has 7,212 parameters.

    Args:
        spec: What the columns of ``tokens`` mean.
        n_actions, n_recent, discrete, n_privileged: of the task, as in `SensorPolicy`.
        map_size: S.
        size: of queries, keys, and the map's vectors.
        vote_size: of the queries and keys among the map's places.
        places: that are chosen.
        hidden: State of the recurrent cell.
        critic: as in `SensorPolicy`; never trained.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.
    """

    has_gradient = False

    def __init__(
        self,
        spec: TokenSpec,
        n_actions: int,
        n_recent: int,
        discrete: Discrete = False,
        n_privileged: int = 0,
        map_size: Annotated[int, SIZE] = 32,
        size: Annotated[int, SIZE] = 16,
        vote_size: Annotated[int, SIZE] = 4,
        places: Annotated[int, SIZE] = 10,
        hidden: Annotated[int, SIZE] = 16,
        critic: Annotated[str, one_of(*SENSOR_CRITICS)] = "auto",
        initial_log_std: Annotated[float, LOG_STD] = -0.5,
    ) -> None:
        super().__init__(spec, n_actions, n_recent, discrete, n_privileged, hidden, critic, initial_log_std)
        self.map_size, self.size, self.vote_size = map_size, size, vote_size
        self.places, self.hidden = places, hidden
        self.query = nn.Linear(QUERY_SIZE, size)
        self.key = nn.Linear((n_recent - 1) * self.pixels + n_actions, size)
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
        frames = self._oldest_first(observation)
        values = self.gathered(norm(frames).flatten(-2))  # values: (B, N, size)
        return norm(functional.relu(torch.matmul(self._weights(frames, observation), values)))

    def _oldest_first(self, observation: Observation) -> Tensor:
        """Frames (B, N, K, D)."""
        return self.frames(observation).flip(-2)

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """Share of the attention that each patch gets of this step's map, (B, N)."""
        return self._weights(self._oldest_first(observation), observation).mean(-2)

    def _weights(self, frames: Tensor, observation: Observation) -> Tensor:
        """What each place of the map takes from each patch, (B, S * S, N), of frames (B, N, K, D)."""
        changes = (frames[..., 1:, :] - frames[..., :-1, :]).mT.flatten(-2)  # (B, N, D * (K - 1))
        last = observation["recent_actions"][..., -1:, :]  # last: (B, 1, A)
        told = torch.cat([changes, last.expand(*changes.shape[:-1], -1).to(changes)], -1)
        scores = torch.matmul(self.query(self.table), self.key(told).mT) / math.sqrt(self.size)
        missing = (observation["mask"] == 0).unsqueeze(-2)  # missing: (B, 1, N)
        return scores.masked_fill(missing, -torch.inf).softmax(-1)

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, A) in (-1, 1), or logits (B, A)."""
        return self.bounded(self.action(features))

    set_flat = set_flat
