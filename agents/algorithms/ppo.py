"""Proximal policy optimisation (Schulman et al. 2017).

The update is Stable-Baselines3's in meaning, which a test holds it to; rollouts stay on the environments'
device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import FLAG, NULL, POSITIVE, SHARE, checked, one_of, real, whole
from ...envs.snapshots import Misfit
from ..policies.base import Policy
from ..rollout.rewards import KnownCuts, RewardScaling, UnknownCuts
from .base import ENVS, EPOCHS, STEPS, Algorithm, Setup
from .network import distribution
from .on_policy import OnPolicyLearner, common_charts

RATE = real(0, 10, above=True)
"""Of Adam."""

NEW_RATE, CONTINUED_RATE = 1e-3, 1e-4
"""Of a policy that has learnt nothing, and of one that has.

A policy that has learnt explores little, and the same change of its means is then a larger change of what it
does: at 1e-3 a minibatch moved it by a KL divergence of 0.3 and more, and most was forgotten.
"""
RISING_UPDATES = 10
"""In which the rate rises then: the first steps of a new Adam are as long for every parameter."""


@checked("algorithm")
@dataclass(kw_only=True)
class PPO(Algorithm):
    """Settings of PPO; ``conf/algorithm/ppo.yaml`` says what its keys mean. Most are those of SB3.

    Raises:
        UserError: an invalid value.
    """

    name = "ppo"
    total_steps: Annotated[int, whole(1)] = 3_000_000
    num_envs: Annotated[int, ENVS] = 192
    n_steps: Annotated[int, STEPS] = 32
    batch_size: Annotated[int, whole(2)] = 2048
    n_epochs: Annotated[int, EPOCHS] = 4
    sequence_length: Annotated[int, STEPS] = 16
    learning_rate: Annotated[float | str, one_of("auto") | RATE] = "auto"
    learning_rate_schedule: Annotated[str, one_of("linear", "constant")] = "linear"
    gamma: Annotated[float, SHARE] = 0.99
    gae_lambda: Annotated[float, SHARE] = 0.95
    clip_range: Annotated[float, real(0, 10, above=True)] = 0.2
    ent_coef: Annotated[float, real(0)] = 0.0
    vf_coef: Annotated[float, real(0)] = 0.5
    max_grad_norm: Annotated[float, POSITIVE] = 0.5
    target_kl: Annotated[float | None, POSITIVE | NULL] = None
    normalize_returns: Annotated[bool, FLAG] = True

    def __post_init__(self) -> None:
        if self.n_steps * self.num_envs < 2:
            raise UserError(
                "algorithm.n_steps=1 with algorithm.num_envs=1 gives one sample for an update; PPO needs two "
                "or more, since it normalises advantages"
            )

    def make_learner(self, setup: Setup) -> PPOLearner:  # noqa: D102
        return PPOLearner(self, setup)

    def charts(self, policy: Policy) -> dict[str, Sequence[str]]:  # noqa: D102
        found = {
            "Variance of the returns that the critic explains": ("train/explained_variance$",),
            "Loss of the critic": ("train/value_loss$",),
            "Loss of the policy": ("train/policy_gradient_loss$",),
            "Size of an update: KL divergence": ("train/approx_kl$",),
            "Size of an update: share of samples clipped": ("train/clip_fraction$",),
            "Exploration: negative entropy": ("train/entropy_loss$",),
        }
        if not policy.discrete:
            found["Exploration: deviation of the actions"] = ("train/std$",)
        return {**found, **common_charts(policy)}

    def without_influence(self) -> tuple[str, ...]:  # noqa: D102
        return ("total_steps",) if self.learning_rate_schedule == "constant" else ()

    def rate(self, steps: int, continued: bool) -> float:
        """Learning rate after so many steps; whole rollouts pass the end of the run.

        A policy that is ``continued`` began with what another run has learnt.
        """
        rate = self.learning_rate
        if rate == "auto":
            rate = CONTINUED_RATE if continued else NEW_RATE
        if self.learning_rate_schedule == "linear":
            rate *= max(1 - steps / self.total_steps, 0.0)
        rises_for = RISING_UPDATES * self.n_steps * self.num_envs
        return rate * min(1.0, steps / rises_for) if continued else rate


class PPOLearner(OnPolicyLearner):
    """Explores by Gaussians around the policy's means, or by its choices; see `OnPolicyLearner`.

    Rewards go through ``scaling``, if there is one; ``passes`` over rollouts have been made so far.
    """

    settings: PPO

    def __init__(self, settings: PPO, setup: Setup) -> None:
        env = setup.make_env(settings.num_envs, stagger=True)
        space = env.single_action_space
        columns: dict[str, tuple[int, ...]] = {"actions": (math.prod(space.shape),)}
        columns |= dict.fromkeys(("rewards", "values", "log_probs", "advantages", "returns"), ())
        scaling = RewardScaling(env.body_of_row, settings.gamma, env.device)
        self.scaling = scaling if settings.normalize_returns else None
        slots = -(-settings.n_steps // env.max_episode_steps)
        self.cuts = KnownCuts() if env.knows_ends else UnknownCuts(env.num_envs, slots)
        self._bounds = None
        if isinstance(space, spaces.Box):
            self._bounds = [torch.from_numpy(bound).to(setup.device) for bound in (space.low, space.high)]
        self.passes, self._continued = 0, setup.continued
        super().__init__(settings, setup, env, columns)

    def begin_episodes(self) -> None:  # noqa: D102
        super().begin_episodes()
        if self.scaling:
            self.scaling.begin_episodes()

    def _explored(self, outputs: Tensor, observation: Mapping[str, Tensor]) -> Any:
        policy = self.policy
        return distribution(outputs, policy.discrete, observation.get("action_mask"), policy.log_std)

    def _act(self) -> tuple[Tensor, dict[str, Tensor]]:
        outputs, values = self.network.act(self.observation)
        explored = self._explored(outputs, self.observation)
        actions = explored.sample()
        kept = {"actions": actions, "values": values, "log_probs": explored.log_prob(actions)}
        return torch.clamp(actions, *self._bounds) if self._bounds else actions, kept

    def _collect(self, stop: Any) -> bool:
        self.cuts.clear()
        return super()._collect(stop)

    def _took(self, step: int, result: Any, ended: Tensor) -> None:
        rewards = self.scaling(result.rewards, ended) if self.scaling else result.rewards
        self.buffer["rewards"][step].copy_(rewards, non_blocking=True)
        if result.final is not None:
            cut = result.truncated & ~result.terminated
            self.cuts.add(step, cut, result.final, self.network.memory)

    def _finish(self) -> None:
        """Generalised advantage estimation (Schulman et al. 2016), and the targets of the values."""
        buffer, settings = self.buffer, self.settings
        rewards, values, advantages = buffer["rewards"], buffer["values"], buffer["advantages"]
        self.cuts.bootstrap(rewards, settings.gamma, self.network.value)
        next_values = self.network.value(self.observation)
        goes_on = (~self.starts).to(self.device, torch.float32)
        advantage = torch.zeros_like(next_values)
        for step in reversed(range(settings.n_steps)):
            delta = rewards[step] + settings.gamma * next_values * goes_on - values[step]
            advantage = delta + settings.gamma * settings.gae_lambda * goes_on * advantage
            advantages[step] = advantage
            goes_on, next_values = (~buffer.starts[step]).float(), values[step]
        torch.add(advantages, values, out=buffer["returns"])

    def _learn(self) -> dict[str, float]:
        settings, policy = self.settings, self.policy
        rate = settings.rate(self.steps, self._continued)
        self._set_rate(rate)
        told: list[Tensor] = []  # (5,) of each minibatch
        auxiliary = None
        for _ in range(settings.n_epochs):
            divergences: list[Tensor] = []  # of this pass
            too_far = False
            for batch in self.buffer.batches(settings.batch_size):
                (outputs, values), auxiliary = self.network.learn(batch)
                explored = self._explored(outputs, batch.observation)
                log_ratio = explored.log_prob(batch["actions"]) - batch["log_probs"]
                ratio, advantages = log_ratio.exp(), batch["advantages"]
                if len(advantages) > 1:
                    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
                clipped = ratio.clamp(1 - settings.clip_range, 1 + settings.clip_range)
                gain = torch.min(advantages * ratio, advantages * clipped).mean()
                value_loss = functional.mse_loss(batch["returns"], values)
                entropy = explored.entropy().mean()
                loss = settings.vf_coef * value_loss - gain - settings.ent_coef * entropy
                with torch.no_grad():
                    divergences.append((ratio - 1 - log_ratio).mean())
                    outside = ((ratio - 1).abs() > settings.clip_range).float().mean()
                    told.append(torch.stack((loss, -gain, value_loss, -entropy, outside)))
                if settings.target_kl is not None and divergences[-1] > 1.5 * settings.target_kl:
                    too_far = True
                    break
                self._minimize(loss if auxiliary is None else loss + auxiliary)
            self.passes += 1
            if too_far:
                break
        # Read at once: each number that the host asks for waits for the device.
        each = torch.stack(told)
        names = ("policy_gradient_loss", "value_loss", "entropy_loss", "clip_fraction")
        scalars = dict(zip(names, each.mean(0).tolist()[1:], strict=True))
        scalars |= {"loss": float(each[-1, 0]), "approx_kl": float(torch.stack(divergences).mean())}
        scalars["explained_variance"] = self._explained_variance()
        if not policy.discrete:
            scalars["std"] = float(policy.log_std.detach().exp())
        if auxiliary is not None:
            scalars["auxiliary_loss"] = float(auxiliary.detach())
        scalars |= {"learning_rate": rate, "clip_range": settings.clip_range, "n_updates": self.passes}
        return {f"train/{name}": value for name, value in scalars.items()}

    def _explained_variance(self) -> float:
        returns, values = self.buffer["returns"], self.buffer["values"]
        variance = returns.var(correction=0)
        return float(1 - (returns - values).var(correction=0) / variance) if variance else float("nan")

    def _snapshot(self) -> dict[str, Any]:
        scales = self.scaling.snapshot() if self.scaling else None
        return {**super()._snapshot(), "passes": self.passes, "scales": scales}

    def restore(self, state: Mapping[str, Any], new_episodes: bool) -> Sequence[str]:  # noqa: D102
        notes = [*super().restore(state, new_episodes)]
        self.passes = state["passes"]
        if self.scaling and state["scales"]:
            try:
                self.scaling.restore_statistics(state["scales"])
            except Misfit as error:  # of other bodies: they are learnt anew
                notes.append(str(error))
        return notes

    def _go_on(self, state: Mapping[str, Any]) -> list[str]:
        notes = super()._go_on(state)
        if self.scaling and state["scales"]:
            self.scaling.restore(state["scales"], torch.as_tensor(self.env.begun_anew))
        return notes
