"""``resume=<run>``: goes on with the configuration that a run was started with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ..agents.run_folder import find_run, last_checkpoint
from ..envs.errors import UserError

_KEY = "resume="
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
    run = find_run(given[0][len(_KEY) :].strip("'\""), needs="checkpoints")
    last_checkpoint(run)  # says so now if there is none
    folder, number = _newest_configuration(run)
    _refuse_sections(others, folder / "config.yaml", given[0])
    return [
        "--config-path",
        str(folder.resolve()),
        "--config-name",
        "config",
        f"hydra.run.dir='{_quoted(run.resolve())}'",
        f"hydra.output_subdir=.hydra.{number + 1}",
        *others,
    ]


def _newest_configuration(run: Path) -> tuple[Path, int]:
    numbers = {0: run / ".hydra"}
    for folder in run.glob(".hydra.*"):
        number = folder.name.removeprefix(".hydra.")
        if number.isdecimal():
            numbers[int(number)] = folder
    for number in sorted(numbers, reverse=True):
        if (numbers[number] / "config.yaml").is_file():
            return numbers[number], max(numbers)
    raise UserError(f"{run} cannot be resumed: its configuration, .hydra/config.yaml, is missing")


def _refuse_sections(arguments: Sequence[str], file: Path, given: str) -> None:
    config = OmegaConf.load(file)
    sections = [str(name) for name in config if isinstance(config[name], DictConfig)]
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+~")
        if key in (*sections, "env", "agent", "algorithm", "experiment"):
            raise UserError(
                f"{argument}: a resumed run keeps its {key}; single keys may change, such as "
                f"algorithm.total_steps=5e6. Leave {given} away to start a new run."
            )


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("'", "\\'")
