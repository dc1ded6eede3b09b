"""What happens beside learning: progress, scalars, checkpoints, validation, and stopping in order."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from .divergence import check_physics
from .intervals import Interval
from .progress import Progress
from .signals import StopSignals

EPISODES_KEPT = 20
"""Whole episodes of each body that its logged return is the mean of."""


def record_bodies(logger: Logger, returns: Mapping[str, float]) -> None:
    """Log the mean return of each body, and of several their mean, the worst and the best.

    Args:
        logger: of the run.
        returns: by body.
    """
    for name, mean in returns.items():
        logger.record(f"bodies/{name}", float(mean))
    if len(returns) > 1:
        for name, of in (("mean", np.mean), ("worst", np.min), ("best", np.max)):
            logger.record(f"rollout/body_{name}", float(of(list(returns.values()))))


class RunCallback(BaseCallback):
    """Watches a run.

    Scalars beside SB3's: ``bodies/<name>`` (mean raw return of the last whole episodes of a body) and what
    `record_bodies` adds, ``validation/mean_reward``, what ``zero_shot`` returns, ``time/env_share``,
    ``time/update_share`` and ``time/zero_shot_share`` (of the run's seconds), ``rollout/diverged``
    (simulations that diverged so far).

    Args:
        body_names: of the training bodies, in the order of ``body_of_row``'s values.
        total_steps: where the run ends.
        save: writes a checkpoint of the present state.
        validate: returns a score of the present policy, or None to never validate.
        save_every, validate_every, zero_shot_every: environment steps.
        zero_shot: returns scalars of the present policy in conditions never trained on, or None.
        mark: remembers the present state: a rollout begins. What the run goes on from if it does not end.
        max_diverged: share of a body's steps in a rollout whose simulation may diverge.
        has_physics: of the task; see `check_physics`.
    """

    def __init__(
        self,
        body_names: tuple[str, ...],
        total_steps: int,
        save: Callable[[], None],
        validate: Callable[[], float] | None,
        save_every: int,
        validate_every: int,
        zero_shot: Callable[[], dict[str, float]] | None = None,
        zero_shot_every: int = 0,
        mark: Callable[[], None] = lambda: None,
        max_diverged: float = 1.0,
        has_physics: bool = True,
    ) -> None:
        super().__init__()
        self.mark, self.max_diverged, self.has_physics = mark, max_diverged, has_physics
        self.body_names = body_names
        self.returns = [deque(maxlen=EPISODES_KEPT) for _ in body_names]
        self.save, self.validate = save, validate
        self.save_every, self.validate_every = save_every, validate_every
        self.zero_shot, self.zero_shot_every = zero_shot, zero_shot_every if zero_shot else 0
        self.signals = StopSignals()
        self.progress = Progress(total_steps)

    def _on_training_start(self) -> None:
        self._saves = Interval(self.save_every, self.num_timesteps)
        self._validations = Interval(self.validate_every, self.num_timesteps)
        self._trials = Interval(self.zero_shot_every, self.num_timesteps)
        self.zero_shot_seconds = 0.0
        self.signals.__enter__()
        self.progress.start(self.num_timesteps)
        self._start = time.perf_counter()

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that stopped the run, if one did."""
        return self.signals.received

    def _on_rollout_start(self) -> None:
        # Here the update of the previous rollout is complete.
        if self._validations.reached(self.num_timesteps):
            self._validate()
        if self._trials.reached(self.num_timesteps):
            self._try_out()
        self.mark()
        if self._saves.reached(self.num_timesteps):
            self.save()
        self._diverged = self._diverged_of_bodies()
        self._mean = self._mean_return()

    def _on_step(self) -> bool:
        self.progress.update(self.num_timesteps, self._mean)
        return self.stopped_by is None

    def _mean_return(self) -> float | None:
        means = [np.mean(returns) for returns in self.returns if returns]
        return float(np.mean(means)) if means else None

    def _on_rollout_end(self) -> None:
        finished = self.model.finished
        for body, kept in enumerate(self.returns):
            kept.extend(finished.returns[finished.bodies == body][-EPISODES_KEPT:].tolist())
        record_bodies(
            self.logger, {n: np.mean(r) for n, r in zip(self.body_names, self.returns, strict=True) if r}
        )
        elapsed = time.perf_counter() - self._start
        if self.zero_shot_every:
            self.logger.record("time/zero_shot_share", self.zero_shot_seconds / elapsed)
        for phase in ("env", "update"):
            self.logger.record(f"time/{phase}_share", self.model.seconds[phase] / elapsed)
        if self.model.policy.auxiliary_loss is not None:
            self.logger.record("train/auxiliary_loss", self.model.policy.auxiliary_loss)
        self._check_physics()

    def _check_physics(self) -> None:
        """Log how many simulations have diverged so far; raises RunFault: too many."""
        diverged = self._diverged_of_bodies()
        self.logger.record("rollout/diverged", int(diverged.sum()))
        rows = np.bincount(self.model.env.body_of_row)
        when = f"the rollout that ended at step {self.num_timesteps:,}"
        steps = rows * self.model.n_steps  # steps: (bodies,)
        new = diverged - self._diverged
        check_physics(new, steps, self.body_names, self.max_diverged, when, self.has_physics)

    def _diverged_of_bodies(self) -> np.ndarray:
        return self.model.env.records.diverged.copy()

    def _on_training_end(self) -> None:
        if self.stopped_by is None:  # the last policy, too, can be the best
            self._validate()
            if self.zero_shot_every:
                self._try_out()
        self.close()

    def _validate(self) -> None:
        if self.validate is not None and self.validate_every:
            self.logger.record("validation/mean_reward", self.validate())

    def _try_out(self) -> None:
        start = time.perf_counter()
        for name, score in self.zero_shot().items():
            self.logger.record(name, score)
        self.zero_shot_seconds += time.perf_counter() - start

    def close(self) -> None:
        """Give the signals and the terminal back; may be called twice."""
        self.signals.__exit__(None, None, None)
        self.progress.close()
