"""Rivals of the policies, from PyTorch's ready parts."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

from ...agents.policies import Observation
from ...agents.policies.attention_neuron import QUERY_SIZE, position_table
from ...agents.policies.limb_policy import LimbPolicy
from ...envs.sensors.cartpole_swingup import (
    CART_MASS,
    FORCE,
    FRICTION,
    GRAVITY,
    LENGTH,
    POLE_MASS,
    TIME_STEP,
    TRACK,
)
from ...envs.tokens import TokenSpec


class NaiveTransformer(LimbPolicy):
    """What one writes first: ``nn.TransformerEncoder`` over limbs, and a second one for the critic.

    Layers, attention and their initialisation are as PyTorch ships them (normalisation after each
    residual sum, bias everywhere); dropout alone is off, since PPO compares probabilities of the same
    network before and after an update. Embedding a limb is one linear layer on its token beside the sum
    of its joint rows. Normaliser, heads and exploration scale are those of every policy here, so it
    trains with the same code; it cannot be saved as a run's policy.

    The arguments are the keys of ``conf/agent/naive.yaml`` beside this file; ``spec`` says what the columns
    of ``tokens`` and ``joints`` mean.
    """

    def __init__(
        self,
        spec: TokenSpec,
        width: int = 64,
        layers: int = 2,
        heads: int = 2,
        feedforward: int = 128,
        initial_log_std: float = -0.5,
    ) -> None:
        make_encoder = functools.partial(_Encoder, spec, width, layers, heads, feedforward)
        super().__init__(spec, make_encoder, width, "trunk", initial_log_std=initial_log_std)
        self.layers, self.heads, self.feedforward = layers, heads, feedforward


class _Encoder(nn.Module):
    """From normalised tokens (B, N, F) and joints (B, N, J, G) to limb features (B, N, width)."""

    def __init__(self, spec: TokenSpec, width: int, layers: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(spec.token_size + spec.joint_size, width)
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.0, batch_first=True)
        # Nested tensors are a prototype that warns, and with seven limbs made this three times slower.
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, joints: Tensor, observation: Observation) -> Tensor:
        limbs = torch.cat((tokens, joints.sum(-2)), -1)  # limbs: (B, N, F + G); padding is zero
        return self.encoder(self.embedding(limbs), src_key_padding_mask=observation["mask"] == 0)


class PlainCart:
    """One cart and pole, stepped on its own from (4,) x, x_dot, theta, theta_dot."""

    def __init__(self, start: np.ndarray) -> None:
        self.state = tuple(start)

    def read(self) -> np.ndarray:
        """(5,) x, x_dot, cos theta, sin theta, theta_dot."""
        x, x_dot, theta, theta_dot = self.state
        return np.array([x, x_dot, np.cos(theta), np.sin(theta), theta_dot])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Readings, reward, and whether the cart has left the track; ``action`` is (1,)."""
        x, x_dot, theta, theta_dot = self.state
        push = FORCE * np.clip(action, -1.0, 1.0)[0] - FRICTION * x_dot
        s, c = math.sin(theta), math.cos(theta)
        total, arm = CART_MASS + POLE_MASS, POLE_MASS * LENGTH
        x_acceleration = (-2 * arm * theta_dot**2 * s + 3 * POLE_MASS * GRAVITY * s * c + 4 * push) / (
            4 * total - 3 * POLE_MASS * c**2
        )
        theta_acceleration = (-3 * arm * theta_dot**2 * s * c + 6 * total * GRAVITY * s + 6 * push * c) / (
            4 * LENGTH * total - 3 * arm * c**2
        )
        self.state = (
            x + TIME_STEP * x_dot,
            x_dot + TIME_STEP * x_acceleration,
            theta + TIME_STEP * theta_dot,
            theta_dot + TIME_STEP * theta_acceleration,
        )
        x, _, theta, _ = self.state
        reward = (np.cos(theta) + 1) / 2 * np.cos(np.pi / 2 * x / TRACK)
        return self.read(), float(reward), abs(x) > TRACK


class PlainNeuron(nn.Module):
    """The swing-up's agent from PyTorch's parts, for one episode at a time; ``values`` in its order."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(2, 8)
        self.query = nn.Linear(QUERY_SIZE, 32, bias=False)
        self.key = nn.Linear(8, 32, bias=False)
        self.action = nn.Sequential(nn.Linear(16, 1), nn.Tanh())
        self.table = position_table(16)
        nn.utils.vector_to_parameters(torch.as_tensor(values, dtype=torch.float32), self.parameters())

    def run(self, cart: PlainCart, steps: int) -> tuple[float, int]:
        """Return and length of an episode of at most so many steps."""
        readings, total = cart.read(), 0.0
        memory, action = (torch.zeros(5, 8), torch.zeros(5, 8)), torch.zeros(1, 1)
        with torch.no_grad():
            for step in range(1, steps + 1):
                reading = torch.from_numpy(readings.copy()).float().unsqueeze(-1)  # reading: (5, 1)
                told = torch.cat([reading, torch.vstack([action] * len(reading))], dim=-1)
                memory = self.cell(told, memory)
                scores = torch.matmul(self.query(self.table), self.key(memory[0]).T)  # scores: (16, 5)
                gathered = torch.tanh(torch.matmul(torch.tanh(scores), reading))  # gathered: (16, 1)
                action = self.action(gathered.T)
                readings, reward, left = cart.step(action.squeeze(0).numpy())
                total += reward
                if left:
                    return total, step
        return total, steps
