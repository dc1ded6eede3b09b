"""What the console scripts have in common: Hydra, with errors that help.

Names are looked up before Hydra starts a job, in the same configuration that Hydra will compose, so that
a mistyped group, choice or key gives one message with the nearest valid name and exit code 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..envs.errors import UserError
from .implied import with_implied
from .lookup import CONFIG_MODULE, check_arguments, check_targets
from .resume import rewrite_for_resume


def run(
    task: Callable[[DictConfig], None],
    config_name: str,
    arguments: Sequence[str] | None = None,
    resumable: bool = True,
) -> None:
    """Runs a task under Hydra with the arguments of the command line.

    Args:
        task: What to do with the composed configuration.
        config_name: The primary configuration in ``conf/``.
        arguments: Of the command line, without the program's name; ``sys.argv`` if None.
        resumable: Whether ``resume=<run>`` goes on with an earlier run.

    Raises:
        SystemExit: With code 2 after a :class:`UserError` or a wrong argument, its message printed.
    """
    # Before torch starts: see somite.agents.device.set_threads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    chooses_env = config_name not in ("evaluate", "view")
    arguments = with_implied(sys.argv[1:] if arguments is None else arguments, chooses_env)
    job = _Job(task)
    try:
        if resumable:
            arguments = rewrite_for_resume(arguments)
        check_arguments(arguments, config_name)
        with _arguments_are(arguments), _hydra_raises():
            path = f"pkg://{CONFIG_MODULE}"
            hydra.main(version_base="1.3", config_path=path, config_name=config_name)(job.function)()
        if job.errors:
            raise job.errors[0]
    except Exception as error:
        message = _user_message(error, before_job=not job.started)
        if message is None:
            raise
        print(message, file=sys.stderr)
        raise SystemExit(2) from None


class _Job:
    """The task, as Hydra calls it.

    Errors are kept until Hydra is done, which would print them in its own words: so the other jobs of a
    multirun go on, and the message is ours.
    """

    def __init__(self, task: Callable[[DictConfig], None]) -> None:
        self.started = False
        self.errors: list[Exception] = []

        def job(config: DictConfig) -> None:
            self.started = True
            try:
                check_targets(config)
                task(config)
            except Exception as error:
                self.errors.append(error)
                number = OmegaConf.select(HydraConfig.get(), "job.num")
                if number is not None:
                    message = _user_message(error, before_job=False) or f"{type(error).__name__}: {error}"
                    print(f"job {number} failed: {message}", file=sys.stderr)

        self.function = job


@contextmanager
def _arguments_are(arguments: list[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra gives its exceptions to us, with their whole trace, instead of printing and leaving."""
    name = "HYDRA_FULL_ERROR"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _user_message(error: BaseException, before_job: bool) -> str | None:
    """The message if the user can put it right, None if it is a fault that needs its trace."""
    cause: BaseException | None = error
    while cause is not None:  # what is built from a configuration comes wrapped in Hydra's error
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    composing = (CompactHydraException, HydraException, OmegaConfBaseException)
    if before_job and isinstance(error, composing):
        reasons = [str(e) for e in (error, error.__cause__) if e is not None and str(e)]
        return "\n".join(dict.fromkeys(reasons))
    return None


def program_folder() -> Path:
    """The folder that Hydra chose for this job's output."""
    return Path(HydraConfig.get().runtime.output_dir)
