"""A run of proximal policy optimisation."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from ...envs.snapshots import Misfit, put, take
from ..algorithms.finite import NotFinite
from ..algorithms.ppo import PPO, TokenPPO
from ..composition import build_policy, policy_class
from .diagnosis import stop_for
from .random_states import put_random_states, take_random_states
from .run import Run
from .run_callback import RunCallback

log = logging.getLogger(__name__)

_KEPT = ("_last_episode_starts",)


class PPORun(Run):
    """See :class:`~somite.agents.training.run.Run`.

    It stops in the midst of a rollout and goes on from where that rollout began, so that what is learnt is
    what it would have learnt without a stop.
    """

    algorithm: PPO
    name = "ppo"

    def __init__(self, config: DictConfig, folder: Path, device: torch.device) -> None:
        super().__init__(config, folder, device)
        aligned = policy_class(config.agent, self.bodies.kind, by_gradient=True).aligned_slots
        self.rows = self.algorithm.make_rows(self.bodies, aligned, self.threads, self.simulation, self.device)
        self.policy = build_policy(config.agent, self.rows.env).to(device)
        self.start_policy()
        self.learner: TokenPPO = self.algorithm.make_learner(
            self.policy,
            self.rows,
            device,
            self.learner_seed,
            self.env_seed,
            self.precision,
            continued=bool(config.get("start_from")),
        )
        self._scales = self.learner.scaling
        self._mark: dict[str, Any] | None = None
        if self.state:
            self._restore(self.state)
        self.learner.set_logger(self.make_logger())
        self.callback = self._make_callback()

    @property
    def steps(self) -> int:
        """Environment steps made so far."""
        return self.learner.num_timesteps

    def learn(self) -> None:  # noqa: D102
        with closing(self.rows):
            self._learn()

    def _learn(self) -> None:
        callback, total = self.callback, self.algorithm.total_steps
        self.check_budget("total_steps", self.steps)
        seen, unseen = ", ".join(self.bodies.seen), ", ".join(self.bodies.unseen) or "none"
        log.info("training on %s; held out: %s", seen, unseen)
        log.info("run folder: %s", self.folder)
        self._take_up_records()
        try:
            self.learner.resume_learning(total, callback)
        except NotFinite as error:
            raise stop_for(error, self.folder, self.policy, self.learner.rollout()) from error
        except Exception:
            if self._rewind():  # what has been learnt so far is whole
                self.save()
            raise
        finally:
            callback.close()
        stopped = self._rewind()
        self.save()
        if not stopped:
            self.learner.logger.dump(self.steps)
            self.dashboard.finish()
        self.learner.logger.close()
        if stopped:
            self.leave(callback.stopped_by)
        log.info("done; evaluate with: %s", self.command_to("somite-evaluate", "run"))

    def _make_callback(self) -> RunCallback:
        algorithm = self.algorithm
        return RunCallback(
            self.rows.env.body_names,
            algorithm.total_steps,
            self.save,
            self.validate if algorithm.validation_episodes else None,
            algorithm.checkpoint_every,
            algorithm.validate_every,
            self.zero_shot if self.dashboard.suite is not None else None,
            algorithm.zero_shot_every,
            self._take_mark,
            algorithm.max_diverged,
            self.bodies.has_physics,
        )

    def training_state(self) -> dict[str, Any]:  # noqa: D102
        if not self.learner.is_collecting:
            self._take_mark()
        return {
            "optimizer": self.learner.policy.optimizer.state_dict(),
            "num_timesteps": self.steps,
            "best_score": float(self.best_score),
            "mark": self._mark,
        }

    def without_influence(self) -> tuple[str, ...]:  # noqa: D102
        return ("total_steps",) if self.algorithm.learning_rate_schedule == "constant" else ()

    def _take_mark(self) -> None:
        """Remember where a rollout begins, but for what only updates change."""
        learner = self.learner
        recorded, excluded = learner.logger.name_to_value, learner.logger.name_to_excluded
        self._mark = {
            "num_timesteps": learner.num_timesteps,
            "n_updates": learner._n_updates,
            "rows": None if learner._last_obs is None else self.rows.snapshot(),
            "scales": self._scales and self._scales.snapshot(),
            "learner": take(learner, _KEPT),
            "memory": {key: value.detach().clone() for key, value in learner.policy.memory.items()},
            "returns": [list(returns) for returns in self.callback.returns],
            "episodes": list(learner.ep_info_buffer or ()),
            "recorded": {name: (float(value), excluded[name]) for name, value in recorded.items()},
            "random": take_random_states(self.device),
        }

    def _rewind(self) -> bool:
        """Count as if the rollout in progress had not begun; False if there is none, or not yet its mark."""
        mark, learner = self._mark, self.learner
        if not learner.is_collecting or mark is None or mark["n_updates"] != learner._n_updates:
            return False
        learner.num_timesteps = mark["num_timesteps"]
        return True

    def _restore(self, state: dict[str, Any]) -> None:
        learner, mark = self.learner, state["mark"]
        self.load_saved_policy()
        learner.policy.optimizer.load_state_dict(state["optimizer"])
        learner.num_timesteps, learner._n_updates = state["num_timesteps"], mark["n_updates"]
        self.best_score = state["best_score"]
        if mark["rows"] is None:
            self.note_change("it had not begun", new_episodes=True)
        if not self.changes.new_episodes:
            self.rows.reset()
            learner.begin_episodes()
            try:
                learner._last_obs = self.rows.restore(mark["rows"])
                put(learner, _KEPT, mark["learner"])
                learner.policy.memory = {key: value.to(self.device) for key, value in mark["memory"].items()}
                self._begin_anew(self.rows.begun_anew)
                if self._scales and mark["scales"]:
                    self._scales.restore(mark["scales"], self.rows.begun_anew)
            except Misfit as error:
                self.note_change(str(error), new_episodes=True)
        if self.changes.new_episodes:
            learner._last_obs, learner.policy.memory = None, {}
            self.rows.seed(self.env_seed)
            if self._scales and mark["scales"]:
                try:
                    self._scales.restore_statistics(mark["scales"])
                except Misfit as error:  # of other bodies: they are learnt anew
                    self.note_change(str(error))
        self.say_going_on()

    def _begin_anew(self, rows: np.ndarray) -> None:
        """Single rows (B,) bool could not be brought back."""
        if rows.any():
            starts = self.learner._last_episode_starts
            starts |= torch.from_numpy(rows).to(starts.device)
            self.learner.policy.forget(rows)
            self.note_change(f"{np.count_nonzero(rows)} of {len(rows)} rows begin new episodes")

    def _take_up_records(self) -> None:
        """What a resumed run has logged and drawn so far; right before it goes on."""
        if self.state is None or self.changes.new_episodes:
            return
        mark, learner = self.state["mark"], self.learner
        for kept, returns in zip(self.callback.returns, mark["returns"], strict=True):
            kept.extend(returns)
        learner.ep_info_buffer = deque(mark["episodes"], maxlen=learner._stats_window_size)
        learner.ep_success_buffer = deque(maxlen=learner._stats_window_size)
        for name, (value, excluded) in mark["recorded"].items():
            learner.logger.record(name, value, excluded)
        put_random_states(mark["random"], self.device)
