"""The padded ordinary network: the control that modular policies are compared with."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from ...envs.numbers import checked
from ...envs.tokens import TokenSpec
from .base import Memory, Observation, Policy
from .layers import LOG_STD, RELU_GAIN, REPEATS, SIZE, linear


@checked("agent")
class MLP(Policy):
    """An ordinary network on all slots side by side; by design it depends on their order and number.

    It reads the same features, descriptors and masks as the modular policies, in slots that the
    environment aligns by the full body's limbs. Its value has a network of its own, as is usual.

    Args:
        spec: What the columns of ``tokens`` and ``joints`` mean.
        n_tokens: N, limb slots of the full body.
        n_joints: J, joint slots of a limb.
        width: Size of the hidden layers.
        layers: Number of hidden layers.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.
    """

    aligned_slots = True

    def __init__(
        self,
        spec: TokenSpec,
        n_tokens: int,
        n_joints: int,
        width: Annotated[int, SIZE] = 256,
        layers: Annotated[int, REPEATS] = 2,
        initial_log_std: Annotated[float, LOG_STD] = -0.5,
    ) -> None:
        super().__init__(spec, initial_log_std)
        self.n_tokens, self.n_joints = n_tokens, n_joints
        self.width, self.layers = width, layers
        inputs = n_tokens * (spec.token_size + 1 + n_joints * (spec.joint_size + 2))
        self.actor = _network(inputs, width, layers, n_tokens * n_joints, 0.01)
        self.critic = _network(inputs, width, layers, 1, 1.0)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """All normalised slots and masks side by side, (B, N * (F + 1 + J * (G + 2))).

        Raises:
            ValueError: The observation has other numbers of slots than the policy.
        """
        slots = tuple(observation["joint_mask"].shape[-2:])
        if slots != (self.n_tokens, self.n_joints):
            raise ValueError(
                f"MLP was built for {(self.n_tokens, self.n_joints)} limb and joint slots, got {slots}; "
                "its slots belong to one full body: use a modular policy for other bodies"
            )
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


def _network(inputs: int, width: int, layers: int, outputs: int, gain: float) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [linear(inputs, width, RELU_GAIN), nn.ReLU()]
        inputs = width
    return nn.Sequential(*parts, linear(inputs, outputs, gain))
