"""What the console scripts have in common: Hydra, with errors that help.

Names are looked up before Hydra starts a job, in the same configuration that Hydra will compose, so that
a mistyped group, choice or key gives one message with the nearest valid name and exit code 2.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..agents.storage.paths import check_folder
from ..agents.storage.run_folder import go_back_to
from ..agents.training.sweep import read_sweep
from ..envs.errors import UserError
from ..envs.user_modules import look_in
from .early_signals import early_signals
from .implied import with_implied
from .lookup import CONFIG_MODULE, check_arguments, parse
from .multirun import arguments_of_sweep, has_basic_sweeper, run_sweep, sweep_to_resume
from .resume import checkpoint_to_resume, rewrite_for_resume
from .run_folders import asks_for_several, own_folder
from .streams import patient_streams
from .tasks import do_task, exit_code, user_message


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
        SystemExit: Its message printed, with code 2 after a `UserError` or a wrong argument, 1 after a
            `RunFault`; with 130 after Ctrl-C.
    """
    # Before torch starts: see somite.agents.device.set_threads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with patient_streams():
        _run(_Job(task, config_name), config_name, arguments, resumable)


def _run(job: _Job, config_name: str, arguments: list[str], resumable: bool) -> None:
    try:
        look_in(_folder())  # before Hydra may go to a job's folder
        arguments = with_implied(arguments, chooses_env=config_name not in ("evaluate", "view"))
        if resumable:
            _run_resumable(job, config_name, arguments)
        else:
            check_arguments(arguments, config_name)
            _run_hydra(job, config_name, arguments)
        if job.errors:
            raise job.errors[0]
    except KeyboardInterrupt:
        print("interrupted; what had been saved before stays", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        message = user_message(error, before_job=not job.started)
        if message is None:
            raise
        print(message, file=sys.stderr)
        raise SystemExit(exit_code(error)) from None


def _run_resumable(job: _Job, config_name: str, arguments: list[str]) -> None:
    """Runs that leave folders which can be gone on with: one, several, or what is left of them."""
    with early_signals():
        sweep = sweep_to_resume(arguments)
        going_back = checkpoint_to_resume(arguments) if sweep is None else None
        arguments = rewrite_for_resume(arguments) if sweep is None else arguments_of_sweep(sweep, arguments)
        # The keys of a sweep's runs are those of its own choices of groups.
        own = [] if sweep is None else read_sweep(sweep).jobs[0].overrides
        check_arguments([*own, *arguments], config_name)
        parsed = parse(arguments)
        if sweep is not None or (asks_for_several(parsed) and has_basic_sweeper(parsed, config_name)):
            job.errors += run_sweep(job.task, config_name, arguments, sweep)
        elif asks_for_several(parsed):
            _run_hydra(job, config_name, arguments)
        else:
            with own_folder(arguments, config_name) as arguments:
                if going_back is not None:
                    for later in go_back_to(*going_back):
                        print(f"set aside, not gone on from: {later}")
                _run_hydra(job, config_name, arguments)
                if job.errors:
                    raise job.errors[0]


def _run_hydra(job: _Job, config_name: str, arguments: list[str]) -> None:
    with _arguments_are(arguments), _hydra_raises():
        path = f"pkg://{CONFIG_MODULE}"
        hydra.main(version_base="1.3", config_path=path, config_name=config_name)(job.function)()


class _Job:
    """The task, as Hydra calls it.

    Errors are kept until Hydra is done, which would print them in its own words: so the other jobs of a
    multirun go on, and the message is ours.
    """

    def __init__(self, task: Callable[[DictConfig], None], command: str) -> None:
        self.task = task
        self.started = False
        self.errors: list[Exception] = []

        def job(config: DictConfig) -> None:
            self.started = True
            try:
                do_task(task, config, command)
            except Exception as error:
                self.errors.append(error)
                number = OmegaConf.select(HydraConfig.get(), "job.num")
                if number is not None:
                    message = user_message(error) or f"{type(error).__name__}: {error}"
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


def _folder() -> Path:
    """Where the user stands. Raises UserError: it was removed, or Hydra cannot stand there."""
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise UserError("the folder in which this was started is there no more; go to another one") from error
    check_folder(here)
    return here


def program_folder() -> Path:
    """The folder that Hydra chose for this job's output."""
    return Path(HydraConfig.get().runtime.output_dir)
