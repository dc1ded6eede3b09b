"""Sensors read one by one and averaged: the cheap baseline of the invariant policies."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from ...envs.numbers import FLAG, checked
from ...envs.tokens import TokenSpec
from .base import Memory, Observation
from .layers import RELU_GAIN, SIZE, TokenLSTM, linear, masked_mean, perceptron
from .sensor_policy import SensorPolicy


@checked("agent")
class DeepSet(SensorPolicy):
    """One network for every sensor, their mean, an ordinary network.

    After Zaheer et al., "Deep sets", NeurIPS 2017, and with ``recurrent`` after Pedersen and Risi,
    "Minimal neural network models for permutation invariant agents", GECCO 2022.

    Args:
        width: Size of a sensor's features, and of the hidden layer before the actions.
        recurrent: Whether every sensor has a recurrent cell.
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
