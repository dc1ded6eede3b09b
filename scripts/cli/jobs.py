"""One job of a command: its folder, found, claimed and held; its task; and what is said when it fails."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...agents.storage.atomic import replace_file
from ...agents.storage.paths import hydra_quoted, keep_where, make_absolute, relative_to_run
from ...agents.storage.run_folder import LOCK, claim_folder, hold, list_checkpoints
from ...agents.storage.save_errors import OF_THE_DISK
from ...agents.training.faults import RunFault
from ...envs.errors import UserError, nearest
from .arguments import configuration, key_of, parse
from .resume import RESUMED
from .streams import guard_log_files
from .values import check_values

Task = Callable[[DictConfig], None]

_DIR = "hydra.run.dir"
_OF_HYDRA = {".hydra", "train.log"}
"""What it leaves in the folder of a run that has not begun."""


def asks_for_runs(parsed: argparse.Namespace) -> bool:
    """Whether arguments, as Hydra parses them, start a run or several, and not help or a listing."""
    shows = (parsed.help, parsed.hydra_help, parsed.cfg, parsed.info, parsed.shell_completion)
    return not any(shows)


def asks_for_several(parsed: argparse.Namespace) -> bool:
    """Whether they ask for a multirun."""
    is_multirun = parsed.multirun or any(o.upper() == "HYDRA.MODE=MULTIRUN" for o in parsed.overrides)
    return asks_for_runs(parsed) and is_multirun


@contextmanager
def own_folder(arguments: Sequence[str], config_name: str) -> Iterator[list[str]]:
    """Keeps the folder of the run that the arguments ask for, so that no other process writes into it.

    A folder that the arguments name may be there; any other is made for this run alone. One that was made and
    is still empty at the end is removed, and so is that of a run that was refused before it began.

    Yields:
        The arguments, with the folder among them; as they were if they ask for no run.

    Raises:
        UserError: An invalid value, or a folder that another process uses or that cannot be written into.
    """
    parsed = parse(arguments)
    if not asks_for_runs(parsed):
        yield list(arguments)
        return
    named = any(argument.startswith(f"{_DIR}=") for argument in parsed.overrides)
    with configuration(parsed):
        name = parsed.config_name or config_name
        composed = hydra.compose(name, parsed.overrides, return_hydra_config=True)
        with hydra_knows(composed):
            folder = Path(str(composed.hydra.run.dir))
            check_composed(composed, config_name, folder)
    there = folder.is_dir()
    if parsed.config_name == RESUMED and not list_checkpoints(folder):
        # Never a new one in silence.
        raise UserError(f"{folder} has no checkpoint, so it is not the run to resume")
    try:
        if named:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = claim_folder(folder)
    except OSError as error:
        raise UserError(f"the run's folder {folder} cannot be made: {error.strerror}") from error
    nothing = {LOCK}
    try:
        with hold(folder):
            yield [*arguments, *([] if named else [f"{_DIR}={hydra_quoted(folder)}"])]
    except UserError:
        nothing |= _OF_HYDRA
        raise
    finally:
        if not there and {path.name for path in folder.iterdir()} <= nothing:
            with suppress(OSError):  # what ended the run may be that nothing can be written there
                shutil.rmtree(folder)


@contextmanager
def hydra_knows(config: DictConfig) -> Iterator[None]:
    """Within it, what a configuration says of itself (``${hydra:...}``) can be resolved."""
    known = HydraConfig.instance()
    before = known.cfg
    known.set_config(config)
    try:
        yield
    finally:
        known.cfg = before


def check_composed(composed: DictConfig, command: str, folder: Path) -> None:
    """`check_values` of a configuration that Hydra has composed and not yet given to a job."""
    _check_families(composed)
    plain = OmegaConf.masked_copy(composed, [name for name in composed if name != "hydra"])
    make_absolute(plain, Path.cwd())
    with hydra_knows(composed):
        check_values(plain, command, folder)


def _check_families(composed: DictConfig) -> None:
    """Raises UserError: settings are given for a family that the environment does not have."""
    if "families" not in composed.get("env", {}):
        return
    families = OmegaConf.to_container(composed.env).get("families")
    families = [families] if isinstance(families, str) else families or []
    for text in composed.hydra.overrides.task:
        env, settings, family, *_ = [*key_of(text).split("."), "", ""]
        if (env, settings) == ("env", "settings") and family and family not in families:
            raise UserError(f"{text}: env.families={families} does not have it; {nearest(family, families)}")


def do_task(task: Task, config: DictConfig, command: str) -> None:
    """Does a task with a composed configuration, if its values are valid; Raises UserError if they are not.

    Hydra's record of the run is kept as the other files that it saves: with paths relative to its folder.
    """
    guard_log_files()
    known = HydraConfig.get()
    make_absolute(config, Path(known.runtime.cwd))
    run, plain = Path(known.runtime.output_dir), OmegaConf.to_container(config)
    saved = relative_to_run(plain, run)
    if known.output_subdir is not None and saved != plain:
        try:
            text = OmegaConf.to_yaml(OmegaConf.create(saved))
            replace_file(run / known.output_subdir / "config.yaml", text.encode("utf-8"))
            keep_where(plain, run)
        except OSError as error:
            raise UserError(f"{error.filename or run} cannot be written: {error.strerror}") from error
    check_values(config, command, run)
    task(config)


def exit_code(error: BaseException) -> int:
    """With which a program ends, its message printed: 1 for a run that cannot go on, 2 for wrong input."""
    return 1 if isinstance(error, RunFault) else 2


def user_message(error: BaseException, before_job: bool = False) -> str | None:
    """The message if it says all that helps, None if it is a fault that needs its trace.

    ``before_job``: it happened while Hydra composed the configuration and made the folders.
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
