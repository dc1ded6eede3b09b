"""What every training run has, whatever its algorithm: parts, checkpoints, validation, records."""

from __future__ import annotations

import abc
import logging
import random
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.logger import Logger

from ..envs.errors import UserError
from ..envs.task_set import TaskSet
from .acting import Agent
from .algorithms.metrics_csv import MetricsCsv
from .algorithms.tensorboard import TensorBoard
from .checkpoint import load_policy, policy_folder_of, save_policy
from .dashboard import Dashboard
from .episodes import run_episodes
from .machine import machine_name
from .policies.base import Policy
from .run_folder import keep_newest, last_checkpoint, list_checkpoints, new_checkpoint, publish

log = logging.getLogger(__name__)

TRAINING_STATE = "state.pt"
VALIDATION_SEED = 7_000_001
"""Starts of the validation on training bodies; no evaluation uses them (its seeds are small)."""


class Run(abc.ABC):
    """A run's parts, put together.

    Args:
        config: as composed from ``conf/train.yaml``.
        folder: of the run.
        device: of the learner.

    Attributes:
        bodies: what is trained on.
        algorithm: its settings.
        policy: trained in place.
        state: what the run goes on from; None: it starts.
    """

    policy: Policy
    name: str
    """Of the algorithm, as in ``conf/algorithm``."""
    budget = "total_steps"
    """Setting of the algorithm that says how long a run is; ``zero_shot_every`` counts in the same units."""

    def __init__(self, config: DictConfig, folder: Path, device: torch.device) -> None:
        self.config, self.folder, self.device = config, folder, device
        folder.mkdir(parents=True, exist_ok=True)
        self._begun = time.monotonic()
        resuming = bool(list_checkpoints(folder))
        self.state = _load_state(last_checkpoint(folder)) if resuming else None
        # A resumed run draws new streams: repeating those of its start would repeat their episodes.
        seeds = np.random.SeedSequence([int(config.seed), self.start_steps]).generate_state(3)
        self.learner_seed, self.env_seed, init_seed = (int(seed) for seed in seeds)
        self.bodies: TaskSet = hydra.utils.instantiate(config.env, _convert_="all")
        self.algorithm: Any = hydra.utils.instantiate(config.algorithm, _convert_="all")
        self.best_score = -np.inf
        torch.manual_seed(init_seed)
        random.seed(init_seed)

    @property
    def start_steps(self) -> int:
        """Environment steps made before this process."""
        return self.state["num_timesteps"] if self.state else 0

    @property
    def seconds(self) -> float:
        """How long the run has taken so far, what was interrupted included."""
        return (self.state or {}).get("seconds", 0.0) + time.monotonic() - self._begun

    def command(self) -> list[str]:
        """The arguments that the run was started with, where the command line started it."""
        file = self.folder / ".hydra" / "overrides.yaml"
        return list(OmegaConf.load(file)) if file.is_file() else []

    @property
    @abc.abstractmethod
    def steps(self) -> int:
        """Environment steps made so far."""

    @abc.abstractmethod
    def learn(self) -> None:
        """Learn until the end of the budget, or until told to stop.

        Raises:
            SystemExit: stopped by a signal, with 128 plus its number; everything has been saved.
            UserError: the run has made all its steps before.
        """

    @abc.abstractmethod
    def training_state(self) -> dict[str, Any]:
        """What the algorithm goes on from; tensors and plain values."""

    def check_budget(self, key: str, done: int) -> None:
        """Raises UserError: ``done`` is all that ``algorithm.<key>`` asks for."""
        budget = getattr(self.algorithm, key)
        if done >= budget:
            raise UserError(
                f"{self.folder} has made {done:,} of {budget:,} {key.removeprefix('total_')}; to go on, "
                f"raise algorithm.{key}"
            )

    def say_going_on(self) -> None:
        """Tell the user from which step the run is resumed."""
        log.info("going on from step %s of %s", f"{self.steps:,}", self.folder)

    def leave(self, told: signal.Signals) -> NoReturn:
        """Say how to go on and exit. Raises SystemExit, with 128 plus the signal's number."""
        log.info(
            "stopped by %s at step %s; go on with: somite-train resume=%s",
            told.name,
            f"{self.steps:,}",
            self.folder,
        )
        raise SystemExit(128 + told)

    def make_logger(self) -> Logger:
        """TensorBoard and ``metrics.csv``, going on where they were; the configuration beside them."""
        board = TensorBoard(self.folder, last_step=self.start_steps)
        self.dashboard = Dashboard(
            board.writer,
            self.config,
            self.policy,
            algorithm=self.name,
            bodies=len(self.bodies.seen),
            validates=bool(self.algorithm.validate_every and self.algorithm.validation_episodes),
            tries=0 < self.algorithm.zero_shot_every <= getattr(self.algorithm, self.budget),
            first_step=self.start_steps,
        )
        metrics = MetricsCsv(self.folder / "metrics.csv", last_step=self.start_steps)
        OmegaConf.save(self.config, self.folder / "config.yaml")
        return Logger(str(self.folder), [board, metrics])

    def load_saved_policy(self) -> None:
        """Give the policy the parameters of the last checkpoint. Raises UserError: another agent's."""
        checkpoint = last_checkpoint(self.folder)
        saved = load_policy(checkpoint / "policy").policy
        if saved.architecture() != self.policy.architecture():
            raise UserError(
                f"{checkpoint} holds {type(saved).__name__} {saved.architecture()}, but the configuration "
                f"asks for {self.policy.architecture()}; a run resumes with its own agent"
            )
        self.policy.load_state_dict(saved.state_dict())

    def start_policy(self) -> None:
        """Give a new run's policy what another one has learnt, if ``start_from`` names one.

        Taken over are the parameters that act and the normaliser; critic and exploration start anew.

        Raises:
            UserError: there is no such run, or its agent is another one.
        """
        if self.state or not self.config.get("start_from"):
            return
        folder = policy_folder_of(str(self.config.start_from))
        other = load_policy(folder).policy
        own, theirs = (_acting_architecture(policy) for policy in (self.policy, other))
        names = [name for name in {**theirs, **own} if own.get(name) != theirs.get(name)]
        if names:
            held, asked = (", ".join(f"{n}={found.get(n)}" for n in names) for found in (theirs, own))
            given = f"start_from={self.config.start_from}"
            raise UserError(f"{given} holds {held}; the configuration asks for {asked}")
        self.policy.normalizer.load_state_dict(other.normalizer.state_dict())
        learnt = other.acting_parameters()
        with torch.no_grad():
            for name, parameter in self.policy.acting_parameters().items():
                parameter.copy_(learnt[name])
        log.info("starting with what %s has learnt", folder)

    def save(self) -> None:
        """Write a checkpoint and make its policy the run's."""
        with new_checkpoint(self.folder, self.steps) as writing:
            save_policy(
                writing / "policy",
                self.policy,
                environment=self.environment(),
                training={
                    "seed": int(self.config.seed),
                    "steps": self.steps,
                    "algorithm": OmegaConf.to_container(self.config.algorithm, resolve=True),
                    "command": self.command(),
                    "seconds": round(self.seconds),
                    "machine": machine_name(),
                },
            )
            state_folder = writing / "training_state"
            state_folder.mkdir()
            state = {**self.training_state(), "seconds": self.seconds}
            torch.save(state, state_folder / TRAINING_STATE)
        publish(last_checkpoint(self.folder), self.folder)
        keep_newest(self.folder, self.algorithm.keep_checkpoints)

    def environment(self) -> dict[str, Any]:
        """What is saved beside a policy of what it was trained in."""
        return {
            "config": OmegaConf.to_container(self.config.env, resolve=True),
            "seen": list(self.bodies.seen),
            "unseen": list(self.bodies.unseen),
            "hashes": self.bodies.hashes(),
        }

    def score(self, policy: Policy, episodes: int) -> float:
        """Mean return of a policy on the training bodies, deterministic, from starts kept for this."""
        results = run_episodes(
            Agent(policy).act,
            self.bodies.for_evaluation(),
            self.bodies.seen,
            episodes,
            VALIDATION_SEED,
            aligned=policy.aligned_slots,
        )
        policy.train()
        return float(np.mean([result.returns.mean() for result in results]))

    def zero_shot(self) -> dict[str, float]:
        """Scalars of the present policy in conditions never trained on; nothing is chosen by them."""
        return self.dashboard.try_out(self.policy, self.steps)

    def record_zero_shot(self, logger: Logger) -> None:
        """Log what `zero_shot` returns."""
        for name, score in self.zero_shot().items():
            logger.record(name, score)

    def record_zero_shot_share(self, logger: Logger, begun: float) -> None:
        """Log the share that the suite, if there is one, has had of the time since ``begun``, in seconds."""
        if self.dashboard.suite is not None:
            share = self.dashboard.suite.seconds / (time.perf_counter() - begun)
            logger.record("time/zero_shot_share", share)

    def validate(self) -> float:
        """The present policy's score; a better one than ever becomes ``best/``."""
        score = self.score(self.policy, self.algorithm.validation_episodes)
        if score > self.best_score:
            self.best_score = score
            save_policy(
                self.folder / "best",
                self.policy,
                environment=self.environment(),
                training={
                    "seed": int(self.config.seed),
                    "steps": self.steps,
                    "validation_return": score,
                },
            )
        return score


def _acting_architecture(policy: Policy) -> dict[str, Any]:
    """What acts, and what it reads: without what only learning needs."""
    of_learning = ("critic", "initial_log_std", "identify", "n_sensors", "grid")
    found = {name: value for name, value in policy.architecture().items() if name not in of_learning}
    reads = {f.name: f.size for f in (*policy.spec.token, *policy.spec.joint, *policy.spec.trace)}
    return {"agent": type(policy).__name__, **found, "features": reads}


def _load_state(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint / "training_state" / TRAINING_STATE, weights_only=True)
