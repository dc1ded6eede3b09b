"""A run's folder, found, claimed and held before Hydra writes into it."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..agents.storage.paths import hydra_quoted, make_absolute
from ..agents.storage.run_folder import LOCK, claim_folder, hold, list_checkpoints
from ..envs.errors import UserError
from .lookup import configuration, parse
from .values import check_values

_KEY = "hydra.run.dir"
RESUMED = "resumed"
"""Name of the configuration that Hydra composes for a run that goes on."""
_OF_HYDRA = {".hydra", "train.log"}
"""What it leaves in the folder of a run that has not begun."""


@contextmanager
def own_folder(arguments: Sequence[str], config_name: str) -> Iterator[list[str]]:
    """Keeps the folder of the run that the arguments ask for, so that no other process writes into it.

    A folder that the arguments name may be there; any other is made for this run alone, under the next free
    microsecond where another run began in the same one.

    Args:
        arguments: Of the command line, looked up before; without the program's name.
        config_name: The primary configuration in ``conf/``.

    Yields:
        The arguments, with the folder among them; as they were if they ask for no run. A folder that was made
        and is still empty at the end is removed, and so is that of a run that was refused before it began.

    Raises:
        UserError: A value that is not valid, another process uses the folder, or nothing can be written
            there.
    """
    parsed = parse(arguments)
    if not asks_for_runs(parsed):
        yield list(arguments)
        return
    named = any(argument.startswith(f"{_KEY}=") for argument in parsed.overrides)
    folder = _composed_folder(parsed, config_name)
    there = folder.is_dir()
    if parsed.config_name == RESUMED and not list_checkpoints(folder):
        raise UserError(f"{folder} is not the run that was to be gone on with")  # never a new one in silence
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
            yield [*arguments, *([] if named else [f"{_KEY}={hydra_quoted(folder)}"])]
    except UserError:
        nothing |= _OF_HYDRA
        raise
    finally:
        if not there and {path.name for path in folder.iterdir()} <= nothing:
            with suppress(OSError):  # what ended the run may be that nothing can be written there
                shutil.rmtree(folder)


def asks_for_runs(parsed: argparse.Namespace) -> bool:
    """Whether arguments, as Hydra parses them, start a run or several, and not help or a listing."""
    shows = (parsed.help, parsed.hydra_help, parsed.cfg, parsed.info, parsed.shell_completion)
    return not any(shows)


def asks_for_several(parsed: argparse.Namespace) -> bool:
    """Whether they ask for a multirun."""
    mode = "hydra.mode=MULTIRUN"
    return asks_for_runs(parsed) and (
        parsed.multirun or any(o.upper() == mode.upper() for o in parsed.overrides)
    )


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


def _composed_folder(parsed: argparse.Namespace, config_name: str) -> Path:
    with configuration(parsed):
        name = parsed.config_name or config_name
        composed = hydra.compose(name, parsed.overrides, return_hydra_config=True)
        with hydra_knows(composed):
            plain = OmegaConf.masked_copy(composed, [name for name in composed if name != "hydra"])
            folder = Path(str(composed.hydra.run.dir))
            make_absolute(plain, Path.cwd())
            check_values(plain, config_name, folder)
            return folder
