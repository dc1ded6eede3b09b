"""Adapter: a token policy as the actor-critic that Stable-Baselines3's PPO wants."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from ..policies.base import Observation, Policy
from .sharding import Shards
from .trimming import evaluate_trimmed

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class SB3TokenPolicy(ActorCriticPolicy):
    """Diagonal Gaussian over the actuators that exist, around the means of a token policy.

    Log-probability and entropy are sums over existing actuators, so that padding and bodies of other
    sizes have no influence on each other.

    Args:
        observation_space, action_space, lr_schedule, use_sde: as SB3 passes them.
        policy: the token policy, which is trained in place.
        precision: ``float32``, or ``bf16`` to run the network under autocast (collection and learning
            alike, since a ratio of probabilities must compare like with like).

    Attributes:
        shards: threads that share the work of large batches; None: there are none.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        use_sde: bool = False,
        *,
        policy: Policy,
        precision: str = "float32",
    ) -> None:
        # ActorCriticPolicy's own constructor would build networks of its own.
        BasePolicy.__init__(self, observation_space, action_space, normalize_images=False)
        self.token_policy = policy
        self.precision = precision
        self.shards: Shards | None = None
        self.use_sde = use_sde
        self.share_features_extractor = True
        self.optimizer_class = torch.optim.Adam
        # One fused kernel for two dozen small tensors.
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=lr_schedule(1), eps=1e-5, fused=True)

    @property
    def log_std(self) -> Tensor:
        """The one exploration scale, which SB3 logs as ``train/std``."""
        return self.token_policy.log_std

    def forward(self, obs: Observation, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (B, N, J), values (B, 1), log-probabilities (B,)."""
        mean, value = self._mean_and_value(obs)
        mask = obs["action_mask"].to(mean.dtype)
        std = self.log_std.exp()
        actions = mean if deterministic else mean + std * torch.randn_like(mean) * mask
        return actions, value[:, None], self._log_prob(actions, mean, mask)

    def evaluate_actions(self, obs: Observation, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (B, 1), log-probabilities (B,) and entropies (B,) of stored actions (B, N * J)."""
        mean, value = self._mean_and_value(obs)
        mask = obs["action_mask"].to(mean.dtype)
        entropy = (0.5 + _LOG_SQRT_2PI + self.log_std) * mask.sum((1, 2))
        return value[:, None], self._log_prob(actions.view_as(mean), mean, mask), entropy

    def predict_values(self, obs: Observation) -> Tensor:
        """Values (B, 1)."""
        return self._mean_and_value(obs)[1][:, None]

    def _predict(self, observation: Observation, deterministic: bool = False) -> Tensor:
        return self(observation, deterministic)[0]

    def _mean_and_value(self, obs: Observation) -> tuple[Tensor, Tensor]:
        if self.token_policy.aligned_slots:
            return self._evaluate(obs)
        if self.shards is None:
            return evaluate_trimmed(self._evaluate, obs)
        share = functools.partial(self.shards.map, module=self.token_policy)
        return evaluate_trimmed(self._evaluate, obs, share, self.shards.count)

    def _evaluate(self, obs: Observation) -> tuple[Tensor, Tensor]:
        policy = self.token_policy
        obs = policy.prepare(obs)
        size, n_tokens = obs["tokens"].shape[:2]
        with torch.autocast(obs["tokens"].device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features, _ = policy.encode(obs, policy.initial_memory(size, n_tokens))
            mean, value = policy.act(features, obs), policy.value(features, obs)
        return mean.float(), value.float()

    def _log_prob(self, actions: Tensor, mean: Tensor, mask: Tensor) -> Tensor:
        log_std = self.log_std
        deviation = (actions - mean) * torch.exp(-log_std)
        return ((-0.5 * deviation.square() - log_std - _LOG_SQRT_2PI) * mask).sum((1, 2))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {"policy": self.token_policy, "precision": self.precision}
