"""What ``somite-train`` does: the run that a configuration describes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from omegaconf import DictConfig

from ...envs.errors import UserError
from ..device import out_of_memory, resolve_device, set_threads, use_precision
from ..storage.run_folder import hold, tidy
from ..storage.save_errors import OF_THE_DISK
from .loop import Run, make_algorithm
from .signals import StopSignals


def train(config: DictConfig, folder: Path) -> None:
    """Learn what ``config`` describes in ``folder``; go on from its last checkpoint if it has one.

    Raises:
        SystemExit: stopped by a signal, with 128 plus its number; or the end could not be saved.
        UserError: an invalid configuration, or a folder that another process uses or that cannot be written
            into.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())  # from here on a signal ends in a checkpoint
        algorithm = make_algorithm(config)
        device = resolve_device(config.device)
        set_threads(config.threads)
        use_precision(config.precision, device)
        key, value = algorithm.memory_setting()
        stack.enter_context(out_of_memory("this run", device, f"algorithm.{key}", value))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(folder))
            tidy(folder)
            run = Run(config, folder, device)
        except OSError as error:
            if error.errno not in OF_THE_DISK:
                raise
            where = f" ({error.filename})" if error.filename else ""
            raise UserError(f"the run cannot begin in {folder}: {error.strerror}{where}") from error
        run.learn(signals)
        run.save_errors.check_end()
