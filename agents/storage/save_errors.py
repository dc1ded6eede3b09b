"""What a run does where something of it cannot be written: a full disk, a folder that became read-only."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .paths import command
from .run_folder import list_checkpoints, step_of

log = logging.getLogger(__name__)

EXIT_UNSAVED = 74
"""Exit code of a run that stopped because it could not save: ``EX_IOERR`` of sysexits.h."""

CHECKPOINT = "the checkpoint"

OF_THE_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ESTALE, errno.ENOTDIR),
)


class SaveErrors:
    """Takes the errors of everything that a run writes.

    Args:
        folder: Of the run.
        on_error: The key ``on_save_error``. ``stop``: the run ends at once, with `EXIT_UNSAVED`;
            ``continue``: it says so, goes on and tries again the next time that this is to be written.
    """

    def __init__(self, folder: Path, on_error: str = "stop") -> None:
        self.folder, self.stops = folder, on_error == "stop"
        self._failing: set[str] = set()

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """A block that writes something, named in words.

        That it could not be written is said once until it can be again, of a checkpoint every time.

        Raises:
            SystemExit: It could not, and the run is to stop then.
        """
        try:
            yield
        except OSError as error:
            reason = f"{what} of {self.folder} could not be written: {error.strerror or error}"
            if self.stops:
                log.error("%s; the run stops (on_save_error=stop). %s", reason, self._kept())
                raise SystemExit(EXIT_UNSAVED) from error
            if what not in self._failing or what == CHECKPOINT:
                then = "the run goes on and tries again (on_save_error=continue)"
                log.warning("%s; %s. %s", reason, then, self._kept())
            self._failing.add(what)
        else:
            if what in self._failing:
                self._failing.discard(what)
                log.info("%s of %s is written again", what, self.folder)

    def check_end(self) -> None:
        """For a run that ends. Raises SystemExit: its last checkpoint could not be written."""
        if CHECKPOINT in self._failing:
            log.error("the end of this run could not be saved. %s", self._kept())
            raise SystemExit(EXIT_UNSAVED)

    def _kept(self) -> str:
        try:
            kept = list_checkpoints(self.folder)
        except OSError as error:  # the folder itself is out of reach
            return f"its checkpoints cannot be listed ({error.strerror})"
        if not kept:
            return "It has no checkpoint yet."
        return (
            f"Its last checkpoint, of step {step_of(kept[-1]):,}, is whole; when there is room again, go on "
            f"from it with: {command('somite-train', resume=self.folder)}"
        )
