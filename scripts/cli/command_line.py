"""What the console scripts have in common: Hydra, with errors that help.

A mistyped group, choice or key gives one message with the nearest valid name and exit code 2.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ...agents.storage.paths import check_folder
from ...agents.storage.run_folder import go_back_to
from ...envs.errors import UserError
from ...envs.user_modules import look_in
from .arguments import CONFIG_MODULE, check_names, parse, with_implied
from .jobs import asks_for_several, do_task, exit_code, own_folder, user_message
from .multirun import arguments_of_sweep, has_basic_sweeper, read_sweep, run_sweep, sweep_to_resume
from .own_classes import with_own_classes
from .resume import checkpoint_to_resume, rewrite_for_resume
from .streams import patient_streams

_STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]


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
    job = _Job(task, config_name)
    with patient_streams():
        try:
            look_in(_folder())  # before Hydra may go to a job's folder
            given = sys.argv[1:] if arguments is None else list(arguments)
            given = with_implied(given, chooses_env=config_name not in ("evaluate", "view"))
            given = with_own_classes(given, config_name)
            if resumable:
                _run_resumable(job, given)
            else:
                check_names(given, config_name)
                _run_hydra(job, given)
        except KeyboardInterrupt:
            print("interrupted; what had been saved before stays", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
        except Exception as error:
            message = user_message(error, before_job=not job.started)
            if message is None:
                raise
            print(message, file=sys.stderr)
            raise SystemExit(exit_code(error)) from None


def program(name: str, function: str, resumable: bool = False) -> Callable[..., None]:
    """The ``main`` of a console script, which runs a function with the configuration ``conf/<name>.yaml``.

    Args:
        name: Of the command, without ``somite-``.
        function: ``module:name``, imported when a job begins: torch takes seconds, ``--help`` does not need
            it. It is given the configuration and, if the command is resumable, the run's folder.
        resumable: Whether ``resume=<run>`` goes on with an earlier run.
    """

    def task(config: DictConfig) -> None:
        module, _, attribute = function.partition(":")
        given = (config, program_folder()) if resumable else (config,)
        getattr(importlib.import_module(module), attribute)(*given)

    def main(arguments: Sequence[str] | None = None) -> None:
        run(task, name, arguments, resumable)

    return main


def program_folder() -> Path:
    """The folder that Hydra chose for this job's output."""
    return Path(HydraConfig.get().runtime.output_dir)


def _folder() -> Path:
    """Where the user stands. Raises UserError: it was removed, or Hydra cannot stand there."""
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise UserError("the folder in which this was started is there no more; go to another one") from error
    check_folder(here)
    return here


class _Job:
    """The task, as Hydra calls it.

    Errors are kept until Hydra is done, which would print them in its own words: so the other jobs of a
    multirun go on, and the message is ours.
    """

    def __init__(self, task: Callable[[DictConfig], None], command: str) -> None:
        self.task, self.command = task, command
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


def _run_resumable(job: _Job, arguments: list[str]) -> None:
    """A run that can be resumed, a sweep of them, or what is left of one."""
    with _early_signals():
        sweep = sweep_to_resume(arguments)
        going_back = checkpoint_to_resume(arguments) if sweep is None else None
        arguments = rewrite_for_resume(arguments) if sweep is None else arguments_of_sweep(sweep, arguments)
        # The keys of a sweep's runs are those of its own choices of groups.
        own = [] if sweep is None else read_sweep(sweep).jobs[0].overrides
        check_names([*own, *arguments], job.command)
        parsed = parse(arguments)
        if sweep is not None or (asks_for_several(parsed) and has_basic_sweeper(parsed, job.command)):
            errors = run_sweep(job.task, job.command, arguments, sweep)
            if errors:
                raise errors[0]
        elif asks_for_several(parsed):
            _run_hydra(job, arguments)
        else:
            with own_folder(arguments, job.command) as arguments:
                for later in go_back_to(*going_back) if going_back is not None else ():
                    print(f"set aside, not gone on from: {later}")
                _run_hydra(job, arguments)


def _run_hydra(job: _Job, arguments: list[str]) -> None:
    # With this variable Hydra gives its exceptions to us, instead of printing and leaving.
    name, path = "HYDRA_FULL_ERROR", f"pkg://{CONFIG_MODULE}"
    before, was = sys.argv, os.environ.get(name)
    sys.argv, os.environ[name] = [before[0], *arguments], "1"
    try:
        hydra.main(version_base="1.3", config_path=path, config_name=job.command)(job.function)()
    finally:
        sys.argv = before
        if was is None:
            del os.environ[name]
        else:
            os.environ[name] = was
    if job.errors:
        raise job.errors[0]


@contextmanager
def _early_signals() -> Iterator[None]:
    """Within it, a signal that asks to stop ends the program, with a sentence and 128 plus its number.

    A run that is made replaces this by its own way, which saves. SIGINT stays Python's.
    """
    previous = {}
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            previous[number] = signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    print(
        f"stopped by {name} before there was anything to save: give the same command again", file=sys.stderr
    )
    raise SystemExit(128 + number)
