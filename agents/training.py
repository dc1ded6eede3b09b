"""A training run from its configuration: build, learn, leave a run folder behind."""

from __future__ import annotations

import logging
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.logger import Logger

from ..envs.errors import UserError
from ..envs.locomotion import BodySet
from .acting import Agent
from .algorithms.metrics_csv import MetricsCsv
from .algorithms.ppo import PPO, TokenPPO
from .algorithms.reward_scaling import BodyRewardScaling
from .algorithms.run_callback import RunCallback
from .algorithms.tensorboard import TensorBoard
from .checkpoint import load_policy, save_policy
from .device import resolve_device, set_threads
from .evaluation import run_episodes
from .policies.base import Policy
from .run_folder import keep_newest, last_checkpoint, list_checkpoints, new_checkpoint, publish

log = logging.getLogger(__name__)

TRAINING_STATE = "state.pt"
VALIDATION_SEED = 7_000_001
"""Starts of the validation on training bodies; no evaluation uses them (its seeds are small)."""


def train(config: DictConfig, folder: Path) -> None:
    """Learn what ``config`` describes in ``folder``; go on from its last checkpoint if it has one.

    Raises:
        UserError: a configuration that cannot be meant.
    """
    device = resolve_device(config.device)
    set_threads(config.threads)
    run = TrainingRun(config, folder, device)
    run.learn()


