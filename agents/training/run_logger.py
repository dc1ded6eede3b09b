"""A run's scalars, with what saving costs among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stable_baselines3.common.logger import KVWriter, Logger


class RunLogger(Logger):
    """SB3's logger, which adds ``time/save_share`` to every row.

    Args:
        folder: of the run.
        formats: what it writes.
        save_seconds: that the run has spent in saving since it was started or resumed.
    """

    def __init__(self, folder: Path, formats: Sequence[KVWriter], save_seconds: Callable[[], float]) -> None:
        super().__init__(str(folder), list(formats))
        self._save_seconds, self._begun = save_seconds, time.perf_counter()

    def dump(self, step: int = 0) -> None:
        """Write all scalars recorded since the last time, as those of ``step``."""
        elapsed = time.perf_counter() - self._begun
        self.record("time/save_share", self._save_seconds() / elapsed if elapsed else 0.0)
        super().dump(step)
