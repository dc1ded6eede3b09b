"""``resume=<run>``: goes on with the configuration that a run was started with."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from ..agents.run_folder import find_run, last_checkpoint, list_checkpoints, split_checkpoint, step_of
from ..envs.errors import UserError, nearest
from .lookup import CONFIG_MODULE
from .saved_configuration import read_saved

_KEY = "resume="
_ELSEWHERE = "compute="
_NAME = "resumed"
"""Of the configuration that Hydra composes for a resumed run."""

_MULTIRUN = ("-m", "--multirun")
_OWN_CONFIGURATION = ("--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd")


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
    given = [argument for argument in arguments if argument.startswith(_KEY)]
    if not given:
        return list(arguments)
    others = [argument for argument in arguments if not argument.startswith(_KEY)]
    if len(given) > 1:
        raise UserError(f"one run is resumed at a time, not {' and '.join(given)}")
    for argument in others:
        if argument in _MULTIRUN:
            raise UserError(f"{given[0]} goes on with one run, so it does not go together with {argument}")
        if argument.split("=")[0] in _OWN_CONFIGURATION:
            raise UserError(f"{given[0]} takes the run's own configuration, not {argument}")
    named, _ = split_checkpoint(given[0][len(_KEY) :].strip("'\""))
    run = find_run(named, needs="checkpoints")
    last_checkpoint(run)  # says so now if there is none
    folder = _newest_configuration(run)
    moved = [argument for argument in others if argument.startswith(_ELSEWHERE)]
    others = [argument for argument in others if argument not in moved]
    keys = [argument.partition("=")[0].lstrip("+~") for argument in others]
    config = read_saved(run, folder, keys)
    if moved:
        config.compute = _choice_of_compute(moved[-1].removeprefix(_ELSEWHERE))
    _refuse_sections(others, config, given[0])
    # In memory and beside our own groups: no file of the run's folder is in Hydra's search path.
    ConfigStore.instance().store(name=_NAME, node=config)
    return [
        "--config-name",
        _NAME,
        f"hydra.run.dir='{_quoted(run.resolve())}'",
        f"hydra.output_subdir={next_configuration(run)}",
        *others,
    ]


def checkpoint_to_resume(arguments: Sequence[str]) -> tuple[Path, int] | None:
    """The run and the step of ``resume=<run>/checkpoints/<step>``; None if the last checkpoint is meant.

    Args:
        arguments: Of the command line, without the program's name.

    Raises:
        UserError: The run does not exist, or has no such checkpoint.
    """
    for argument in arguments:
        if argument.startswith(_KEY):
            named, step = split_checkpoint(argument[len(_KEY) :].strip("'\""))
            if step is not None:
                run = find_run(named, needs="checkpoints")
                steps = [step_of(checkpoint) for checkpoint in list_checkpoints(run)]
                if step not in steps:
                    raise UserError(
                        f"{run} has no checkpoint of step {step}; {nearest(str(step), map(str, steps))}"
                    )
                return run, step
    return None


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


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("'", "\\'")
