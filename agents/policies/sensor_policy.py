"""Policies of sensors in any order: what they have in common, the deep set, and the transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import FLAG, checked, one_of, real
from ...envs.tokens import TokenSpec
from .base import Discrete, Memory, Observation, Policy, checked_discrete
from .layers import (
    RELU_GAIN,
    REPEATS,
    SIZE,
    Beside,
    Queries,
    TokenLSTM,
    blocks,
    existing,
    heads_divide_width,
    linear,
    masked_mean,
    norm,
    perceptron,
)
from .normalizer import TokenNormalizer

CRITIC_WIDTH = 64


def fitting_critic(n_privileged: int) -> str:
    """What ``critic=auto`` means for a task that tells so many privileged readings."""
    return "privileged" if n_privileged else "shared"


@checked("agent")
class SensorPolicy(Policy):
    """From a set of sensor tokens to one action vector.

    A subclass has `encode` and a module ``action`` from features (B, feature_size) to actions (B, A).

    Args:
        spec: What the columns of ``tokens`` mean.
        feature_size: Size of what ``encode`` gives.
        normalizer: Options of its `TokenNormalizer`; None: tokens are brought to a common scale.
        n_actions: A, actions, or choices where they are discrete.
        n_recent: K, recent actions that are told.
        discrete: see `Discrete`; ``act`` gives logits then, of all decisions side by side.
        n_privileged: S, readings that the critic sees; 0 where the task tells none.
        critic: ``privileged``, a network of its own on these; ``shared``, a layer on the actor's features; or
            ``auto``: the former where there are any.
        common: of every policy.

    Raises:
        UserError: there is nothing that a privileged critic could read.
    """

    kind = "sensors"
    training_modules = ("value_head",)
    identify = 0.0
    """Weight of an auxiliary loss, of a policy that has one."""

    def __init__(
        self,
        spec: TokenSpec,
        feature_size: int,
        normalizer: Mapping[str, Any] | None = None,
        /,
        *,
        n_actions: int,
        n_recent: int,
        discrete: Discrete = False,
        n_privileged: int = 0,
        critic: Annotated[str, one_of("auto", "privileged", "shared")] = "auto",
        **common: Any,
    ) -> None:
        super().__init__(spec, TokenNormalizer(spec, n_privileged, **(normalizer or {})), **common)
        if critic == "auto":
            critic = fitting_critic(n_privileged)
        if critic == "privileged" and not n_privileged:
            raise UserError(
                "agent.critic=privileged, but this task tells critics no more than policies; say "
                "agent.critic=shared, or auto"
            )
        self.n_actions, self.n_recent = n_actions, n_recent
        self.discrete = checked_discrete(discrete, n_actions)
        self.n_privileged, self.critic = n_privileged, critic
        inputs, layers = (n_privileged, 2) if critic == "privileged" else (feature_size, 1)
        self.value_head = perceptron(inputs, CRITIC_WIDTH, layers, 1, 1.0)

    @property
    def action_inputs(self) -> int:
        """K * A, the numbers that the recent actions are."""
        return self.n_recent * self.n_actions

    @property
    def has_auxiliary_loss(self) -> bool:
        """Whether `encode_to_learn` gives one."""
        return self.identify > 0

    def recent(self, observation: Observation) -> Tensor:
        """The recent actions side by side, (B, K * A)."""
        return observation["recent_actions"].flatten(-2)

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, A) in (-1, 1), or logits (B, A)."""
        actions = self.action(features)
        return actions if self.discrete else torch.tanh(actions)

    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,) in the learner's units."""
        if self.critic == "privileged":
            features = self.normalizer.privileged(observation)
        return self.value_head(features).squeeze(-1)


@checked("agent")
class DeepSet(SensorPolicy):
    """One network for every sensor, their mean, an ordinary network.

    After Zaheer et al., "Deep sets", NeurIPS 2017, and with ``recurrent`` after Pedersen and Risi,
    "Minimal neural network models for permutation invariant agents", GECCO 2022.
    """

    def __init__(
        self,
        spec: TokenSpec,
        width: Annotated[int, SIZE] = 32,
        recurrent: Annotated[bool, FLAG] = True,
        **task: Any,
    ) -> None:
        super().__init__(spec, width, **task)
        self.width, self.recurrent = width, recurrent
        if recurrent:
            self.cell = TokenLSTM(spec.token_size + self.action_inputs, width)
        else:
            self.sensor = linear(spec.token_size, width, RELU_GAIN)
            self.actions = linear(self.action_inputs, width, RELU_GAIN, bias=False)
            self.embed = linear(width, width, RELU_GAIN)
        self.action = perceptron(width, width, 1, self.n_actions, 0.01)

    def initial_memory(self, batch_size: int, n_tokens: int) -> Memory:
        """Hidden and cell state of every sensor, zero; empty without recurrence."""
        return self.cell.initial(batch_size, n_tokens) if self.recurrent else {}

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """The mean over sensors, (B, width), and the sensors' next memory."""
        tokens, mask = self.normalizer.tokens(observation), observation["mask"]  # (B, N, F), (B, N)
        recent = self.recent(observation)  # recent: (B, K * A)
        if self.recurrent:
            memory = self.cell(tokens, recent, memory, mask)
            x = memory["hidden"]  # x: (B, N, width)
        else:
            x = torch.relu(self.sensor(tokens) + self.actions(recent).unsqueeze(-2))
            x = functional.relu(self.embed(x))
        return masked_mean(x.mT, mask.unsqueeze(-2)), memory


@checked("agent", heads_divide_width)
class SensorTransformer(SensorPolicy):
    """Each sensor's short history through one network, self-attention among sensors, learned queries.

    Softmax attention takes means over sensors, so that doubling every sensor changes nothing. What a
    sensor means shows in how its history goes along with the others' and with the last actions.

    With ``identify``, training asks of every sensor's embedding which of the task's sensors it is (as an
    auxiliary loss after Jaderberg et al., "Reinforcement learning with unsupervised auxiliary tasks", ICLR
    2017): a small head learns to tell the S of the task (``n_sensors``) and channels of noise apart, and is
    not used for acting.
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
        exists = existing(observation, x)
        for block in self.blocks:
            x = block(x, Beside(exists))
        return norm(x), exists

    def _read(self, x: Tensor, exists: Tensor) -> Tensor:
        return norm(self.gather(x, exists))

    def attention(self, observation: Observation, memory: Memory) -> Tensor:
        """Share of the learned queries' attention that each sensor gets, (B, N)."""
        return self.gather.shares(*self._embed(observation))
