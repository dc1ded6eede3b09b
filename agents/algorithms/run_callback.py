"""What happens beside learning: progress, scalars, checkpoints, validation, and stopping in order."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from .intervals import Interval
from .progress import Progress
from .stopping import StopSignals

EPISODES_KEPT = 20
"""Whole episodes of each body that its logged return is the mean of."""


class RunCallback(BaseCallback):
    """Watches a run.

    Scalars beside SB3's: ``bodies/<name>`` (mean raw return of the last whole episodes of a body),
    ``validation/mean_reward``, ``time/env_share`` and ``time/update_share`` (of the run's seconds),
    ``rollout/diverged`` (simulations that diverged so far).

    Args:
        body_names: of the training bodies, in the order of ``info["body"]``.
        total_steps: where the run ends.
        save: writes a checkpoint of the present state.
        validate: returns a score of the present policy, or None to never validate.
        save_every, validate_every: environment steps.
    """

    def __init__(
        self,
        body_names: tuple[str, ...],
        total_steps: int,
        save: Callable[[], None],
        validate: Callable[[], float] | None,
        save_every: int,
        validate_every: int,
    ) -> None:
        super().__init__()
        self.body_names = body_names
        self.returns = [deque(maxlen=EPISODES_KEPT) for _ in body_names]
        self.save, self.validate = save, validate
        self.save_every, self.validate_every = save_every, validate_every
        self.signals = StopSignals()
        self.progress = Progress(total_steps)

    def _on_training_start(self) -> None:
        self._saves = Interval(self.save_every, self.num_timesteps)
        self._validations = Interval(self.validate_every, self.num_timesteps)
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
        if self._saves.reached(self.num_timesteps):
            self.save()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.returns[info["body"]].append(info["episode"]["r"])
        self.progress.update(self.num_timesteps, self._mean_return())
        return self.stopped_by is None

    def _mean_return(self) -> float | None:
        means = [np.mean(returns) for returns in self.returns if returns]
        return float(np.mean(means)) if means else None

    def _on_rollout_end(self) -> None:
        for name, returns in zip(self.body_names, self.returns, strict=True):
            if returns:
                self.logger.record(f"bodies/{name}", float(np.mean(returns)))
        elapsed = time.perf_counter() - self._start
        for phase in ("env", "update"):
            self.logger.record(f"time/{phase}_share", self.model.seconds[phase] / elapsed)
        if self.model.policy.auxiliary_loss is not None:
            self.logger.record("train/auxiliary_loss", self.model.policy.auxiliary_loss)
        self.logger.record("rollout/diverged", self.training_env.get_attr("diverged_rows")[0])

    def _on_training_end(self) -> None:
        if self.stopped_by is None:  # the last policy, too, can be the best
            self._validate()
        self.close()

    def _validate(self) -> None:
        if self.validate is not None and self.validate_every:
            self.logger.record("validation/mean_reward", self.validate())

    def close(self) -> None:
        """Give the signals and the terminal back; may be called twice."""
        self.signals.__exit__(None, None, None)
        self.progress.close()
