"""Cloning: a student of any senses learns to act as a teacher that sees the task undisturbed.

Behaviour cloning on the teacher's states at first, then on the student's own with the teacher's action as
label (DAgger: Ross, Gordon, Bagnell, "A reduction of imitation learning and structured prediction to
no-regret online learning", AISTATS 2011), all rows at once. Only the newest rollout is learnt from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor
from torch.nn import functional

from ...envs.errors import UserError
from ...envs.numbers import NULL, POSITIVE, SHARE, TEXT, checked, real, whole
from ...envs.sensors import SensorVectorEnv
from ...envs.snapshots import put, take
from ..agent import Agent
from ..device import out_of_memory
from ..policies.base import Policy
from ..rollout.sequences import SequenceRolloutBuffer
from .finite import GradientGuard
from .ppo import EPISODES, EPOCHS, RATE, ROWS, STEPS
from .sb3_policy import SB3TokenPolicy
from .sharding import Shards, threads_of_an_operation

_KEPT = ("teacher", "_rng", "_starts", "_returns", "_lengths", "returns", "lengths", "diverged")


@checked("algorithm")
@dataclass
class Clone:
    """Settings of cloning; the keys of ``conf/algorithm/clone.yaml``.

    Args:
        teacher: a run folder, its name in ``runs/``, or a ``policy/`` folder.
        total_steps: environment steps, summed over all rows.
        teacher_steps: of these, the first, in which the teacher acts; then the student does.
        handover_steps: the next, over which the share of rows in which the teacher still acts falls to none,
            each row's actor being drawn for a rollout: so the teacher brings back what the student has led
            astray, where its own states would soon tell it nothing.
        num_envs: rows.
        n_steps: steps of each row between updates.
        episode_steps: the student's episodes end after so many steps, so that it meets more beginnings,
            where it has to find out what its sensors are; None: as many as the task has.
        batch_size: samples of a minibatch.
        n_epochs: passes over a rollout.
        sequence_length: steps that a student with memory is trained through at once; it divides n_steps.
        learning_rate: of Adam; it falls linearly to zero.
        noise: deviation of the noise on the student's actions, nominal units; so that it learns to recover.
        max_grad_norm: gradients are shortened to it.
        max_diverged: share of a rollout's steps whose simulation may diverge; then the run stops.
        checkpoint_every: environment steps between checkpoints. keep_checkpoints: how many stay.
        validate_every: environment steps between validations, which choose ``best/``; 0 for never.
        validation_episodes: of each validation.
        zero_shot_every: environment steps between runs of the suite of ``conf/zero_shot.yaml``, which
            chooses nothing; 0 for never. A shorter run has none, a longer one another at its end.

    Raises:
        UserError: a number that cannot be meant, or no teacher.
    """

    teacher: Annotated[str | None, TEXT | NULL] = None
    total_steps: Annotated[int, whole(1)] = 8_000_000
    teacher_steps: Annotated[int, whole()] = 500_000
    handover_steps: Annotated[int, whole()] = 0
    num_envs: Annotated[int, ROWS] = 512
    n_steps: Annotated[int, STEPS] = 32
    episode_steps: Annotated[int | None, whole(1) | NULL] = None
    batch_size: Annotated[int, whole(1)] = 2048
    n_epochs: Annotated[int, EPOCHS] = 2
    sequence_length: Annotated[int, STEPS] = 16
    learning_rate: Annotated[float, RATE] = 1e-3
    noise: Annotated[float, real(0, 10)] = 0.0
    max_grad_norm: Annotated[float, POSITIVE] = 1.0
    max_diverged: Annotated[float, SHARE] = 0.02
    checkpoint_every: Annotated[int, whole(1)] = 1_000_000
    keep_checkpoints: Annotated[int, whole()] = 2
    validate_every: Annotated[int, whole()] = 0
    validation_episodes: Annotated[int, EPISODES] = 100
    zero_shot_every: Annotated[int, whole()] = 800_000

    def __post_init__(self) -> None:
        if not self.teacher:
            raise UserError("whom to clone? say algorithm.teacher=<a run of the same task>")


class CloneLearner:
    """Collects what the student meets and what the teacher would do, and regresses it.

    Args:
        settings: of the algorithm.
        policy: the student, trained in place.
        env: rows in which the student acts and the teacher looks on (``beside``).
        teacher: acts deterministically.
        device: of the student.
        env_seed: of the rows' first starts.
        learner_seed: of minibatches and noise.
        precision: that the student computes in, see `somite.agents.device`.

    Attributes:
        num_timesteps: environment steps so far.
        returns: of the last whole episodes, with ``lengths``.
        diverged: rows that ended for readings, rewards or states that were not finite, so far.
    """

    def __init__(
        self,
        settings: Clone,
        policy: Policy,
        env: SensorVectorEnv,
        teacher: Agent,
        device: torch.device,
        env_seed: int,
        learner_seed: int,
        precision: str = "float32",
    ) -> None:
        self.settings, self.env, self.teacher, self.device = settings, env, teacher, device
        self.student = SB3TokenPolicy(
            env.single_observation_space,
            env.single_action_space,
            lambda _: settings.learning_rate,
            policy=policy,
            precision=precision,
        ).to(device)
        if torch.get_num_threads() > 1 and device.type == "cpu" and not self.student.remembers:
            self.student.shards = Shards(torch.get_num_threads())
        self.optimizer = self.student.optimizer
        self.num_timesteps = 0
        labels = spaces.Box(-1.0, 1.0, (env.n_actions,), np.float32)
        kind = SequenceRolloutBuffer if self.student.remembers else DictRolloutBuffer
        more = {"length": settings.sequence_length} if self.student.remembers else {}
        self.buffer = kind(
            settings.n_steps, env.single_observation_space, labels, device, n_envs=env.num_envs, **more
        )
        self.buffer.policy = self.student
        self.seconds = {"rollout": 0.0, "update": 0.0}
        self._guard = GradientGuard(policy, self.optimizer)
        self._rng = np.random.default_rng(learner_seed)
        np.random.seed(learner_seed % 2**32)  # SB3's buffer draws minibatches from the global stream
        self._observation, _ = env.reset(seed=env_seed)
        self._starts = np.ones(env.num_envs, np.float32)
        self._returns, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
        self.diverged = 0
        self.returns: list[float] = []
        self.lengths: list[int] = []

    def snapshot(self) -> dict[str, Any]:
        """What goes on between updates: rows, episodes, memories, noise."""
        memory = {key: value.detach().clone() for key, value in self.student.memory.items()}
        return {"env": self.env.snapshot(), **take(self, _KEPT), "memory": memory}

    def restore(self, taken: Mapping[str, Any]) -> np.ndarray:
        """Inverse of `snapshot`.

        Returns:
            (B,) bool, rows that could not be brought back and begin new episodes.

        Raises:
            Misfit: of other rows; call `begin_episodes` then.
        """
        self._observation, anew = self.env.restore(taken["env"]), self.env.begun_anew
        put(self, _KEPT, {name: taken[name] for name in _KEPT})
        self.student.memory = {key: value.to(self.device) for key, value in taken["memory"].items()}
        if anew.any():
            self._starts[anew], self._returns[anew], self._lengths[anew] = 1, 0, 0
            self.student.forget(anew)
            self.teacher.reset(anew)
        return anew

    def begin_episodes(self, seed: int) -> None:
        """Start all rows anew."""
        self._observation, _ = self.env.reset(seed=seed)
        self._starts[:] = 1
        self._returns[:], self._lengths[:] = 0, 0
        self.student.memory = {}
        self.teacher.reset()

    def iterate(self) -> float:
        """One rollout and the update on it; returns the mean loss."""
        start = time.perf_counter()
        # Small networks: threads take parts of the batch, not of each operation.
        with threads_of_an_operation(1):
            self._collect()
            middle = time.perf_counter()
            with out_of_memory("an update", self.device, "algorithm.batch_size", self.settings.batch_size):
                loss = self._update()
        self.seconds["rollout"] += middle - start
        self.seconds["update"] += time.perf_counter() - middle
        return loss

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return self.settings.learning_rate * max(0.0, 1 - self.num_timesteps / self.settings.total_steps)

    @property
    def teacher_share(self) -> float:
        """Of the rows of the next rollout, how many the teacher acts in."""
        settings = self.settings
        since = self.num_timesteps - settings.teacher_steps
        if since < 0:
            return 1.0
        return max(0.0, 1 - since / settings.handover_steps) if settings.handover_steps else 0.0

    def _collect(self) -> None:
        env, buffer = self.env, self.buffer
        buffer.reset()
        nothing = np.zeros(env.num_envs, np.float32)
        teaching = self._rng.random(env.num_envs) < self.teacher_share  # teaching: (B,)
        for _ in range(self.settings.n_steps):
            tensors = obs_as_tensor(self._observation, self.device)
            with torch.no_grad():
                outputs = self.student.outputs(tensors)
            taught = self.teacher.act(env.beside_observation())  # (B, A), or choices (B,) or (B, K)
            labels = env.actions.one_hot(taught) if env.discrete else taught
            zeros = torch.zeros(env.num_envs)
            own = self._own(outputs)
            env.step_begin(np.where(teaching.reshape(-1, *[1] * (taught.ndim - 1)), taught, own))
            # Large where these are pictures: copied while worker processes simulate.
            buffer.add(self._observation, labels, nothing, self._starts, zeros, zeros)
            self._finish_step()

    def _own(self, outputs: Tensor) -> np.ndarray:
        """The student's actions."""
        if self.env.discrete:
            return self.student.token_policy.choose(outputs).cpu().numpy()
        actions = outputs.cpu().numpy()
        if self.settings.noise:
            actions = actions + self.settings.noise * self._rng.standard_normal(actions.shape)
        return actions

    def _finish_step(self) -> None:
        self._observation, rewards, terminated, truncated, info = self.env.step_finish()
        self.diverged += int(info["diverged"].sum())
        ended = terminated | truncated
        self._starts = ended.astype(np.float32)
        self._returns += rewards
        self._lengths += 1
        self.num_timesteps += len(ended)
        if ended.any():
            whole = np.flatnonzero(info["episode_is_whole"])
            self.returns = [*self.returns, *self._returns[whole].tolist()][-200:]
            self.lengths = [*self.lengths, *self._lengths[whole].tolist()][-200:]
            self._returns[ended], self._lengths[ended] = 0.0, 0
            self.student.forget(ended)
            self.teacher.reset(ended)

    def _update(self) -> float:
        losses: list[float] = []
        self._guard.step = self.num_timesteps
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        for _ in range(self.settings.n_epochs):
            for batch in self.buffer.get(self.settings.batch_size):
                outputs = self.student.outputs_of(batch.observations)
                loss = self._loss(outputs, batch.actions)
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.settings.max_grad_norm)
                self.optimizer.step()
                losses.append(loss.item())
        mean = float(np.mean(losses))
        self._guard.check_parameters()
        tensors = {key: torch.as_tensor(v, device=self.device) for key, v in self.buffer.observations.items()}
        self.student.token_policy.normalizer.update(tensors)
        return mean

    def rollout(self) -> dict[str, np.ndarray]:
        """What was collected last, by name."""
        observed = {f"observation/{key}": value for key, value in self.buffer.observations.items()}
        return {**observed, "labels": self.buffer.actions}

    def _loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        discrete = self.env.discrete
        if discrete:
            counts = [outputs.shape[-1]] if discrete is True else discrete
            parts = zip(outputs.split(counts, -1), labels.split(counts, -1), strict=True)
            return sum(functional.cross_entropy(*part) for part in parts)
        return functional.mse_loss(outputs, labels)
