"""``resume=<run>``: goes on with the configuration that a run was started with."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from ..agents.storage.paths import hydra_quoted, named_run
from ..agents.storage.run_folder import find_run, last_checkpoint, list_checkpoints, split_checkpoint, step_of
from ..envs.errors import UserError, nearest, shown
from .lookup import CONFIG_MODULE, parse
from .run_folders import RESUMED
from .saved_configuration import read_saved

_KEY = "resume="
_ELSEWHERE = "compute="
_OF_THE_FOLDER = ("hydra.run", "hydra.output_subdir", "hydra.sweep", "hydra.mode", "hydra.searchpath")
_NOTHING = ("", "null", "none", "~")


def resumed_run(arguments: Sequence[str]) -> str | None:
    """What ``resume=`` names, if it is among the arguments.

    Args:
        arguments: Of the command line, without the program's name.

    Returns:
        The name or path, without quotes; None: no argument speaks of resuming.

    Raises:
        UserError: One does, but is not ``resume=<run>``, so that a new run would be started.
    """
    found = []
    for argument in arguments:
        if argument.startswith(_KEY):
            name = named_run(argument.removeprefix(_KEY), Path.cwd())
            if name.strip().lower() in _NOTHING:
                raise UserError(f"{shown(argument)} names no run; say resume=last, or the run's folder")
            found.append((argument, name))
            continue
        letters = "".join(c for c in unicodedata.normalize("NFKC", argument.lower()) if c.isalpha())
        if letters.startswith("resume"):
            raise UserError(
                f"{shown(argument)!r} resumes no run: that is written resume=<run>, for example resume=last"
            )
    if len(found) > 1:
        raise UserError(f"one run is resumed at a time, not {' and '.join(given for given, _ in found)}")
    return found[0][1] if found else None


def rewrite_for_resume(arguments: Sequence[str]) -> list[str]:
    """Replaces ``resume=<run>`` by the arguments with which Hydra composes that run again.

    Args:
        arguments: Of the command line, without the program's name.

    Returns:
        The arguments, unchanged if none of them is ``resume=``. The new configuration is stored beside the
        old one, in ``.hydra.1``, ``.hydra.2``, ..., and the newest of them is gone on from.

    Raises:
        UserError: If the run does not exist or has no checkpoint, or if other arguments would replace
            a whole section of its configuration.
    """
    name = resumed_run(arguments)
    if name is None:
        return list(arguments)
    given = f"{_KEY}{name}"
    others = [argument for argument in arguments if not argument.startswith(_KEY)]
    _refuse_options(others, given)
    named, _ = split_checkpoint(name)
    run = find_run(named, needs="checkpoints")
    last_checkpoint(run)  # says so now if there is none
    folder = _newest_configuration(run)
    moved = [argument for argument in others if argument.startswith(_ELSEWHERE)]
    others = [argument for argument in others if argument not in moved]
    keys = [argument.partition("=")[0].lstrip("+~") for argument in others]
    config = read_saved(run, folder, keys)
    if moved:
        config.compute = _choice_of_compute(moved[-1].removeprefix(_ELSEWHERE))
    _refuse_sections(others, config, given)
    # In memory and beside our own groups: no file of the run's folder is in Hydra's search path.
    ConfigStore.instance().store(name=RESUMED, node=config)
    return [
        "--config-name",
        RESUMED,
        f"hydra.run.dir={hydra_quoted(run.resolve())}",
        f"hydra.output_subdir={next_configuration(run)}",
        "hydra.job.name=train",  # after which the log file is called
        *others,
    ]


def checkpoint_to_resume(arguments: Sequence[str]) -> tuple[Path, int] | None:
    """The run and the step of ``resume=<run>/checkpoints/<step>``; None if the last checkpoint is meant.

    Args:
        arguments: Of the command line, without the program's name.

    Raises:
        UserError: The run does not exist, or has no such checkpoint.
    """
    named, step = split_checkpoint(resumed_run(arguments) or "")
    if step is None:
        return None
    run = find_run(named, needs="checkpoints")
    steps = [step_of(checkpoint) for checkpoint in list_checkpoints(run)]
    if step not in steps:
        raise UserError(f"{run} has no checkpoint of step {step}; {nearest(str(step), map(str, steps))}")
    return run, step


def next_configuration(run: Path) -> str:
    """Name of the folder in a run's that the configuration of its next process is stored in."""
    return f".hydra.{max(_configurations(run)) + 1}"


def _configurations(run: Path) -> dict[int, Path]:
    numbers = {0: run / ".hydra"}
    for folder in run.glob(".hydra.*"):
        number = folder.name.removeprefix(".hydra.")
        if number.isdecimal():
            numbers[int(number)] = folder
    return numbers


def _newest_configuration(run: Path) -> Path:
    numbers = _configurations(run)
    for number in sorted(numbers, reverse=True):
        # Hydra writes this file last: without it, the process was killed before the others were whole.
        whole = (numbers[number] / "overrides.yaml").is_file()
        if whole and (numbers[number] / "config.yaml").is_file():
            return numbers[number]
    raise UserError(f"{run} cannot be resumed: its configuration, .hydra/config.yaml, is missing")


def _refuse_options(arguments: Sequence[str], given: str) -> None:
    """Raises UserError: something beside ``resume=`` would put what goes on into another folder."""
    parsed = parse(arguments)
    options = " ".join(argument for argument in arguments if argument.startswith("-"))
    if parsed.multirun:
        raise UserError(f"{given} goes on with one run, so it does not go together with {options}")
    if parsed.config_name or parsed.config_path or parsed.config_dir or parsed.experimental_rerun:
        raise UserError(f"{given} takes the run's own configuration, not {options}")
    for argument in parsed.overrides:
        key = argument.partition("=")[0].lstrip("+~")
        if any(key == name or key.startswith(f"{name}.") for name in _OF_THE_FOLDER):
            raise UserError(f"{given} goes on in the run's own folder; leave {argument} away")


def _refuse_sections(arguments: Sequence[str], config: DictConfig, given: str) -> None:
    sections = [str(name) for name in config if isinstance(config[name], DictConfig)]
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+~")
        if key in (*sections, "env", "agent", "algorithm", "experiment"):
            raise UserError(
                f"{argument}: a resumed run keeps its {key}; single keys may change, such as "
                f"algorithm.total_steps=5e6. Leave {given} away to start a new run."
            )


def _choice_of_compute(choice: str) -> DictConfig:
    """Where a run goes on: the one section that may be another, since it changes no result."""
    folder = files(CONFIG_MODULE) / "compute"
    choices = [file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")]
    if choice not in choices:
        raise UserError(f"compute cannot be {choice!r}; {nearest(choice, sorted(choices))}")
    return OmegaConf.create((folder / f"{choice}.yaml").read_text(encoding="utf-8"))
