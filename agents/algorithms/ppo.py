"""Proximal policy optimisation (Schulman et al. 2017), by Stable-Baselines3, for token policies: settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from ...envs.errors import UserError
from ...envs.numbers import FLAG, NULL, POSITIVE, SHARE, checked, one_of, real, whole
from ...envs.task_set import TaskSet
from ..policies.base import Policy
from ..rollout.buffer import RolloutBuffer
from ..rollout.sequences import SequenceRolloutBuffer
from ..rollout.training_rows import CPU, DeviceRows, HostRows, TrainingRows
from .sb3_policy import SB3TokenPolicy
from .token_ppo import TokenPPO

SCHEDULES = ("linear", "constant")

ROWS, STEPS, EPOCHS, EPISODES = whole(1, 10**6), whole(1, 10**6), whole(1, 10**4), whole(0, 10**6)
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
@dataclass
class PPO:
    """Settings of PPO; the keys of ``conf/algorithm/ppo.yaml``.

    Args:
        total_steps: environment steps, summed over all rows.
        num_envs: rows, spread evenly over the training bodies.
        n_steps: steps of each row between updates.
        batch_size: samples of a minibatch.
        n_epochs: passes over a rollout.
        learning_rate: of Adam. ``auto``: `NEW_RATE`, or `CONTINUED_RATE` where the policy begins with what
            another run has learnt.
        learning_rate_schedule: ``linear`` (to zero at total_steps) or ``constant``.
        sequence_length: steps that a policy with memory is trained through at once; it divides n_steps.
        gamma, gae_lambda, clip_range, ent_coef, vf_coef, max_grad_norm, target_kl: as in SB3.
        normalize_returns: divide rewards by each body's running deviation of the discounted return.
        max_diverged: share of a body's steps in a rollout whose simulation may diverge; then the run stops.
        checkpoint_every: environment steps between checkpoints. keep_checkpoints: how many stay.
        validate_every: environment steps between validations on the training bodies, which choose
            ``best/``; 0 for never. validation_episodes: of each body.
        zero_shot_every: environment steps between runs of the suite of ``conf/zero_shot.yaml``, which
            chooses nothing; 0 for never. A shorter run has none, a longer one another at its end.

    Raises:
        UserError: a number or a name that cannot be meant.
    """

    total_steps: Annotated[int, whole(1)] = 3_000_000
    num_envs: Annotated[int, ROWS] = 192
    n_steps: Annotated[int, STEPS] = 32
    batch_size: Annotated[int, whole(2)] = 2048
    n_epochs: Annotated[int, EPOCHS] = 4
    sequence_length: Annotated[int, STEPS] = 16
    learning_rate: Annotated[float | str, one_of("auto") | RATE] = "auto"
    learning_rate_schedule: Annotated[str, one_of(*SCHEDULES)] = "linear"
    gamma: Annotated[float, SHARE] = 0.99
    gae_lambda: Annotated[float, SHARE] = 0.95
    clip_range: Annotated[float, real(0, 10, above=True)] = 0.2
    ent_coef: Annotated[float, real(0)] = 0.0
    vf_coef: Annotated[float, real(0)] = 0.5
    max_grad_norm: Annotated[float, POSITIVE] = 0.5
    target_kl: Annotated[float | None, POSITIVE | NULL] = None
    normalize_returns: Annotated[bool, FLAG] = True
    max_diverged: Annotated[float, SHARE] = 0.02
    checkpoint_every: Annotated[int, whole(1)] = 500_000
    keep_checkpoints: Annotated[int, whole()] = 2
    validate_every: Annotated[int, whole()] = 500_000
    validation_episodes: Annotated[int, EPISODES] = 1
    zero_shot_every: Annotated[int, whole()] = 300_000

    def __post_init__(self) -> None:
        if self.n_steps * self.num_envs < 2:
            raise UserError(
                "algorithm.n_steps=1 with algorithm.num_envs=1 gives one sample for an update; PPO needs two "
                "or more, since it normalises advantages"
            )

    def make_rows(
        self,
        bodies: TaskSet,
        aligned: bool,
        threads: int = 0,
        simulation: str = "cpu",
        device: torch.device = CPU,
    ) -> TrainingRows:
        """The training rows: all seen bodies, episode clocks staggered.

        Args:
            bodies: what is trained on.
            aligned: whether slots have fixed meanings.
            threads: of a simulation on the CPU; 0: one for each core.
            simulation: ``cpu``, or what simulates on the learner's device.
            device: of the learner.

        Raises:
            UserError: there are more bodies than rows.
        """
        if self.num_envs < len(bodies.seen):
            raise UserError(
                f"algorithm.num_envs is {self.num_envs}, but {len(bodies.seen)} bodies are trained on; "
                f"each needs at least one"
            )
        options: dict[str, Any] = {"aligned": aligned, "stagger": True}
        if simulation == "cpu":
            env = bodies.make_vec(bodies.seen, self.num_envs, threads=threads, **options)
            return HostRows(env, device)
        return DeviceRows(bodies.make_tensor_env(bodies.seen, self.num_envs, device=device, **options))

    def _schedule(self, continued: bool) -> _Schedule:
        rate = self.learning_rate
        if rate == "auto":
            rate = CONTINUED_RATE if continued else NEW_RATE
        rises_for = RISING_UPDATES * self.n_steps * self.num_envs * continued
        return _Schedule(float(rate), self.learning_rate_schedule == "linear", self.total_steps, rises_for)

    def make_learner(
        self,
        policy: Policy,
        rows: TrainingRows,
        device: torch.device,
        seed: int,
        env_seed: int,
        precision: str = "float32",
        continued: bool = False,
    ) -> TokenPPO:
        """SB3's PPO on these rows.

        Args:
            policy: trained in place.
            rows: of :meth:`make_rows`.
            device: where the learner computes.
            seed: of the learner's and the exploration's random streams.
            env_seed: of the rows' first starts.
            precision: what the policy computes in, see `somite.agents.device`.
            continued: whether the policy begins with what another run has learnt.

        Raises:
            UserError: the rows were made for another device, or a rollout does not fit into its memory.
        """
        if rows.device.type != device.type:
            raise UserError(f"the learner is on {device}, but the rows were made for one on {rows.device}")
        rows.seed(env_seed)
        buffer: dict[str, Any] = {"rollout_buffer_class": RolloutBuffer}
        if policy.initial_memory(1, 1):
            buffer["rollout_buffer_class"] = SequenceRolloutBuffer
            buffer["rollout_buffer_kwargs"] = {"length": self.sequence_length}
        learner = TokenPPO(
            SB3TokenPolicy,
            rows,
            scales_rewards=self.normalize_returns,
            learning_rate=self._schedule(continued),
            n_steps=self.n_steps,
            batch_size=min(self.batch_size, self.n_steps * self.num_envs),
            n_epochs=self.n_epochs,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            clip_range=self.clip_range,
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
            max_grad_norm=self.max_grad_norm,
            target_kl=self.target_kl,
            policy_kwargs={"policy": policy, "precision": precision},
            device=device,
            **buffer,
        )
        np.random.seed(seed % 2**32)  # SB3 draws its minibatches from NumPy's global stream
        torch.manual_seed(seed)
        return learner


@dataclass(frozen=True)
class _Schedule:
    """The learning rate for the share of the run's steps that remains, which is what SB3 passes.

    Args:
        rate: the largest.
        falls: whether it falls linearly to zero.
        total_steps: of the run.
        rises_for: environment steps in which it rises linearly from zero.
    """

    rate: float
    falls: bool
    total_steps: int
    rises_for: int

    def __call__(self, remaining: float) -> float:
        # Whole rollouts pass the end of the run, where the remaining share is below zero.
        rate = self.rate * max(remaining, 0.0) if self.falls else self.rate
        done = (1 - remaining) * self.total_steps
        return rate * min(1.0, done / self.rises_for) if self.rises_for else rate
