"""What every training run has, whatever its algorithm: parts, checkpoints, validation, records."""

from __future__ import annotations

import abc
import logging
import random
import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from stable_baselines3.common.logger import Logger

from ...envs.errors import UserError
from ...envs.task_set import TaskSet
from ...envs.user_modules import module_names
from ..agent import Agent
from ..device import (
    WARP,
    machine_name,
    processor,
    read_places,
    resolve_simulation,
    thread_limit,
)
from ..evaluation.episodes import run_episodes
from ..policies.base import Policy
from ..storage.atomic import replace_file
from ..storage.paths import command, relative_to_run, training_to_share
from ..storage.policy import load_policy, save_policy
from ..storage.run_folder import keep_newest, last_checkpoint, list_checkpoints, new_checkpoint, publish
from ..storage.save_errors import CHECKPOINT, SaveErrors
from ..storage.training_state import FOLDER as STATE_FOLDER
from ..storage.training_state import read_facts, read_training_state, write_training_state
from .dashboard import Dashboard
from .exactness import COMPARED, Changes, find_changes
from .metrics_csv import MetricsCsv
from .run_logger import RunLogger
from .start_from import take_over
from .tensorboard import TensorBoard

log = logging.getLogger(__name__)

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
        simulation: where: ``cpu``, or ``warp`` or ``torch`` on the device.
        precision: what the policy computes in, see `somite.agents.device`.
        algorithm: its settings.
        policy: trained in place.
        state: what the run goes on from; None: it starts.
    """

    policy: Policy
    name: str
    """Of the algorithm, as in ``conf/algorithm``."""
    budget = "total_steps"
    """Setting of the algorithm that says how long a run is; ``zero_shot_every`` counts in the same units."""
    needs_cpu: str | None = None
    """Half a sentence, why its rows cannot be simulated on a device; None: they can where the task can."""
    influences: tuple[str, ...] = ("device", "processor", "threads")
    """Of what a training state says about itself, what numbers depend on.

    Where it was simulated and packages' versions always count.
    """

    def __init__(self, config: DictConfig, folder: Path, device: torch.device) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.precision = str(config.precision)
        self.threads = thread_limit(config.threads)
        folder.mkdir(parents=True, exist_ok=True)
        self._begun = time.monotonic()
        self.save_errors = SaveErrors(folder, config.get("on_save_error", "stop"))
        self.save_seconds = 0.0
        resuming = bool(list_checkpoints(folder))
        self.state = read_training_state(last_checkpoint(folder)) if resuming else None
        # Where a resumed run cannot go on with its streams it draws new ones: those of its start would repeat
        # its episodes.
        seeds = np.random.SeedSequence([int(config.seed), self.start_steps]).generate_state(3)
        self.learner_seed, self.env_seed, init_seed = (int(seed) for seed in seeds)
        self.bodies: TaskSet = hydra.utils.instantiate(config.env, _convert_="all")
        for note in () if resuming else self.bodies.start_notes():
            log.warning(note)
        self.simulation = resolve_simulation(config.simulation, self.bodies, device, self.needs_cpu)
        if self.simulation == WARP:
            self.bodies.device_options = read_places(config.warp)
        self.algorithm: Any = hydra.utils.instantiate(config.algorithm, _convert_="all")
        self.best_score = -np.inf
        torch.manual_seed(init_seed)
        random.seed(init_seed)
        self.changes = self._find_changes() if self.state else Changes((), new_episodes=False)

    @property
    def start_steps(self) -> int:
        """Environment steps made before this process."""
        return self.state["num_timesteps"] if self.state else 0

    @property
    def done(self) -> int:
        """How much of its `budget` the run has made so far."""
        return self.steps

    @property
    def seconds(self) -> float:
        """How long the run has taken so far, what was interrupted included."""
        return (self.state or {}).get("seconds", 0.0) + time.monotonic() - self._begun

    def command(self) -> list[str]:
        """The arguments that the run was started with, where the command line started it."""
        file = self.folder / ".hydra" / "overrides.yaml"
        return OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else []

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

    def without_influence(self) -> tuple[str, ...]:
        """Settings of the algorithm that do not change what is learnt, beside those of `exactness`."""
        return ()

    def _find_changes(self) -> Changes:
        return find_changes(
            {**self.state, "config": relative_to_run(self.state["config"], self.folder)},
            read_facts(last_checkpoint(self.folder)),
            self._compared(),
            {n: value for n, value in self._setting().items() if n in (*self.influences, "simulation")},
            self.without_influence(),
        )

    def _compared(self) -> dict[str, Any]:
        plain = relative_to_run(OmegaConf.to_container(self.config, resolve=True), self.folder)
        return {name: plain[name] for name in COMPARED}

    def note_change(self, reason: str, new_episodes: bool = False) -> None:
        """Something else differs; the user is told. ``new_episodes``: all rows have to begin new ones."""
        self.changes = Changes((*self.changes.notes, reason), new_episodes or self.changes.new_episodes)

    def command_to(self, program: str, key: str) -> str:
        """A command that takes this run as its ``key``, with the modules that have to be named again."""
        imports = module_names(self.config.env.get("imports"))
        again = [f'"env.imports=[{",".join(imports)}]"'] if imports else []
        return command(program, *again, **{key: self.folder})

    def say_going_on(self) -> None:
        """Tell the user from which step the run is resumed, and whether it is what it would have been."""
        log.info("going on from step %s of %s", f"{self.steps:,}", self.folder)
        self.say_changes()

    def say_changes(self) -> None:
        """Tell the user what makes a resumed run another than it would have been without a stop."""
        if self.changes.notes:
            log.warning("not what it would be had it never stopped: %s", "; ".join(self.changes.notes))
        if self.changes.new_episodes:
            log.warning("all rows begin new episodes")

    def leave(self, told: signal.Signals) -> NoReturn:
        """Say how to go on and exit. Raises SystemExit, with 128 plus the signal's number."""
        self.save_errors.check_end()
        log.info(
            "stopped by %s at step %s; go on with: %s",
            told.name,
            f"{self.steps:,}",
            self.command_to("somite-train", "resume"),
        )
        raise SystemExit(128 + told)

    def make_logger(self) -> Logger:
        """TensorBoard and ``metrics.csv``, going on where they were; the configuration beside them."""
        failed, succeeded = self.save_errors.failed, self.save_errors.succeeded
        board = TensorBoard(
            self.folder,
            self.start_steps,
            partial(failed, "TensorBoard's event file"),
            partial(succeeded, "TensorBoard's event file"),
        )
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
        metrics = MetricsCsv(
            self.folder / "metrics.csv",
            self.start_steps,
            partial(failed, "metrics.csv"),
            partial(succeeded, "metrics.csv"),
        )
        plain = relative_to_run(OmegaConf.to_container(self.config), self.folder)
        replace_file(self.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)).encode())
        return RunLogger(self.folder, [board, metrics], lambda: self.save_seconds)

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
        """Give a new run's policy what another one has learnt, if ``start_from`` names one."""
        if self.state or not self.config.get("start_from"):
            return
        take_over(self.policy, str(self.config.start_from))

    def save(self) -> None:
        """Write a checkpoint and make its policy the run's.

        Raises:
            SystemExit: it cannot be written, and the configuration says that the run stops then.
        """
        begun = time.perf_counter()
        with self.save_errors.attempt(CHECKPOINT):
            with new_checkpoint(self.folder, self.steps) as writing:
                training = {
                    "algorithm": OmegaConf.to_container(self.config.algorithm, resolve=True),
                    "precision": self.precision,
                    "simulation": self.simulation,
                    "command": self.command(),
                    "seconds": round(self.seconds),
                    "machine": machine_name(),
                }
                self._save_policy(writing / "policy", training_to_share(training, self.folder))
                state = {**self.training_state(), "seconds": self.seconds, "config": self._compared()}
                write_training_state(writing / STATE_FOLDER, state, self._facts())
            publish(last_checkpoint(self.folder), self.folder)
            keep_newest(self.folder, self.algorithm.keep_checkpoints)
        self.save_seconds += time.perf_counter() - begun

    def _save_policy(self, folder: Path, training: Mapping[str, Any]) -> None:
        about = {"seed": int(self.config.seed), "steps": self.steps, **training}
        save_policy(folder, self.policy, environment=self.environment(), training=about)

    def _facts(self) -> dict[str, Any]:
        """What a training state says about itself."""
        return {
            "algorithm": self.name,
            "steps": self.steps,
            "done": self.done,
            "of": self.budget,
            "budget": getattr(self.algorithm, self.budget),
            **self._setting(),
        }

    def _setting(self) -> dict[str, Any]:
        threads = torch.get_num_threads()
        where = {"device": str(self.device), "simulation": self.simulation}
        return {**where, "processor": processor(), "threads": threads}

    def environment(self) -> dict[str, Any]:
        """What is saved beside a policy of what it was trained in."""
        return {
            "config": self._compared()["env"],
            "seen": list(self.bodies.seen),
            "unseen": list(self.bodies.unseen),
            "hashes": self.bodies.hashes(),
            "identities": self.bodies.identities(),
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
            threads=self.threads,
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
            begun = time.perf_counter()
            with self.save_errors.attempt("best/"):
                self._save_policy(self.folder / "best", {"validation_return": score})
                self.best_score = score  # not where it could not be kept: the next one better is
            self.save_seconds += time.perf_counter() - begun
        return score
