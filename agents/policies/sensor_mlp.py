"""The ordinary network of sensor tasks: the control that invariant policies are compared with."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from ...envs.errors import UserError
from ...envs.numbers import FLAG, checked, one_of
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .choices import Discrete
from .layers import LOG_STD, REPEATS, SIZE
from .normalizer import TokenNormalizer
from .sensor_policy import SENSOR_CRITICS, SensorPolicy, tanh_network


@checked("agent")
class SensorMLP(SensorPolicy):
    """An ordinary network on all slots side by side; by design it depends on their order and number.

    Like any ordinary network's, its inputs are normalised one by one: each slot has its own scale and shift.

    Args:
        spec: What the columns of ``tokens`` mean.
        n_tokens: N, slots.
        n_actions, n_recent, discrete, n_privileged: of the task, as in `SensorPolicy`.
        width: Size of the hidden layers.
        layers: Number of hidden layers.
        sees_actions: Whether it reads the recent actions.
        critic: as in `SensorPolicy`.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.
    """

    def __init__(
        self,
        spec: TokenSpec,
        n_tokens: int,
        n_actions: int,
        n_recent: int,
        discrete: Discrete = False,
        n_privileged: int = 0,
        width: Annotated[int, SIZE] = 64,
        layers: Annotated[int, REPEATS] = 2,
        sees_actions: Annotated[bool, FLAG] = False,
        critic: Annotated[str, one_of(*SENSOR_CRITICS)] = "auto",
        initial_log_std: Annotated[float, LOG_STD] = -0.5,
    ) -> None:
        inputs = n_tokens * (spec.token_size + 1) + sees_actions * n_recent * n_actions
        of_slots = TokenNormalizer(spec, n_privileged, slots=n_tokens)
        super().__init__(
            spec, n_actions, n_recent, discrete, n_privileged, inputs, critic, initial_log_std, of_slots
        )
        self.n_tokens, self.width, self.layers, self.sees_actions = n_tokens, width, layers, sees_actions
        self.action = tanh_network(inputs, width, layers, n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """All slots and their masks side by side, (B, N * (F + 1)), with the recent actions if it sees them.

        Raises:
            UserError: The observation has another number of slots than the policy.
        """
        mask = observation["mask"]
        if mask.shape[-1] != self.n_tokens:
            raise UserError(
                f"SensorMLP was built for {self.n_tokens} sensors, got {mask.shape[-1]}; its slots have "
                "fixed meanings: use an invariant policy for other numbers of them"
            )
        tokens = self.normalizer.tokens(observation)  # tokens: (B, N, F)
        parts = [tokens.flatten(-2), mask.to(tokens.dtype)]
        return torch.cat([*parts, self.recent(observation)] if self.sees_actions else parts, -1), memory

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, A) in (-1, 1), or logits (B, A)."""
        return self.bounded(self.action(features))
