"""Proximal policy optimisation (Schulman et al. 2017), by Stable-Baselines3, for token policies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor

from ...envs.errors import UserError, nearest
from ...envs.numbers import check_share, whole_number
from ...envs.sb3 import SB3VecEnv
from ...envs.task_set import TaskSet
from ..policies.base import Policy
from .finite import GradientGuard
from .reward_scaling import BodyRewardScaling
from .sb3_policy import SB3TokenPolicy
from .sequences import SequenceRolloutBuffer
from .sharding import Shards, threads_of_an_operation

NORMALIZER_CHUNK = 8192  # samples; bounds the memory that updating the statistics takes


@dataclass
class PPO:
    """Settings of PPO; the keys of ``conf/algorithm/ppo.yaml``.

    Args:
        total_steps: environment steps, summed over all rows.
        num_envs: rows, spread evenly over the training bodies.
        n_steps: steps of each row between updates.
        batch_size: samples of a minibatch.
        n_epochs: passes over a rollout.
        learning_rate: of Adam. learning_rate_schedule: ``linear`` (to zero at total_steps) or ``constant``.
        sequence_length: steps that a policy with memory is trained through at once; it divides n_steps.
        gamma, gae_lambda, clip_range, ent_coef, vf_coef, max_grad_norm, target_kl: as in SB3.
        normalize_returns: divide rewards by each body's running deviation of the discounted return.
        max_diverged: share of a body's steps in a rollout whose simulation may diverge; then the run stops.
        precision: ``float32``, or ``bf16`` (autocast; faster where the processor has it).
        checkpoint_every: environment steps between checkpoints. keep_checkpoints: how many stay.
        validate_every: environment steps between validations on the training bodies, which choose
            ``best/``; 0 for never. validation_episodes: of each body.
        zero_shot_every: environment steps between runs of the suite of ``conf/zero_shot.yaml``, which
            chooses nothing; 0 for never. A shorter run has none, a longer one another at its end.

    Raises:
        UserError: a number or a name that cannot be meant.
    """

    total_steps: float = 3e6
    num_envs: int = 192
    n_steps: int = 32
    batch_size: int = 2048
    n_epochs: int = 4
    sequence_length: int = 16
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "linear"
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    target_kl: float | None = None
    normalize_returns: bool = True
    max_diverged: float = 0.02
    precision: str = "float32"
    checkpoint_every: float = 5e5
    keep_checkpoints: int = 2
    validate_every: float = 5e5
    validation_episodes: int = 1
    zero_shot_every: float = 3e5

    def __post_init__(self) -> None:
        counts = ("total_steps", "num_envs", "n_steps", "batch_size", "n_epochs", "checkpoint_every")
        for name in (*counts, "sequence_length"):
            setattr(self, name, whole_number(getattr(self, name), f"algorithm.{name}", minimum=1))
        for name in ("validate_every", "validation_episodes", "keep_checkpoints", "zero_shot_every"):
            setattr(self, name, whole_number(getattr(self, name), f"algorithm.{name}"))
        check_share(self.max_diverged, "algorithm.max_diverged")
        for name, choices in (
            ("learning_rate_schedule", ("linear", "constant")),
            ("precision", ("float32", "bf16")),
        ):
            value = str(getattr(self, name))
            if value not in choices:
                raise UserError(f"algorithm.{name} cannot be {value!r}; {nearest(value, choices)}")

    def make_rows(self, bodies: TaskSet, aligned: bool, threads: int = 0) -> SB3VecEnv:
        """The training rows: all seen bodies, episode clocks staggered. Raises UserError."""
        if self.num_envs < len(bodies.seen):
            raise UserError(
                f"algorithm.num_envs is {self.num_envs}, but {len(bodies.seen)} bodies are trained on; "
                f"each needs at least one"
            )
        return SB3VecEnv(
            bodies.make_vec(bodies.seen, self.num_envs, aligned=aligned, stagger=True, threads=threads)
        )

    def make_learner(
        self, policy: Policy, rows: SB3VecEnv, device: torch.device, seed: int, env_seed: int
    ) -> TokenPPO:
        """SB3's PPO on these rows.

        Args:
            policy: trained in place.
            rows: of :meth:`make_rows`.
            device: where the learner computes.
            seed: of the learner's and the exploration's random streams.
            env_seed: of the rows' first starts.
        """
        rows.seed(env_seed)
        venv = BodyRewardScaling(rows, self.gamma) if self.normalize_returns else rows
        if self.learning_rate_schedule == "linear":
            # SB3 passes the share of the steps that remains.
            rate: Any = _Linear(self.learning_rate)
        else:
            rate = self.learning_rate
        remembers: dict[str, Any] = {}
        if policy.initial_memory(1, 1):
            remembers["rollout_buffer_class"] = SequenceRolloutBuffer
            remembers["rollout_buffer_kwargs"] = {"length": self.sequence_length}
        learner = TokenPPO(
            SB3TokenPolicy,
            venv,
            learning_rate=rate,
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
            policy_kwargs={"policy": policy, "precision": self.precision},
            device=device,
            **remembers,
        )
        np.random.seed(seed % 2**32)  # SB3 draws its minibatches from NumPy's global stream
        torch.manual_seed(seed)
        return learner


@dataclass(frozen=True)
class _Linear:
    """A schedule from ``start`` to zero over the share of the run that remains."""

    start: float

    def __call__(self, remaining: float) -> float:
        # Whole rollouts pass the end of the run, where the remaining share is below zero.
        return self.start * max(remaining, 0.0)


class TokenPPO(stable_baselines3.PPO):
    """SB3's PPO with the policy's normaliser updated once after each learner update.

    ``seconds`` holds where the time went: ``env`` (simulation, observation, reward), ``rollout`` (all of
    collecting, ``env`` included) and ``update``. ``is_collecting`` tells whether a rollout has begun that has
    not ended.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds = {"env": 0.0, "rollout": 0.0, "update": 0.0}
        self.is_collecting = False
        self._watch_env_steps()
        self.guard = GradientGuard(self.policy.token_policy, self.policy.optimizer)
        if isinstance(self.rollout_buffer, SequenceRolloutBuffer):
            self.rollout_buffer.policy = self.policy

    def _watch_env_steps(self) -> None:
        step = self.env.step

        def watched_step(actions: np.ndarray) -> Any:
            start = time.perf_counter()
            observation, rewards, dones, infos = step(actions)
            self.seconds["env"] += time.perf_counter() - start
            self._bootstrap(rewards, infos)
            self.policy.forget(dones)
            return observation, rewards, dones, infos

        self.env.step = watched_step  # type: ignore[method-assign]

    def _bootstrap(self, rewards: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Add the value of what an episode that was cut would have gone on to.

        SB3 asks for these values one row at a time and without the row's memory; here it finds nothing
        left to add.
        """
        rows = [row for row, info in enumerate(infos) if info.get("TimeLimit.truncated")]
        if not rows:
            return
        last = [infos[row]["terminal_observation"] for row in rows]
        stacked = {key: np.stack([observation[key] for observation in last]) for key in last[0]}
        with torch.no_grad():
            values = self.policy.predict_values(obs_as_tensor(stacked, self.device), np.array(rows))
        rewards[rows] += self.gamma * values.flatten().cpu().numpy()
        for row in rows:
            infos[row]["TimeLimit.truncated"] = False

    def _setup_learn(
        self, total_timesteps: int, callback: Any = None, reset_num_timesteps: bool = True, *args: Any
    ) -> Any:
        if reset_num_timesteps:  # all rows start new episodes
            self.policy.memory = {}
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """As SB3's, timed, and on one thread: a step's few rows are too little work to share."""
        start, self.is_collecting = time.perf_counter(), True
        try:
            with threads_of_an_operation(1):
                self.is_collecting = not super().collect_rollouts(*args, **kwargs)
        finally:
            self.seconds["rollout"] += time.perf_counter() - start
        return not self.is_collecting

    def rollout(self) -> dict[str, np.ndarray]:
        """What was collected last, by name."""
        buffer = self.rollout_buffer
        names = ("actions", "rewards", "returns", "advantages", "values", "log_probs")
        observed = {f"observation/{key}": value for key, value in buffer.observations.items()}
        return {**observed, **{name: getattr(buffer, name) for name in names}}

    def train(self) -> None:
        """One learner update, then the normaliser's.

        Raises:
            NotFinite: a gradient, along which nothing is stepped then, or a parameter after the update.
        """
        self.guard.step = self.num_timesteps
        start, threads = time.perf_counter(), torch.get_num_threads()
        if threads > 1 and self.device.type == "cpu" and not self.policy.token_policy.aligned_slots:
            # Threads with parts of the batch instead of threads within every operation.
            if self.policy.shards is None or self.policy.shards.count != threads:
                self.policy.shards = Shards(threads)
            threads = 1
        with threads_of_an_operation(threads):
            super().train()
        self.guard.check_parameters()
        self._update_normalizer()
        self.seconds["update"] += time.perf_counter() - start

    def _update_normalizer(self) -> None:
        # Raw observations of this rollout, which train() has left as (samples, ...).
        observations = self.rollout_buffer.observations
        size = len(observations["mask"])
        for first in range(0, size, NORMALIZER_CHUNK):
            chunk = {
                key: torch.as_tensor(value[first : first + NORMALIZER_CHUNK], device=self.device)
                for key, value in observations.items()
            }
            self.policy.token_policy.normalizer.update(chunk)

    def resume_learning(self, total_steps: int, callback: BaseCallback) -> None:
        """Learn until ``total_steps`` in all, however many have been made before."""
        # SB3 takes the number of further steps when it is not to start counting anew.
        further = total_steps - self.num_timesteps
        self.learn(further, callback=callback, reset_num_timesteps=False, log_interval=1)
