"""A run of cloning."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from ...envs.errors import UserError
from ...envs.saved import task_set_of
from ...envs.sensors import Senses, SensorTask
from ...envs.snapshots import Misfit
from ..agent import Agent
from ..algorithms.clone import Clone, CloneLearner
from ..algorithms.finite import NotFinite
from ..composition import build_policy, check_fit, policy_class
from ..evaluation.runs import saved_environment
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folder_of
from .diagnosis import stop_for
from .divergence import check_physics
from .intervals import Interval
from .progress import Progress
from .random_states import put_random_states, take_random_states
from .run import Run
from .signals import StopSignals

log = logging.getLogger(__name__)


class CloneRun(Run):
    """See :class:`~somite.agents.training.run.Run`."""

    algorithm: Clone
    name = "clone"
    needs_cpu = "cloning has its rows on the CPU, where the teacher looks on"

    def __init__(self, config: DictConfig, folder: Path, device: torch.device) -> None:
        super().__init__(config, folder, device)
        if not isinstance(self.bodies, SensorTask):
            raise UserError("algorithm=clone trains on tasks of sensors; for bodies: algorithm=ppo or cma_es")
        policy_class(config.agent, self.bodies.kind, by_gradient=True)  # says now if it does not fit
        teacher = load_policy(policy_folder_of(self.algorithm.teacher), device)
        sees = "readings" if teacher.policy.kind == self.bodies.kind else "state"
        senses = _undisturbed(teacher, self.bodies)
        task = self.bodies
        if self.algorithm.episode_steps is not None:
            task = task.with_limit(min(self.algorithm.episode_steps, task.max_episode_steps))
        self.env = task.make_vec(
            task.seen,
            self.algorithm.num_envs,
            stagger=True,
            beside=senses,
            beside_sees=sees,
            threads=self.threads,
        )
        self.policy = build_policy(config.agent, self.env).to(device)
        self.start_policy()
        self.learner = CloneLearner(
            self.algorithm,
            self.policy,
            self.env,
            teacher,
            device,
            self.env_seed,
            self.learner_seed,
            self.precision,
        )
        if self.state:
            self._restore(self.state)
        self.logger = self.make_logger()

    @property
    def steps(self) -> int:
        """Environment steps made so far."""
        return self.learner.num_timesteps

    def learn(self) -> None:  # noqa: D102
        with closing(self.env):
            self._learn()

    def _learn(self) -> None:
        algorithm, learner, total = self.algorithm, self.learner, self.algorithm.total_steps
        self.check_budget("total_steps", self.steps)
        log.info("cloning %s; run folder: %s", algorithm.teacher, self.folder)
        progress, begun, first = Progress(total), time.perf_counter(), self.steps
        saves = Interval(algorithm.checkpoint_every, self.steps)
        validations = Interval(algorithm.validate_every, self.steps)
        trials = Interval(algorithm.zero_shot_every if self.dashboard.suite else 0, self.steps)
        if self.state and not self.changes.new_episodes:
            put_random_states(self.state["random"], self.device)
        with StopSignals() as signals, closing(progress):
            progress.start(self.steps)
            while self.steps < total and signals.received is None:
                loss = self._iterate()
                score = float(np.mean(learner.returns)) if learner.returns else None
                progress.update(self.steps, score)
                self.logger.record("clone/loss", loss)
                if learner.student.auxiliary_loss is not None:
                    self.logger.record("clone/auxiliary_loss", learner.student.auxiliary_loss)
                self.logger.record("rollout/diverged", learner.diverged)
                self.logger.record("clone/teacher_share", learner.teacher_share)
                self.logger.record("train/learning_rate", learner.learning_rate)
                self.logger.record("time/fps", (self.steps - first) / (time.perf_counter() - begun))
                if score is not None:
                    self.logger.record("rollout/ep_rew_mean", score)
                    self.logger.record("rollout/ep_len_mean", float(np.mean(learner.lengths)))
                if validations.reached(self.steps):
                    self.logger.record("validation/mean_reward", self.validate())
                if trials.reached(self.steps) or (trials.every and self.steps >= total):
                    self.record_zero_shot(self.logger)
                self.record_zero_shot_share(self.logger, begun)
                share = learner.seconds["update"] / (time.perf_counter() - begun)
                self.logger.record("time/update_share", share)
                self.logger.dump(self.steps)
                if saves.reached(self.steps):
                    self.save()
        self.save()
        if self.steps >= total:
            self.dashboard.finish()
        self.logger.close()
        if signals.received is not None and self.steps < total:
            self.leave(signals.received)
        log.info("done; evaluate with: %s", self.command_to("somite-evaluate", "run"))

    def training_state(self) -> dict[str, Any]:  # noqa: D102
        return {
            "optimizer": self.learner.optimizer.state_dict(),
            "num_timesteps": self.steps,
            "best_score": float(self.best_score),
            "learner": self.learner.snapshot(),
            "random": take_random_states(self.device),
        }

    def _iterate(self) -> float:
        """A rollout and its update. Raises RunFault: numbers that are not finite, or too much diverged."""
        learner, before, steps = self.learner, self.learner.diverged, self.steps
        try:
            loss = learner.iterate()
        except NotFinite as error:
            raise stop_for(error, self.folder, self.policy, learner.rollout()) from error
        diverged, made = np.array([learner.diverged - before]), np.array([self.steps - steps])
        when = f"the rollout that ended at step {self.steps:,}"
        bodies = self.bodies
        check_physics(diverged, made, bodies.seen, self.algorithm.max_diverged, when, bodies.has_physics)
        return loss

    def _restore(self, state: dict[str, Any]) -> None:
        learner = self.learner
        self.load_saved_policy()
        learner.optimizer.load_state_dict(state["optimizer"])
        learner.num_timesteps, self.best_score = state["num_timesteps"], state["best_score"]
        if not self.changes.new_episodes:
            try:
                anew = learner.restore(state["learner"])
                if anew.any():
                    self.note_change(f"{np.count_nonzero(anew)} of {len(anew)} rows begin new episodes")
            except Misfit as error:
                learner.begin_episodes(self.env_seed)
                self.note_change(str(error), new_episodes=True)
        self.say_going_on()


def _undisturbed(teacher: Agent, task: SensorTask) -> Senses:
    """The teacher's own senses, in the task's order and with nothing lost.

    Raises:
        UserError: a teacher of another task, or one that cannot do without noise channels.
    """
    if teacher.policy.kind not in ("sensors", task.kind):
        name = type(teacher.policy).__name__
        raise UserError(f"the teacher is a {name}, which reads {teacher.policy.kind}, not {task.kind}")
    own = task_set_of(saved_environment(teacher))
    if own.name != task.name or own.notes() != task.notes():
        described = "; ".join([own.name, *own.notes()]), "; ".join([task.name, *task.notes()])
        raise UserError(f"the teacher was trained on {described[0]}, the student is to learn {described[1]}")
    senses = own.senses.with_values(shuffle="never", noise_channels=0, missing=0.0, blinking=0.0, stuck=0)
    with closing(own.with_senses(senses).make_vec(own.seen, 1, threads=1)) as env:
        check_fit(teacher.policy, env)
    return senses
