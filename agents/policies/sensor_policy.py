"""What policies of sensor tasks have in common: an action from the whole set, and a critic."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...envs.errors import UserError, nearest
from ...envs.tokens import TokenSpec
from .base import Observation, Policy
from .choices import Discrete, checked_discrete
from .layers import linear
from .normalizer import TokenNormalizer

SENSOR_CRITICS = ("auto", "privileged", "shared")
"""A network of its own on what only training sees (the task's readings in their own order, or the state
behind a picture), or a layer on the actor's features; ``auto``: the former where the task tells so much."""

CRITIC_WIDTH = 64
TANH_GAIN = 5 / 3


def tanh_network(inputs: int, width: int, layers: int, outputs: int, gain: float) -> nn.Sequential:
    """``layers`` hidden layers with tanh; the last layer starts with ``gain``."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [linear(inputs, width, TANH_GAIN), nn.Tanh()]
        inputs = width
    return nn.Sequential(*parts, linear(inputs, outputs, gain))


def fitting_critic(n_privileged: int) -> str:
    """What ``critic=auto`` means for a task that tells so many privileged readings."""
    return "privileged" if n_privileged else "shared"


class SensorPolicy(Policy):
    """From a set of sensor tokens to one action vector.

    Args:
        spec: What the columns of ``tokens`` mean.
        n_actions: A, actions, or choices where they are discrete.
        n_recent: K, recent actions that are told.
        discrete: Whether actions are choices, for which ``act`` gives logits: True, one of A; or how many
            choices each of several decisions has, A together.
        n_privileged: S, readings that the critic sees; 0 where the task tells none.
        feature_size: Size of what ``encode`` gives.
        critic: ``privileged``, ``shared``, or ``auto``: ``privileged`` where the task tells privileged
            readings, else ``shared``.
        initial_log_std: Natural logarithm of the exploration noise at the start, nominal units.
        normalizer: of what it reads; None: tokens are brought to a common scale by running statistics.

    Raises:
        UserError: ``critic`` is none of these, or there is nothing that a privileged one could read.
    """

    kind = "sensors"

    def __init__(
        self,
        spec: TokenSpec,
        n_actions: int,
        n_recent: int,
        discrete: Discrete,
        n_privileged: int,
        feature_size: int,
        critic: str,
        initial_log_std: float,
        normalizer: TokenNormalizer | None = None,
    ) -> None:
        super().__init__(spec, initial_log_std, normalizer or TokenNormalizer(spec, n_privileged))
        if critic not in SENSOR_CRITICS:
            raise UserError(f"agent.critic cannot be {critic!r}; {nearest(str(critic), SENSOR_CRITICS)}")
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
        inputs = n_privileged if critic == "privileged" else feature_size
        layers = 2 if critic == "privileged" else 1
        self.value_head = tanh_network(inputs, CRITIC_WIDTH, layers, 1, 1.0)

    @property
    def action_inputs(self) -> int:
        """Numbers that the recent actions are."""
        return self.n_recent * self.n_actions

    def recent(self, observation: Observation) -> Tensor:
        """The recent actions side by side, (B, K * A)."""
        return observation["recent_actions"].flatten(-2)

    def value(self, features: Tensor, observation: Observation) -> Tensor:
        """Estimated return (B,) in the learner's units."""
        if self.critic == "privileged":
            features = self.normalizer.privileged(observation)
        return self.value_head(features).squeeze(-1)

    def bounded(self, actions: Tensor) -> Tensor:
        """Means within [-1, 1]; logits as they are."""
        return actions if self.discrete else torch.tanh(actions)
