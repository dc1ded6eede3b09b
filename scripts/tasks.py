"""A command's task with a composed configuration, and what is said when it fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..agents.storage.atomic import replace_file
from ..agents.storage.paths import keep_where, make_absolute, relative_to_run
from ..agents.storage.save_errors import OF_THE_DISK
from ..agents.training.faults import RunFault
from ..envs.errors import UserError
from .streams import use_utf8_in_logs
from .values import check_values

Task = Callable[[DictConfig], None]


def do_task(task: Task, config: DictConfig, command: str) -> None:
    """Does a task, if its configuration builds nothing but parts of this package, with valid values.

    Args:
        task: What to do.
        config: As composed.
        command: Whose configuration it is, as in ``conf/``.

    Raises:
        UserError: It names something else, or has another value.
    """
    use_utf8_in_logs()
    make_absolute(config, Path(HydraConfig.get().runtime.cwd))
    _record(config)
    check_values(config, command, HydraConfig.get().runtime.output_dir)
    task(config)


def _record(config: DictConfig) -> None:
    """Hydra's record of a run, as the other files that it saves: with paths relative to its folder."""
    known, plain = HydraConfig.get(), OmegaConf.to_container(config)
    run = Path(known.runtime.output_dir)
    saved = relative_to_run(plain, run)
    if known.output_subdir is None or saved == plain:
        return
    try:
        text = OmegaConf.to_yaml(OmegaConf.create(saved))
        replace_file(run / known.output_subdir / "config.yaml", text.encode("utf-8"))
        keep_where(plain, run)
    except OSError as error:
        raise UserError(f"{error.filename or run} cannot be written: {error.strerror}") from error


def exit_code(error: BaseException) -> int:
    """With which a program ends, its message printed: 1 for a run that cannot go on, 2 for wrong input.

    Args:
        error: What happened.
    """
    return 1 if isinstance(error, RunFault) else 2


def user_message(error: BaseException, before_job: bool = False) -> str | None:
    """The message if it says all that helps, None if it is a fault that needs its trace.

    Args:
        error: What happened.
        before_job: Whether it happened while Hydra composed the configuration and made the folders.
    """
    cause: BaseException | None = error
    while cause is not None:  # what is built from a configuration comes wrapped in Hydra's error
        if isinstance(cause, (UserError, RunFault)):
            return str(cause)
        cause = cause.__cause__
    composing = (CompactHydraException, HydraException, OmegaConfBaseException)
    if before_job and isinstance(error, composing):
        reasons = [str(e) for e in (error, error.__cause__) if e is not None and str(e)]
        return "\n".join(dict.fromkeys(reasons))
    if before_job and isinstance(error, OSError) and error.errno in OF_THE_DISK:
        return f"{error.filename or 'the output folder'} cannot be written: {error.strerror}"
    return None
