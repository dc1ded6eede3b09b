"""``resume=<run>``: goes on with the configuration that a run was started with, which may be a stranger's.

Hydra builds what the section ``hydra`` of a configuration names (launcher, log handlers, callbacks), composes
what its ``defaults`` ask for, and looks up environment variables. So a run's own file is never what Hydra
reads: it is given the plain values, once none of that is among them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from ...agents.storage.paths import found_from_run, hydra_quoted, named_run, typed_arguments
from ...agents.storage.run_folder import (
    CHECKPOINTS,
    find_checkpoint,
    find_run,
    last_checkpoint,
    split_checkpoint,
)
from ...agents.storage.untrusted import check_links, read_yaml
from ...envs.errors import UserError, nearest, shown
from ...envs.task_set import values_of
from .arguments import CONFIG_MODULE, SECTIONS, check_targets, key_of, names_own_class, parse

RESUMED = "resumed"
"""Name of the configuration that Hydra composes for a run that goes on."""

_KEY, _ELSEWHERE = "resume=", "compute="
_OF_THE_FOLDER = ("hydra.run.", "hydra.output_subdir.", "hydra.sweep.", "hydra.mode.", "hydra.searchpath.")
_NOTHING = ("", "null", "none", "~")
_SECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_HYDRA = ("hydra", "defaults")
_TARGETS = tuple(f"{section}._target_" for section in SECTIONS)
_SAID_AGAIN: dict[str, Any] = {"files_from": None, "compile_seconds": 5, "address": None, "imports": None}
"""Keys that reach beyond a run's folder, and the values that do not: they are the user's word."""


def resumed_run(arguments: Sequence[str]) -> str | None:
    """The name or path that ``resume=`` names, without quotes; None: no argument speaks of resuming.

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
    """Replaces ``resume=<run>``, if it is there, by the arguments with which Hydra composes that run again.

    The new configuration is stored beside the old one, in ``.hydra.1``, ``.hydra.2``, ...

    Raises:
        UserError: There is no such run or checkpoint, or other arguments would replace a whole section.
    """
    name = resumed_run(arguments)
    if name is None:
        return list(arguments)
    given = f"{_KEY}{name}"
    others = [argument for argument in arguments if not argument.startswith(_KEY)]
    _refuse_options(others, given)
    run, step = split_checkpoint(name)
    run = find_run(run, needs=CHECKPOINTS)
    last_checkpoint(run) if step is None else find_checkpoint(run, step)  # says so now if there is none
    folder = _newest_configuration(run)
    moved = [argument for argument in others if argument.startswith(_ELSEWHERE)]
    others = [argument for argument in others if argument not in moved]
    config = read_saved(run, folder, map(key_of, others))
    if moved:  # where it goes on is the one section that may be another, since it changes no result
        choice, found = moved[-1].removeprefix(_ELSEWHERE), (files(CONFIG_MODULE) / "compute").iterdir()
        choices = {file.name.removesuffix(".yaml"): file for file in found if file.name.endswith(".yaml")}
        if choice not in choices:
            raise UserError(f"compute has no choice {choice!r}; {nearest(choice, choices)}")
        config.compute = OmegaConf.create(choices[choice].read_text(encoding="utf-8"))
    sections = [str(name) for name in config if isinstance(config[name], DictConfig)]
    for argument in others:
        if key_of(argument) in (*sections, *SECTIONS, "experiment"):
            raise UserError(
                f"{argument}: a resumed run keeps its {key_of(argument)}; single keys may change, such as "
                f"algorithm.total_steps=5e6. Leave out {given} to start a new run."
            )
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


def next_configuration(run: Path) -> str:
    """Name of the folder in a run's that the configuration of its next process is stored in."""
    return f".hydra.{max(_configurations(run)) + 1}"


def _configurations(run: Path) -> dict[int, Path]:
    numbered = ((folder.name.removeprefix(".hydra."), folder) for folder in run.glob(".hydra.*"))
    return {0: run / ".hydra"} | {int(number): folder for number, folder in numbered if number.isdecimal()}


def _newest_configuration(run: Path) -> Path:
    for _, folder in sorted(_configurations(run).items(), reverse=True):
        # Hydra writes this file last: without it, the process was killed before the others were whole.
        if (folder / "overrides.yaml").is_file() and (folder / "config.yaml").is_file():
            return folder
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
        if f"{key_of(argument)}.".startswith(_OF_THE_FOLDER):
            raise UserError(f"{given} goes on in the run's own folder; leave out {argument}")


