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
from omegaconf import DictConfig

from ...agents.storage.paths import check_folder
from ...agents.storage.run_folder import CHECKPOINTS, find_run, go_back_to, split_checkpoint
from ...envs.errors import UserError
from ...envs.user_modules import look_in
from .arguments import CONFIG_MODULE, check_names, parse, with_implied, with_own_classes
from .jobs import Task, asks_for_several, do_task, exit_code, own_folder, user_message
from .multirun import arguments_of_sweep, find_sweep, run_sweep
from .resume import resumed_run, rewrite_for_resume
from .streams import patient_streams

_STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]


def run(
    task: Task,
    config_name: str,
    arguments: Sequence[str] | None = None,
    resumable: bool = True,
    prepare: Callable[[list[str]], list[str]] = list,
) -> None:
    """Runs a task under Hydra with the arguments of the command line.

    Args:
        task: What to do with the composed configuration.
        config_name: The primary configuration in ``conf/``.
        arguments: Of the command line, without the program's name; ``sys.argv`` if None.
        resumable: Whether ``resume=<run>`` goes on with an earlier run.
        prepare: Makes them those that Hydra understands.

    Raises:
        SystemExit: Its message printed, with code 2 after a `UserError` or a wrong argument, 1 after a
            `RunFault`; with 130 after Ctrl-C.
    """
    # Before torch starts: see somite.agents.device.set_threads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # Hydra gives its exceptions to us, instead of printing and leaving.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with patient_streams():
        try:
            look_in(_folder())  # before Hydra may go to a job's folder
            given = prepare(sys.argv[1:] if arguments is None else list(arguments))
            given = with_implied(given, chooses_env=config_name not in ("evaluate", "view"))
            given = with_own_classes(given, config_name)
            if resumable:
                errors = _run_resumable(task, config_name, given)
            else:
                check_names(given, config_name)
                errors = _run_hydra(task, config_name, given)
        except KeyboardInterrupt:
            print("interrupted; what had been saved before stays", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
        except Exception as error:
            _leave(error, in_job=False)
        if errors:
            _leave(errors[0], in_job=True)


def program(
    name: str,
    function: str,
    resumable: bool = False,
    prepare: Callable[[list[str]], list[str]] = list,
) -> Callable[..., None]:
    """The ``main`` of a console script, which runs a function with the configuration ``conf/<name>.yaml``.

    Args:
        name: Of the command, without ``somite-``.
        function: ``module:name``, imported when a job begins: torch takes seconds, ``--help`` does not need
            it. It is given the configuration and, if the command is resumable, the run's folder.
        resumable: As of `run`.
        prepare: As of `run`.
    """

    def task(config: DictConfig) -> None:
        module, _, attribute = function.partition(":")
        given = (config, program_folder()) if resumable else (config,)
        getattr(importlib.import_module(module), attribute)(*given)

    def main(arguments: Sequence[str] | None = None) -> None:
        run(task, name, arguments, resumable, prepare)

    return main


def program_folder() -> Path:
    """The folder that Hydra chose for this job's output."""
    return Path(HydraConfig.get().runtime.output_dir)


def _folder() -> Path:
    """Where the user stands. Raises UserError: it was removed, or Hydra cannot stand there."""
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise UserError("the folder that you are in has been removed; change to another one") from error
    check_folder(here)
    return here


def _leave(error: Exception, in_job: bool) -> None:
    """Ends the program with a message, or raises the error if it is a fault that needs its trace."""
    message = user_message(error, before_job=not in_job)
    if message is None:
        raise error
    print(message, file=sys.stderr)
    raise SystemExit(exit_code(error)) from None


def _run_resumable(task: Task, config_name: str, arguments: list[str]) -> list[Exception]:
    """A run that can be resumed, a sweep of them, or what is left of one; errors of jobs that failed."""
    with _early_signals():
        name = resumed_run(arguments)
        sweep, (run, step) = None if name is None else find_sweep(name), split_checkpoint(name or "")
        if sweep is not None:
            arguments = arguments_of_sweep(sweep, arguments)
        else:
            arguments = rewrite_for_resume(arguments)
        check_names(arguments, config_name)
        if sweep is not None or asks_for_several(parse(arguments)):
            errors = run_sweep(task, config_name, arguments, sweep)
            return _run_hydra(task, config_name, arguments) if errors is None else errors
        with own_folder(arguments, config_name) as arguments:
            if step is not None:
                for later in go_back_to(find_run(run, needs=CHECKPOINTS), step):
                    print(f"set aside: {later}")
            errors = _run_hydra(task, config_name, arguments)
            if errors and isinstance(errors[0], UserError):
                raise errors[0]  # nothing is left of a run that was refused before it began
            return errors


def _run_hydra(task: Task, config_name: str, arguments: list[str]) -> list[Exception]:
    """Errors of jobs are kept from Hydra, which would print them in its words; the other jobs go on."""
    errors = []

    def job(config: DictConfig) -> None:
        try:
            do_task(task, config, config_name)
        except Exception as error:
            errors.append(error)
            number = HydraConfig.get().job.get("num")
            if number is not None:
                message = user_message(error) or f"{type(error).__name__}: {error}"
                print(f"job {number} failed: {message}", file=sys.stderr)

    before, path = sys.argv, f"pkg://{CONFIG_MODULE}"
    sys.argv = [before[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=path, config_name=config_name)(job)()
    finally:
        sys.argv = before
    return errors


@contextmanager
def _early_signals() -> Iterator[None]:
    """Within it, a signal that asks to stop ends the program, with a sentence and 128 plus its number.

    A run that is made replaces this by its own way, which saves. SIGINT stays Python's.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        said = f"stopped by {name} before there was anything to save: give the same command again"
        print(said, file=sys.stderr)
        raise SystemExit(128 + number)

    previous = {n: signal.getsignal(n) for n in _STOPS}
    previous = {n: handler for n, handler in previous.items() if handler is not signal.SIG_IGN}  # nohup
    try:
        for number in previous:
            signal.signal(number, leave)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
