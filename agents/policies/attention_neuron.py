"""AttentionNeuron: sensors that share a recurrent cell, gathered by attention of fixed queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...envs.errors import UserError
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .layers import linear
from .recurrent import TokenLSTM
from .sensor_policy import SensorPolicy, tanh_network

QUERY_SIZE = 8


def position_table(rows: int, size: int = QUERY_SIZE) -> Tensor:
    """(rows, size) fixed queries: sines on even, cosines on odd columns (Vaswani et al. 2017)."""
    row, column = np.arange(rows)[:, None], np.arange(size)[None]
    angle = row / 10000.0 ** (2 * (column // 2) / size)
    return torch.from_numpy(np.where(column % 2 == 0, np.sin(angle), np.cos(angle))).float()


class AttentionNeuron(SensorPolicy):
    """The agent of Tang and Ha, "The sensory neuron as a transformer", NeurIPS 2021, for scalar sensors.

    Sensor i, with a recurrent cell of its own state and shared parameters, turns its reading o_i and the
    last action into a key; M fixed queries gather m = tanh(sum over i of tanh(q k_i) o_i). There is no
    normaliser, as published. Section 4.1 (CartPole) has neither biases nor a scale in the attention and a
    linear head; section 4.2 (Ant) has both and a hidden layer.

    Args:
        spec: What the columns of ``tokens`` mean; the first is the reading.
        n_actions, n_recent, discrete, n_privileged: of the task, as in `SensorPolicy`.
        rows: M, fixed queries.
        hidden: State of a sensor's cell.
        key_size: Of queries and keys.
        bias: Of the query and key projections.
        scaled: Divide scores by the root of ``key_size``.
        head: Size of a hidden layer before the actions; 0 for none.
        critic: ``privileged`` or ``shared``; for PPO.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.
    """

    def __init__(
        self,
        spec: TokenSpec,
        n_actions: int,
        n_recent: int,
        discrete: bool = False,
        n_privileged: int = 0,
        rows: int = 16,
        hidden: int = 8,
        key_size: int = 32,
        bias: bool = False,
        scaled: bool = False,
        head: int = 0,
        critic: str = "privileged",
        initial_log_std: float = -0.5,
    ) -> None:
        super().__init__(
            spec, n_actions, n_recent, discrete, n_privileged, rows, critic, initial_log_std, False
        )
        self.rows, self.hidden, self.key_size = rows, hidden, key_size
        self.bias, self.scaled, self.head = bias, scaled, head
        self.cell = TokenLSTM(spec.token_size + self.action_inputs, hidden)
        self.query = nn.Linear(QUERY_SIZE, key_size, bias=bias)
        self.key = nn.Linear(hidden, key_size, bias=bias)
        # With the layer before it bounded by tanh, the published head is one layer or two.
        self.action = tanh_network(rows, head, 1, n_actions, 1.0) if head else linear(rows, n_actions)
        self.register_buffer("table", position_table(rows), persistent=False)

    def initial_memory(self, batch_size: int, n_tokens: int) -> Memory:
        """Hidden and cell state of every sensor, zero."""
        return self.cell.initial(batch_size, n_tokens)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """What the queries gather, (B, M), and the sensors' next memory."""
        tokens = self.normalizer.tokens(observation)  # tokens: (B, N, F)
        memory = self.cell(tokens, self.recent(observation), memory, observation["mask"])
        scores = self._scores(memory["hidden"])  # scores: (B, N, M)
        # A missing sensor reads 0, so it adds nothing to the sum over sensors.
        gathered = torch.matmul(tokens[..., :1].mT, torch.tanh(scores)).squeeze(-2)
        return torch.tanh(gathered), memory

    def _scores(self, hidden: Tensor) -> Tensor:
        """Attention of the M queries to sensors, (B, N, M); both projections in one product."""
        query = self.query(self.table)  # query: (M, key_size)
        if self.scaled:
            query = query / math.sqrt(self.key_size)
        scores = torch.matmul(hidden, self.key.weight.mT @ query.mT)
        return scores + self.key.bias @ query.mT if self.bias else scores

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, A) in (-1, 1), or logits (B, A)."""
        return self.bounded(self.action(features))

    def set_flat(self, values: Sequence[float]) -> None:
        """Take parameters as they were published: cell (weights, biases), query, key, head.

        Raises:
            UserError: as many numbers as do not fit this architecture.
        """
        parameters = list(self.acting_parameters().values())
        wanted = sum(p.numel() for p in parameters)
        values = torch.as_tensor(np.asarray(values, np.float32))
        if values.shape != (wanted,):
            raise UserError(f"{tuple(values.shape)} parameters given; this AttentionNeuron has {wanted}")
        with torch.no_grad():
            for parameter, part in zip(
                parameters, values.split([p.numel() for p in parameters]), strict=True
            ):
                parameter.copy_(part.view_as(parameter))
