"""Policies that turn limbs into features with a trunk, and features into actions and a value per limb."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ...envs.errors import UserError
from ...envs.tokens import TokenSpec
from .base import Memory, Observation, Policy
from .critics import CRITICS, PooledCritic
from .layers import JointHead, ValueHead


class LimbPolicy(Policy):
    """A trunk, a head for each joint's action, and a head for each limb's value.

    Args:
        spec: What the columns of ``tokens`` and ``joints`` mean.
        make_trunk: Builds a module from normalised tokens (B, N, F), joints (B, N, J, G) and the
            observation to features (B, N, width).
        width: Size of a limb's features.
        critic: Where the value comes from: ``pooled``, a small network of its own that pools limbs;
            ``trunk``, a trunk of its own; ``shared``, the actor's trunk.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.

    Raises:
        UserError: ``critic`` is none of these.
    """

    def __init__(
        self,
        spec: TokenSpec,
        make_trunk: Callable[[], nn.Module],
        width: int,
        critic: str,
        initial_log_std: float,
    ) -> None:
        super().__init__(spec, initial_log_std)
        if critic not in CRITICS:
            raise UserError(f"agent.critic must be one of {', '.join(CRITICS)}, got {critic!r}")
        self.width, self.critic = width, critic
        self.trunk = make_trunk()
        self.critic_trunk = make_trunk() if critic == "trunk" else None
        self.pooled_critic = PooledCritic(spec, width) if critic == "pooled" else None
        self.action_head = JointHead(spec, width)
        self.value_head = None if critic == "pooled" else ValueHead(width)

    def encode(self, observation: Observation, memory: Memory) -> tuple[Tensor, Memory]:
        """Features of the limbs, (B, N, width), meaningless at padding, and the empty memory."""
        return self.trunk(*self.normalizer(observation), observation), memory

    def act(self, features: Tensor, observation: Observation) -> Tensor:
        """Action means (B, N, J) in nominal units, 0 where ``action_mask`` is 0."""
        return self.action_head(features, self.normalizer.joints(observation), observation["action_mask"])

    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,)."""
        if self.pooled_critic is not None:
            tokens, joints = self.normalizer(observation)
            return self.pooled_critic(tokens, joints, observation["joint_mask"], observation["mask"])
        if self.critic_trunk is not None:
            features = self.critic_trunk(*self.normalizer(observation), observation)
        return self.value_head(features, observation["mask"])
