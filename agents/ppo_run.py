"""A run of proximal policy optimisation."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from .algorithms.ppo import PPO, TokenPPO
from .algorithms.reward_scaling import BodyRewardScaling
from .algorithms.run_callback import RunCallback
from .composition import build_policy, policy_class
from .run import Run

log = logging.getLogger(__name__)


class PPORun(Run):
    """See :class:`~somite.agents.run.Run`."""

    algorithm: PPO
    name = "ppo"

    def __init__(self, config: DictConfig, folder: Path, device: torch.device) -> None:
        super().__init__(config, folder, device)
        aligned = policy_class(config.agent, self.bodies.kind, by_gradient=True).aligned_slots
        self.rows = self.algorithm.make_rows(self.bodies, aligned)
        self.policy = build_policy(config.agent, self.rows.env).to(device)
        self.start_policy()
        self.learner: TokenPPO = self.algorithm.make_learner(
            self.policy, self.rows, device, self.learner_seed, self.env_seed
        )
        if self.state:
            self._restore(self.state)
        self.learner.set_logger(self.make_logger())

    @property
    def steps(self) -> int:
        """Environment steps made so far."""
        return self.learner.num_timesteps

    def learn(self) -> None:  # noqa: D102
        algorithm, total = self.algorithm, self.algorithm.total_steps
        self.check_budget("total_steps", self.steps)
        callback = RunCallback(
            self.rows.env.body_names,
            total,
            self.save,
            self.validate if algorithm.validation_episodes else None,
            algorithm.checkpoint_every,
            algorithm.validate_every,
            self.zero_shot if self.dashboard.suite is not None else None,
            algorithm.zero_shot_every,
        )
        seen, unseen = ", ".join(self.bodies.seen), ", ".join(self.bodies.unseen) or "none"
        log.info("training on %s; held out: %s", seen, unseen)
        log.info("run folder: %s", self.folder)
        try:
            self.learner.resume_learning(total, callback)
        finally:
            callback.close()
        self.save()
        self.learner.logger.dump(self.steps)
        if self.steps >= total:
            self.dashboard.finish()
        self.learner.logger.close()
        self.rows.close()
        if callback.stopped_by is not None and self.steps < total:
            self.leave(callback.stopped_by)
        log.info("done; evaluate with: somite-evaluate run=%s", self.folder)

    def training_state(self) -> dict[str, Any]:  # noqa: D102
        learner = self.learner
        return {
            "optimizer": learner.policy.optimizer.state_dict(),
            "num_timesteps": learner.num_timesteps,
            "n_updates": learner._n_updates,
            "best_score": float(self.best_score),
            "reward_scaling": learner.env.state() if isinstance(learner.env, BodyRewardScaling) else None,
            "algorithm": asdict(self.algorithm),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.load_saved_policy()
        self.learner.policy.optimizer.load_state_dict(state["optimizer"])
        self.learner.num_timesteps = state["num_timesteps"]
        self.learner._n_updates = state["n_updates"]
        self.best_score = state["best_score"]
        if state["reward_scaling"] and isinstance(self.learner.env, BodyRewardScaling):
            self.learner.env.restore(state["reward_scaling"])
        self.say_going_on()