def read_saved(run: Path, folder: Path, given: Iterable[str]) -> DictConfig:
    """The configuration that a run was started with: plain values, with nothing for Hydra in them.

    Args:
        run: Its folder.
        folder: In it, in which its newest configuration and arguments were saved.
        given: Keys that the command line gives, whatever was saved of them.

    Raises:
        UserError: It is damaged, too large, asks Hydra for more than values, builds what is not ours, or
            reaches beyond the run's folder.
    """
    check_links(run)
    given, file = set(given), folder / "config.yaml"
    typed_arguments(run)  # which are told beside every policy that is saved
    config = read_yaml(file)
    if not isinstance(config, DictConfig):
        raise UserError(f"{file}: expected sections and keys, got {type(config).__name__}")
    for name in config:
        if not isinstance(name, str) or name in _OF_HYDRA or not _SECTION.fullmatch(name):
            raise UserError(
                f"{file} has {str(name)[:100]!r}, which is no part of a run; Hydra is configured on the "
                "command line alone"
            )
    for name in SECTIONS:
        if not OmegaConf.is_dict(config._get_node(name)) or config._get_node(name)._is_none():
            raise UserError(f"{file} has no section {name}, which every run has")
    config = OmegaConf.create(found_from_run(OmegaConf.to_container(config), run))
    found = _values(config)
    for key, _, value in found:
        if ("${" in key or (isinstance(value, str) and "${" in value)) and not _is_given(key, given):
            raise UserError(
                f"{file}: {key[:100]} is {str(value)[:100]!r}; nothing is looked up there, give it a value: "
                f"{key[:100]}=<value>"
            )
    check_said_again(config, given, file)
    for key in given.intersection(key for key, _, _ in found):
        OmegaConf.update(config, key, None, merge=False)
    # The user's own classes are checked with what they become.
    own = {key.partition(".")[0] for key in given.intersection(_TARGETS)}
    try:
        check_targets(OmegaConf.masked_copy(config, [name for name in config if name not in own]))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return config


def is_said_again(key: str) -> bool:
    """Whether a key is the user's word, which is not taken from a run's folder."""
    return key.rpartition(".")[2] in _SAID_AGAIN or key in _TARGETS


def check_said_again(config: DictConfig, given: Collection[str], file: Path) -> None:
    """Refuses what reaches beyond a run's folder, unless the user says it himself.

    Args:
        config: As a run, or a run of a sweep, saved it.
        given: Keys of the command line.
        file: In which it was saved, for the message.

    Raises:
        UserError: With what to type.
    """
    check_own_classes([(key, value) for key, _, value in _values(config)], given, file)
    for key, name, value in _values(config):
        if name not in _SAID_AGAIN or value in (None, _SAID_AGAIN[name], []) or _is_given(key, given):
            continue
        typed = f"[{','.join(map(str, value))}]" if isinstance(value, list) else "<value>"
        raise UserError(
            f"{file}: {key} is {str(value)[:100]!r}, which reaches beyond the run's folder and is not taken "
            f"from it; say it again: {key}={typed[:200]}, or {key}=null"
        )


def check_own_classes(pairs: Iterable[tuple[str, Any]], given: Collection[str], file: Path) -> None:
    """Refuses classes of the user's own that he does not name again. Raises UserError, with what to type."""
    left = [(key, value) for key, value in pairs if names_own_class(key, value) and not _is_given(key, given)]
    if left:
        key, value = left[0]
        again = " ".join(f"{key}={value[:200]}" for key, value in dict(left).items())
        raise UserError(
            f"{file}: {key} is {value[:100]!r}, a class of a module that is not of this package; if you "
            f"trust it, say it again: {again}"
        )


def _is_given(key: str, given: Collection[str]) -> bool:
    """Whether the command line replaces a key, or the whole list that it stands in."""
    return any(f"{key}.".startswith(f"{replaced}.") for replaced in given)


def _values(config: DictConfig) -> list[tuple[str, str, Any]]:
    """Where each value stands, its key, and the value as it is written."""
    plain = OmegaConf.to_container(config)
    found = values_of({name: node for name, node in plain.items() if name not in _OF_HYDRA})
    return [(key, name, value) for key, name, value in found if key]
