"""Sensors read one by one and averaged: the cheap baseline of the invariant policies."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from ...envs.numbers import FLAG, checked, one_of
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .choices import Discrete
from .layers import LOG_STD, RELU_GAIN, SIZE, linear, masked_mean
from .recurrent import TokenLSTM
from .sensor_policy import SENSOR_CRITICS, SensorPolicy, tanh_network


@checked("agent")
class DeepSet(SensorPolicy):
    """One network for every sensor, their mean, an ordinary network.

    After Zaheer et al., "Deep sets", NeurIPS 2017, and with ``recurrent`` after Pedersen and Risi,
    "Minimal neural network models for permutation invariant agents", GECCO 2022.

    Args:
        spec: What the columns of ``tokens`` mean.
        n_actions, n_recent, discrete, n_privileged: of the task, as in `SensorPolicy`.
        width: Size of a sensor's features, and of the hidden layer before the actions.
        recurrent: Whether every sensor has a recurrent cell.
        critic: as in `SensorPolicy`.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.
    """

    def __init__(
        self,
        spec: TokenSpec,
        n_actions: int,
        n_recent: int,
        discrete: Discrete = False,
        n_privileged: int = 0,
        width: Annotated[int, SIZE] = 32,
        recurrent: Annotated[bool, FLAG] = True,
        critic: Annotated[str, one_of(*SENSOR_CRITICS)] = "auto",
        initial_log_std: Annotated[float, LOG_STD] = -0.5,
    ) -> None:
        super().__init__(spec, n_actions, n_recent, discrete, n_privileged, width, critic, initial_log_std)
        self.width, self.recurrent = width, recurrent
        if recurrent:
            self.cell = TokenLSTM(spec.token_size + self.action_inputs, width)
        else:
            self.sensor = linear(spec.token_size, width, RELU_GAIN)
            self.actions = linear(self.action_inputs, width, RELU_GAIN, bias=False)
            self.embed = linear(width, width, RELU_GAIN)
        self.action = tanh_network(width, width, 1, n_actions, 0.01)

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

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, A) in (-1, 1), or logits (B, A)."""
        return self.bounded(self.action(features))
