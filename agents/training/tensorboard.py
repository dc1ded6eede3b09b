"""TensorBoard's event files of a run that may have been resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stable_baselines3.common.logger import TensorBoardOutputFormat

from .event_file import Writer


def _raise(error: OSError) -> None:
    raise error


class TensorBoard(TensorBoardOutputFormat):
    """SB3's TensorBoard output, which hides what a resumed run will do again.

    Args:
        folder: of the event files.
        last_step: scalars of later steps that the folder holds already are not shown any more.
        failed: is told of an error of the disk; if it returns, events wait for the next one.
        succeeded: is told when everything has been written.
    """

    def __init__(
        self,
        folder: Path,
        last_step: int = 0,
        failed: Callable[[OSError], None] = _raise,
        succeeded: Callable[[], None] = lambda: None,
    ) -> None:
        # SB3's own constructor makes a writer that hides nothing. A run that was killed before its first
        # checkpoint begins anew in its folder.
        again = last_step > 0 or any(folder.glob("events.*"))
        self.writer = Writer(folder, last_step + 1 if again else None, failed, succeeded)
        self._is_closed = False