class TrainingRun:
    """A run's parts, put together.

    Args:
        config: as composed from ``conf/train.yaml``.
        folder: of the run.
        device: of the learner.
    """

    def __init__(self, config: DictConfig, folder: Path, device: torch.device) -> None:
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)
        resuming = bool(list_checkpoints(folder))
        state = _load_state(last_checkpoint(folder)) if resuming else None
        steps = state["num_timesteps"] if state else 0
        # A resumed run draws new streams: repeating those of its start would repeat their episodes.
        seeds = np.random.SeedSequence([int(config.seed), steps]).generate_state(3)
        learner_seed, env_seed, init_seed = (int(seed) for seed in seeds)

        self.bodies: BodySet = hydra.utils.instantiate(config.env, _convert_="all")
        self.algorithm: PPO = hydra.utils.instantiate(config.algorithm, _convert_="all")
        torch.manual_seed(init_seed)
        random.seed(init_seed)
        aligned = hydra.utils.get_class(config.agent._target_).aligned_slots
        self.rows = self.algorithm.make_rows(self.bodies, aligned)
        self.policy = self._make_policy(aligned).to(device)
        self.learner: TokenPPO = self.algorithm.make_learner(
            self.policy, self.rows, device, learner_seed, env_seed
        )
        self.best_score = -np.inf
        if state:
            self._restore(state)
        board = TensorBoard(folder, last_step=steps)
        board.writer.add_text("config", f"```yaml\n{OmegaConf.to_yaml(config)}```", global_step=steps)
        metrics = MetricsCsv(folder / "metrics.csv", last_step=steps)
        self.learner.set_logger(Logger(str(folder), [board, metrics]))
        OmegaConf.save(config, folder / "config.yaml")

    def _make_policy(self, aligned: bool) -> Policy:
        sizes = {"n_tokens": self.rows.env.n_limbs, "n_joints": self.rows.env.n_joints} if aligned else {}
        # Hydra would turn the spec, a dataclass, into a configuration node.
        build = hydra.utils.instantiate(self.config.agent, _partial_=True, _convert_="all")
        return build(spec=self.rows.env.spec_of_tokens, **sizes)

    def learn(self) -> None:
        """Learn until ``algorithm.total_steps``, or until told to stop.

        Raises:
            SystemExit: stopped by a signal, with 128 plus its number; everything has been saved.
            UserError: the run has made all its steps before.
        """
        algorithm, total = self.algorithm, self.algorithm.total_steps
        if self.learner.num_timesteps >= total:
            raise UserError(
                f"{self.folder} has made {self.learner.num_timesteps:,} of {total:,} steps; to go on, raise "
                f"algorithm.total_steps"
            )
        callback = RunCallback(
            self.rows.env.body_names,
            total,
            self.save,
            self.validate if algorithm.validation_episodes else None,
            algorithm.checkpoint_every,
            algorithm.validate_every,
        )
        seen, unseen = ", ".join(self.bodies.seen), ", ".join(self.bodies.unseen) or "none"
        log.info("training on %s; held out: %s", seen, unseen)
        log.info("run folder: %s", self.folder)
        try:
            self.learner.resume_learning(total, callback)
        finally:
            callback.close()
        self.save()
        self.learner.logger.dump(self.learner.num_timesteps)
        self.learner.logger.close()
        self.rows.close()
        if callback.stopped_by is not None and self.learner.num_timesteps < total:
            log.info(
                "stopped by %s at step %s; go on with: somite-train resume=%s",
                callback.stopped_by.name,
                f"{self.learner.num_timesteps:,}",
                self.folder,
            )
            raise SystemExit(128 + callback.stopped_by)
        log.info("done; evaluate with: somite-evaluate run=%s", self.folder)

    def save(self) -> None:
        """Write a checkpoint and make its policy the run's."""
        with new_checkpoint(self.folder, self.learner.num_timesteps) as writing:
            save_policy(
                writing / "policy",
                self.policy,
                environment=self._environment(),
                training={
                    "seed": int(self.config.seed),
                    "steps": self.learner.num_timesteps,
                    "algorithm": OmegaConf.to_container(self.config.algorithm, resolve=True),
                },
            )
            state_folder = writing / "training_state"
            state_folder.mkdir()
            torch.save(self._state(), state_folder / TRAINING_STATE)
        publish(last_checkpoint(self.folder), self.folder)
        keep_newest(self.folder, self.algorithm.keep_checkpoints)

    def _environment(self) -> dict[str, Any]:
        return {
            "config": OmegaConf.to_container(self.config.env, resolve=True),
            "seen": list(self.bodies.seen),
            "unseen": list(self.bodies.unseen),
            "hashes": {name: self.bodies.morphology(name).hash for name in self.bodies.seen},
        }

    def _state(self) -> dict[str, Any]:
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
        checkpoint = last_checkpoint(self.folder)
        saved = load_policy(checkpoint / "policy").policy
        if saved.architecture() != self.policy.architecture():
            raise UserError(
                f"{checkpoint} holds {type(saved).__name__} {saved.architecture()}, but the configuration "
                f"asks for {self.policy.architecture()}; a run resumes with its own agent"
            )
        self.policy.load_state_dict(saved.state_dict())
        self.learner.policy.optimizer.load_state_dict(state["optimizer"])
        self.learner.num_timesteps = state["num_timesteps"]
        self.learner._n_updates = state["n_updates"]
        self.best_score = state["best_score"]
        if state["reward_scaling"] and isinstance(self.learner.env, BodyRewardScaling):
            self.learner.env.restore(state["reward_scaling"])
        log.info("going on from step %s of %s", f"{state['num_timesteps']:,}", self.folder)

    def validate(self) -> float:
        """Mean return on the training bodies, deterministic; a better one than ever becomes ``best/``."""
        results = run_episodes(
            Agent(self.policy).act,
            self.bodies,
            self.bodies.seen,
            self.algorithm.validation_episodes,
            VALIDATION_SEED,
            aligned=self.policy.aligned_slots,
        )
        self.policy.train()
        score = float(np.mean([result.returns.mean() for result in results]))
        if score > self.best_score:
            self.best_score = score
            save_policy(
                self.folder / "best",
                self.policy,
                environment=self._environment(),
                training={
                    "seed": int(self.config.seed),
                    "steps": self.learner.num_timesteps,
                    "validation_return": score,
                },
            )
        return score


def _load_state(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint / "training_state" / TRAINING_STATE, weights_only=True)
