"""Ordinary networks on all slots side by side: the controls that policies of tokens are compared with.

By design they depend on the slots' order and number.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from ...envs.numbers import FLAG, checked
from ...envs.tokens import TokenSpec
from .base import Memory, Observation, Policy
from .layers import REPEATS, SIZE, perceptron
from .sensor_policy import SensorPolicy


@checked("agent")
class MLP(Policy):
    """The padded ordinary network of limbs.

    It reads the same features, descriptors and masks as the modular policies, in slots that the
    environment aligns by the full body's limbs. Its value has a network of its own, as is usual.

    Args:
        n_tokens: N, limb slots of the full body.
        n_joints: J, joint slots of a limb.
        width: Size of the hidden layers.
        layers: Number of hidden layers.
    """

    aligned_slots = True
    training_modules = ("critic",)

    def __init__(
        self,
        spec: TokenSpec,
        n_tokens: int,
        n_joints: int,
        width: Annotated[int, SIZE] = 256,
        layers: Annotated[int, REPEATS] = 2,
        **common: Any,
    ) -> None:
        super().__init__(spec, **common)
        self.n_tokens, self.n_joints = n_tokens, n_joints
        self.width, self.layers = width, layers
        inputs = n_tokens * (spec.token_size + 1 + n_joints * (spec.joint_size + 2))
        self.actor = perceptron(inputs, width, layers, n_tokens * n_joints, 0.01, relu=True)
        self.critic = perceptron(inputs, width, layers, 1, 1.0, relu=True)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """All normalised slots and masks side by side, (B, N * (F + 1 + J * (G + 2))).

        Raises:
            UserError: The observation has other numbers of slots than the policy.
        """
        slots = tuple(observation["joint_mask"].shape[-2:])
        self._expect_slots((self.n_tokens, self.n_joints), "limb and joint slots", slots)
        tokens, joints = self.normalizer(observation)
        masks = [observation[name].to(tokens.dtype) for name in ("mask", "joint_mask", "action_mask")]
        parts = [tokens.flatten(-2), joints.flatten(-3), masks[0], masks[1].flatten(-2)]
        return torch.cat([*parts, masks[2].flatten(-2)], dim=-1), memory

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, N, J) in nominal units, 0 where ``action_mask`` is 0."""
        mean = self.actor(features).unflatten(-1, (self.n_tokens, self.n_joints))  # mean: (B, N, J)
        return torch.where(observation["action_mask"] != 0, mean, 0.0)

    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,)."""
        return self.critic(features).squeeze(-1)


@checked("agent")
class SensorMLP(SensorPolicy):
    """The ordinary network of sensors.

    Like any ordinary network's, its inputs are normalised one by one: each slot has its own scale and shift.

    Args:
        n_tokens: N, slots.
        width: Size of the hidden layers.
        layers: Number of hidden layers.
        sees_actions: Whether it reads the recent actions.
    """

    def __init__(
        self,
        spec: TokenSpec,
        n_tokens: int,
        n_actions: int,
        n_recent: int,
        width: Annotated[int, SIZE] = 64,
        layers: Annotated[int, REPEATS] = 2,
        sees_actions: Annotated[bool, FLAG] = False,
        **task: Any,
    ) -> None:
        inputs = n_tokens * (spec.token_size + 1) + sees_actions * n_recent * n_actions
        super().__init__(spec, inputs, {"slots": n_tokens}, n_actions=n_actions, n_recent=n_recent, **task)
        self.n_tokens, self.width, self.layers, self.sees_actions = n_tokens, width, layers, sees_actions
        self.action = perceptron(inputs, width, layers, n_actions, 0.01)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """All slots and their masks side by side, (B, N * (F + 1)), with the recent actions if it sees them.

        Raises:
            UserError: The observation has another number of slots than the policy.
        """
        mask = observation["mask"]
        self._expect_slots(self.n_tokens, "sensors", mask.shape[-1])
        tokens = self.normalizer.tokens(observation)  # tokens: (B, N, F)
        parts = [tokens.flatten(-2), mask.to(tokens.dtype)]
        return torch.cat([*parts, self.recent(observation)] if self.sees_actions else parts, -1), memory
