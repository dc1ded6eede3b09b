"""TensorBoard's event files of a run that may have been resumed."""

from __future__ import annotations

from pathlib import Path

from stable_baselines3.common.logger import TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter


class TensorBoard(TensorBoardOutputFormat):
    """SB3's TensorBoard output, which hides what a resumed run will do again.

    Args:
        folder: of the event files.
        last_step: scalars of later steps that the folder holds already are not shown any more.
    """

    def __init__(self, folder: Path, last_step: int = 0) -> None:
        # SB3's own constructor makes a writer that hides nothing.
        self.writer = SummaryWriter(str(folder), purge_step=last_step + 1 if last_step else None)
        self._is_closed = False
