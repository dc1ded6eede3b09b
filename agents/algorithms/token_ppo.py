"""Proximal policy optimisation: the update is Stable-Baselines3's, rollouts are collected in torch.

They are collected in the same way on every device; of rows that a device simulates nothing goes through the
host but the records of their episodes, once a rollout.
"""

from __future__ import annotations

import time
from typing import Any

import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from ..rollout.buffer import RolloutBuffer
from ..rollout.cut_episodes import cut_episodes
from ..rollout.device_clock import DeviceClock
from ..rollout.episode_records import Episodes
from ..rollout.reward_scaling import RewardScaling
from ..rollout.sequences import SequenceRolloutBuffer
from ..rollout.training_rows import TrainingRows
from .finite import GradientGuard
from .sb3_policy import SB3TokenPolicy
from .sharding import Shards, threads_of_an_operation

NORMALIZER_CHUNK = 8192  # samples; bounds the memory that updating the statistics takes


class TokenPPO(stable_baselines3.PPO):
    """SB3's PPO whose rollouts stay on the learner's device.

    The policy's normaliser is updated once after each learner update.

    Args:
        policy: the class of the actor-critic.
        rows: trained on.
        scales_rewards: whether rewards are divided by each body's deviation of the discounted return.
        settings: as SB3's.

    Attributes:
        env: the rows.
        scaling: of the rewards; None: they are learnt from as they are.
        finished: whole episodes that have ended in the last rollout.
        seconds: where the time went: ``env`` (simulation, observation, reward), ``rollout`` (all of
            collecting, ``env`` included) and ``update``.
        is_collecting: whether a rollout has begun that has not ended.
    """

    env: TrainingRows
    finished: Episodes

    def __init__(
        self, policy: type[SB3TokenPolicy], rows: TrainingRows, *, scales_rewards: bool, **settings: Any
    ) -> None:
        # SB3 would ask for a VecEnv of its own kind and wrap it.
        super().__init__(policy, None, **settings, _init_setup_model=False)
        self.env, self.n_envs = rows, rows.num_envs
        self.observation_space, self.action_space = rows.observation_space, rows.action_space
        self._setup_model()
        where = rows.simulated_on
        self.scaling = RewardScaling(rows.body_of_row, self.gamma, where) if scales_rewards else None
        self.cuts = cut_episodes(rows, self.n_steps)
        self.seconds = {"env": 0.0, "rollout": 0.0, "update": 0.0}
        self.is_collecting = False
        self._clock = DeviceClock(self.device)
        self._bounds = None
        if isinstance(self.action_space, spaces.Box):
            low, high = self.action_space.low, self.action_space.high
            self._bounds = [torch.from_numpy(bound).to(self.device) for bound in (low, high)]
        self.guard = GradientGuard(self.policy.token_policy, self.policy.optimizer)
        if isinstance(self.rollout_buffer, SequenceRolloutBuffer):
            self.rollout_buffer.policy = self.policy

    def _setup_learn(
        self, total_timesteps: int, callback: Any = None, reset_num_timesteps: bool = True, *args: Any
    ) -> Any:
        begins = reset_num_timesteps or self._last_obs is None
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args)
        if begins:  # SB3 has reset all rows
            self.begin_episodes()
        return result

    def begin_episodes(self) -> None:
        """All rows start new episodes."""
        self.policy.memory = {}
        self._last_episode_starts = torch.ones(self.n_envs, dtype=torch.bool, device=self.env.simulated_on)
        if self.scaling:
            self.scaling.begin_episodes()

    def collect_rollouts(
        self, env: TrainingRows, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """As SB3's, timed, and on one thread: a step's few rows are too little work to share."""
        start, self.is_collecting = time.perf_counter(), True
        try:
            with threads_of_an_operation(1):
                self.is_collecting = not self._collect(callback, n_rollout_steps)
        finally:
            self.seconds["rollout"] += time.perf_counter() - start
        return not self.is_collecting

    def _collect(self, callback: BaseCallback, n_steps: int) -> bool:
        """Fill the buffer; False: the callback has stopped it. Nothing waits for a device that simulates."""
        self.policy.set_training_mode(False)
        self.rollout_buffer.reset()
        self.cuts.clear()
        callback.on_rollout_start()
        for step in range(n_steps):
            with torch.no_grad():
                self._step(step)
            self.num_timesteps += self.n_envs
            if not callback.on_step():
                return False
        with torch.no_grad():
            self._finish()
        callback.on_rollout_end()
        return True

    def _step(self, time_of_step: int) -> None:
        """All rows act and advance."""
        buffer, policy = self.rollout_buffer, self.policy
        actions, values, log_probs = policy(self._last_obs)
        met = (self._last_obs, actions, None, self._last_episode_starts, values, log_probs)
        self._clock.start()
        if self.env.overlaps:  # what was met is kept while the rows advance
            self.env.begin(self._bounded(actions))
            buffer.add(*met)
            step = self.env.finish()
        else:  # before they do: they may write their next observation into the same memory
            buffer.add(*met)
            step = self.env.step(self._bounded(actions))
        rewards = self.scaling(step.rewards, step.ended) if self.scaling else step.rewards
        self._clock.stop()
        buffer.add_rewards(rewards)
        self.cuts.add(time_of_step, step, policy.memory)
        if not self.env.knows_ends or step.ended.any():
            policy.forget(step.ended)
        self._last_obs, self._last_episode_starts = step.observation, step.ended

    def _bounded(self, actions: Tensor) -> Tensor:
        return torch.clamp(actions, *self._bounds) if self._bounds else actions

    def _finish(self) -> None:
        """Bootstrap, advantages, and what the host has not asked for until now."""
        buffer = self.rollout_buffer
        self.cuts.bootstrap(buffer.rewards, self.gamma, self.policy.predict_values)
        last_values = self.policy.predict_values(self._last_obs)
        buffer.compute_returns_and_advantage(last_values, self._last_episode_starts)
        self.env.check()
        self.finished = self.env.records.read()
        kept = self.ep_info_buffer
        returns, lengths = self.finished.returns, self.finished.lengths
        newest = zip(returns[-kept.maxlen :].tolist(), lengths[-kept.maxlen :].tolist(), strict=True)
        kept.extend({"r": total, "l": length} for total, length in newest)
        self.seconds["env"] += self._clock.read()

    def rollout(self) -> dict[str, Tensor]:
        """What was collected last, by name, each (samples, ...)."""
        buffer = self.rollout_buffer
        named = {"actions": buffer.actions, "rewards": buffer.rewards, "returns": buffer.targets}
        named |= {"advantages": buffer.advantages, "values": buffer.estimates, "log_probs": buffer.log_probs}
        named |= {f"observation/{key}": value for key, value in buffer.observations.items()}
        return {name: value.flatten(0, 1) for name, value in named.items()}

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
        # Raw observations of this rollout.
        flat = {key: value.flatten(0, 1) for key, value in self.rollout_buffer.observations.items()}
        for first in range(0, len(flat["mask"]), NORMALIZER_CHUNK):
            chunk = {key: value[first : first + NORMALIZER_CHUNK] for key, value in flat.items()}
            self.policy.token_policy.normalizer.update(chunk)

    def resume_learning(self, total_steps: int, callback: BaseCallback) -> None:
        """Learn until ``total_steps`` in all, however many have been made before."""
        # SB3 takes the number of further steps when it is not to start counting anew.
        further = total_steps - self.num_timesteps
        self.learn(further, callback=callback, reset_num_timesteps=False, log_interval=1)
