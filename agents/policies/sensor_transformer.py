"""A transformer over sensors, without memory: they find out from each other what they are."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor
from torch.nn import functional

from ...envs.numbers import checked, real
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .layers import (
    RELU_GAIN,
    REPEATS,
    SIZE,
    Queries,
    blocks,
    heads_divide_width,
    linear,
    masked_mean,
    norm,
    perceptron,
)
from .sensor_policy import SensorPolicy


@checked("agent", heads_divide_width)
class SensorTransformer(SensorPolicy):
    """Each sensor's short history through one network, self-attention among sensors, learned queries.

    Softmax attention takes means over sensors, so that doubling every sensor changes nothing. What a
    sensor means shows in how its history goes along with the others' and with the last actions.

    With ``identify``, training asks of every sensor's embedding which of the task's sensors it is (as an
    auxiliary loss after Jaderberg et al., "Reinforcement learning with unsupervised auxiliary tasks", ICLR
    2017): a small head learns to tell, and is not used for acting.

    Args:
        width: Size of a sensor's embedding; a multiple of ``heads``.
        layers: Number of blocks.
        heads: Number of attention heads.
        feedforward: Hidden size of a block's feed-forward layer.
        queries: Learned queries.
        identify: Weight of the cross-entropy of what each sensor is; 0: it is not asked.
        n_sensors: S, of the task, which are told apart, beside channels of noise.
        head: Size of the hidden layer before the actions.

    Raises:
        UserError: ``width`` is no multiple of ``heads``, or ``identify`` is no weight.
    """

    training_modules = (*SensorPolicy.training_modules, "identity")

    def __init__(
        self,
        spec: TokenSpec,
        width: Annotated[int, SIZE] = 32,
        layers: Annotated[int, REPEATS] = 2,
        heads: Annotated[int, REPEATS] = 2,
        feedforward: Annotated[int, SIZE] = 64,
        queries: Annotated[int, SIZE] = 8,
        head: Annotated[int, SIZE] = 64,
        identify: Annotated[float, real(0)] = 0.0,
        n_sensors: int = 0,
        **task: Any,
    ) -> None:
        size = width // heads
        super().__init__(spec, queries * size, **task)
        self.width, self.layers, self.heads, self.feedforward = width, layers, heads, feedforward
        self.queries, self.head = queries, head
        self.identify, self.n_sensors = identify, n_sensors
        self.sensor = linear(spec.token_size, width, RELU_GAIN)
        self.actions = linear(self.action_inputs, width, RELU_GAIN, bias=False)
        self.embed = linear(width, width)
        self.blocks = blocks(layers, width, heads, feedforward)
        self.gather = Queries(width, queries, size)
        self.action = perceptron(queries * size, head, 1, self.n_actions, 0.01)
        if identify:
            self.identity = linear(width, n_sensors + 1)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """What the queries gather, (B, queries * size), and the empty memory."""
        return self._read(*self._embed(observation)), memory

    def encode_to_learn(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """The same, and the cross-entropy of what each sensor is, (B,), times ``identify``."""
        x, exists = self._embed(observation)
        guesses = self.identity(x).mT  # guesses: (B, S + 1, N)
        losses = functional.cross_entropy(guesses, observation["sensor"].long(), reduction="none")  # (B, N)
        return self._read(x, exists), self.identify * masked_mean(losses, observation["mask"])

    def _embed(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Sensors that know of each other, (B, N, width), and which exist, (B, 1, N)."""
        tokens = self.normalizer.tokens(observation)  # tokens: (B, N, F)
        recent = self.actions(self.recent(observation)).unsqueeze(-2)  # recent: (B, 1, width)
        x = self.embed(functional.relu(self.sensor(tokens) + recent))  # x: (B, N, width)
        exists = (observation["mask"] != 0).to(x.dtype).unsqueeze(-2)  # exists: (B, 1, N)
        for block in self.blocks:
            x = block(x, exists, None)
        return norm(x), exists

    def _read(self, x: Tensor, exists: Tensor) -> Tensor:
        return norm(self.gather(x, exists))

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """Share of the learned queries' attention that each sensor gets, (B, N)."""
        return self.gather.shares(*self._embed(observation))
