"""Adapter: a token policy as the actor-critic that Stable-Baselines3's PPO wants."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from ..policies.base import Memory, Observation, Policy
from ..rollout.sequences import MEMORY, STARTS, forget
from .auxiliary import also_minimize
from .distributions import Distribution, distribution
from .sharding import Evaluate, Shards
from .trimming import evaluate_trimmed


class SB3TokenPolicy(ActorCriticPolicy):
    """A token policy that explores: Gaussians around its means, or its choices.

    A policy with memory remembers, between the calls of a rollout, what each row has met.

    Args:
        observation_space, action_space, lr_schedule, use_sde: as SB3 passes them.
        policy: the token policy, which is trained in place.
        precision: ``float32``, or ``bf16`` to run the network under autocast (collection and learning
            alike, since a ratio of probabilities must compare like with like).

    Attributes:
        shards: threads that share the work of large batches; None: there are none.
        memory: of the rows of the rollout; empty where the policy remembers nothing.
        memory_before: the same before the last actions.
        auxiliary_loss: of the minibatch last learnt from; None where the policy has none.
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
        self.memory: Memory = {}
        self.memory_before: Memory = {}
        self.auxiliary_loss: float | None = None
        self.remembers = bool(policy.initial_memory(1, 1))
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
        """Actions (B, N, J), (B, A), or choices (B,) or (B, K), values (B, 1), log-probabilities (B,)."""
        if self.remembers:
            self.memory_before = self._memory_of(obs)
            outputs, value, self.memory = self._evaluate(obs, self.memory_before)
        else:
            outputs, value = self._outputs_and_value(obs)
        explored = self._distribution(outputs, obs)
        actions = explored.mode() if deterministic else explored.sample()
        return actions, value[:, None], explored.log_prob(actions)

    def outputs(self, obs: Observation) -> Tensor:
        """Means (B, ...) or logits (B, A) of the present step, which is remembered."""
        self.memory_before = self._memory_of(obs) if self.remembers else {}
        obs = self.token_policy.prepare(obs)
        with self._autocast(obs):
            features, self.memory = self.token_policy.encode(obs, self.memory_before)
            return self.token_policy.act(features, obs).float()

    def outputs_of(self, obs: Observation) -> Tensor:
        """Means or logits of stored observations, or of stretches of them, to learn from."""
        if STARTS in obs:
            with self._autocast(obs):
                features, obs = self._features_of_sequences(obs)
                return self.token_policy.act(features, obs).float()
        outputs, *auxiliary = self._shared_out(self._outputs_alone, obs)
        return self._with_auxiliary(outputs, auxiliary)

    def _outputs_alone(self, obs: Observation) -> tuple[Tensor, ...]:
        """Outputs, and auxiliary losses (B,) if there are any."""
        obs = self.token_policy.prepare(obs)
        with self._autocast(obs):
            policy = self.token_policy
            learns = policy.has_auxiliary_loss
            features, *auxiliary = policy.encode_to_learn(obs) if learns else policy.encode(obs, {})[:1]
            return (policy.act(features, obs).float(), *auxiliary)

    def evaluate_actions(self, obs: Observation, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (B, 1), log-probabilities (B,) and entropies (B,) of stored actions (B, ...)."""
        auxiliary: list[Tensor] = []
        if STARTS in obs:
            outputs, value = self._sequences(obs)
        elif self.token_policy.has_auxiliary_loss:
            outputs, value, *auxiliary = self._shared_out(self._evaluate_to_learn, obs)
        else:
            outputs, value = self._outputs_and_value(obs)
        explored = self._distribution(outputs, obs)
        log_prob = self._with_auxiliary(explored.log_prob(actions), auxiliary)
        return value[:, None], log_prob, explored.entropy()

    def predict_values(self, obs: Observation, memory: Memory | None = None) -> Tensor:
        """Values (B, 1), with this memory; None: with the present one of the rollout."""
        if not self.remembers:
            return self._outputs_and_value(obs)[1][:, None]
        return self._evaluate(obs, self._memory_of(obs) if memory is None else memory)[1][:, None]

    def forget(self, rows: Tensor | np.ndarray) -> None:
        """Episodes have ended in ``rows`` (B,) bool."""
        if self.memory:
            size, n_tokens = next(iter(self.memory.values())).shape[:2]
            start = self.token_policy.initial_memory(size, n_tokens)
            self.memory = forget(self.memory, start, torch.as_tensor(rows, device=self.device))

    def _memory_of(self, obs: Observation) -> Memory:
        size, n_tokens = obs["tokens"].shape[:2]
        if not self.memory or next(iter(self.memory.values())).shape[:2] != (size, n_tokens):
            self.memory = self.token_policy.initial_memory(size, n_tokens)
        return self.memory

    def _predict(self, observation: Observation, deterministic: bool = False) -> Tensor:
        return self(observation, deterministic)[0]

    def _distribution(self, outputs: Tensor, obs: Observation) -> Distribution:
        return distribution(outputs, self.token_policy.discrete, obs.get("action_mask"), self.log_std)

    def _outputs_and_value(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """Of a policy that remembers nothing."""
        if self.token_policy.aligned_slots:
            return self._evaluate(obs, {})[:2]
        share = self.shards and functools.partial(self.shards.map, module=self.token_policy)
        if self.token_policy.kind == "limbs":
            shards = self.shards.count if self.shards else 1
            return evaluate_trimmed(self._forgetful, obs, share, shards)
        return self._shared_out(self._forgetful, obs)

    def _shared_out(self, evaluate: Evaluate, obs: Observation) -> tuple[Tensor, ...]:
        """``evaluate`` of parts of a batch on the threads that there are, put together."""
        if self.shards is None:
            return evaluate(obs)
        parts = [dict(zip(obs, part, strict=True)) for part in _split(obs.values(), self.shards.count)]
        found = self.shards.map(evaluate, parts, module=self.token_policy)
        return tuple(torch.cat(tensors) for tensors in zip(*found, strict=True))

    def _evaluate_to_learn(self, obs: Observation) -> tuple[Tensor, ...]:
        """Outputs, values (B,) and auxiliary losses (B,)."""
        policy = self.token_policy
        obs = policy.prepare(obs)
        with self._autocast(obs):
            features, auxiliary = policy.encode_to_learn(obs)
            outputs, value = policy.act(features, obs), policy.value(features, obs)
        return outputs.float(), value.float(), auxiliary

    def _with_auxiliary(self, values: Tensor, losses: Sequence[Tensor]) -> Tensor:
        """``values``, and with them the mean of the auxiliary losses, if there are any."""
        if not losses:
            return values
        loss = losses[0].float().mean()
        self.auxiliary_loss = float(loss.detach())
        return also_minimize(values, loss)

    def _forgetful(self, obs: Observation) -> tuple[Tensor, Tensor]:
        return self._evaluate(obs, {})[:2]

    def _evaluate(self, obs: Observation, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        policy = self.token_policy
        obs = policy.prepare(obs)
        with self._autocast(obs):
            features, memory = policy.encode(obs, memory)
            outputs, value = policy.act(features, obs), policy.value(features, obs)
        return outputs.float(), value.float(), memory

    def _sequences(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """Outputs and values of stretches of steps, flattened as `SequenceRolloutBuffer` gives them."""
        with self._autocast(obs):
            features, own = self._features_of_sequences(obs)
            outputs = self.token_policy.act(features, own)
            value = self.token_policy.value(features, own)
        return outputs.float(), value.float()

    def _features_of_sequences(self, obs: Observation) -> tuple[Tensor, Observation]:
        """Features (L * b, width), and the observation without what the buffer added."""
        policy = self.token_policy
        memory = {key.removeprefix(MEMORY): obs[key] for key in obs if key.startswith(MEMORY)}
        rows, n_tokens = next(iter(memory.values())).shape[:2]
        own = {key: value for key, value in obs.items() if key != STARTS and not key.startswith(MEMORY)}
        start, features = policy.initial_memory(rows, n_tokens), []
        steps = {key: value.unflatten(0, (-1, rows)) for key, value in own.items()}  # (L, b, ...)
        for step, starts in enumerate(obs[STARTS].view(-1, rows)):
            memory = forget(memory, start, starts != 0)
            found, memory = policy.encode({key: value[step] for key, value in steps.items()}, memory)
            features.append(found)
        return torch.cat(features), own

    def _autocast(self, obs: Observation) -> torch.autocast:
        return torch.autocast(obs["tokens"].device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {"policy": self.token_policy, "precision": self.precision}


def _split(values: Any, count: int) -> Any:
    return zip(*(value.tensor_split(count) for value in values), strict=True)
