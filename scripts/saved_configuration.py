"""The configuration that a run was started with, read as plain values: the run may come from a stranger.

Hydra builds what the section ``hydra`` of a configuration names (launcher, log handlers, callbacks), composes
what its ``defaults`` ask for, and looks up environment variables. So a run's own file is never what Hydra
reads: it is given the values, once none of that is among them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..agents.storage.paths import found_from_run
from ..agents.storage.untrusted import check_links, read_regular
from ..agents.training.earlier import carried_over
from ..envs.errors import UserError, one_line
from .lookup import check_targets

MOST_BYTES, MOST_DEPTH, MOST_VALUES = 2**18, 30, 20_000
"""Of a run's configuration; ours have some thousand bytes."""

_SECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_HYDRA = ("hydra", "defaults")
_SECTIONS = ("env", "agent", "algorithm")
_SAID_AGAIN: dict[str, Any] = {"files_from": None, "compile_seconds": 5, "address": None, "imports": None}
"""Keys that reach beyond a run's folder, and the values that do not: they are the user's word."""


def is_said_again(key: str) -> bool:
    """Whether a key is the user's word, which is not taken from a run's folder."""
    return key.rpartition(".")[2] in _SAID_AGAIN


def check_said_again(config: DictConfig, given: Collection[str], file: Path) -> None:
    """Refuses what reaches beyond a run's folder, unless the user says it himself.

    Args:
        config: as a run, or a run of a sweep, saved it.
        given: keys of the command line.
        file: where it was saved, for the message.

    Raises:
        UserError: with what to type.
    """
    for key, name, value in _values(config):
        if name not in _SAID_AGAIN or value in (None, _SAID_AGAIN[name], []) or _is_given(key, given):
            continue
        typed = f"[{','.join(map(str, value))}]" if isinstance(value, list) else "<value>"
        raise UserError(
            f"{file}: {key} is {str(value)[:100]!r}, which reaches beyond the run's folder and is not taken "
            f"from it; say it again: {key}={typed[:200]}, or {key}=null"
        )


def _is_given(key: str, given: Collection[str]) -> bool:
    """Whether the command line replaces a key, or the whole list that it stands in."""
    return key in given or any(key.startswith(f"{replaced}.") for replaced in given)


def read_saved(run: Path, folder: Path, given: Iterable[str]) -> DictConfig:
    """What a run was started with.

    Args:
        run: its folder.
        folder: in it, in which its newest configuration and arguments were saved.
        given: keys that the command line gives, whatever was saved of them.

    Returns:
        Plain values, with nothing for Hydra in them; of an earlier version with the keys of today.

    Raises:
        UserError: something in the run's folder leads out of it; or a configuration that is damaged, too
            large, asks Hydra for more than values, builds what is not ours, or reaches beyond the folder.
    """
    check_links(run)
    given = set(given)
    _read_arguments(folder / "overrides.yaml")
    file = folder / "config.yaml"
    config = _read_yaml(file)
    if not isinstance(config, DictConfig):
        raise UserError(f"{file}: expected sections and keys, got {type(config).__name__}")
    for name in config:
        if not isinstance(name, str) or name in _OF_HYDRA or not _SECTION.fullmatch(name):
            raise UserError(
                f"{file} has {str(name)[:100]!r}, which is no part of a run; Hydra is configured on the "
                "command line alone"
            )
    for name in _SECTIONS:
        if not OmegaConf.is_dict(config._get_node(name)) or config._get_node(name)._is_none():
            raise UserError(f"{file} has no section {name}, which every run has")
    config = OmegaConf.create(found_from_run(carried_over(OmegaConf.to_container(config)), run))
    for key, _, value in _values(config):
        if _is_given(key, given):
            continue  # what was saved is replaced
        if isinstance(value, str) and "${" in value:
            raise UserError(
                f"{file}: {key} is {value[:100]!r}; nothing is looked up there, give it a value: {key}="
            )
    check_said_again(config, given, file)
    for key in given:
        if OmegaConf.select(_blank(config), key, default=None) is not None:
            OmegaConf.update(config, key, None, merge=False)
    try:
        check_targets(config)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return config


def _blank(config: DictConfig) -> DictConfig:
    """The same with words in place of what could be an interpolation."""
    return OmegaConf.create(_escaped(OmegaConf.to_container(config)))


def _escaped(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _escaped(value) for key, value in node.items()}
    return [_escaped(value) for value in node] if isinstance(node, list) else 0


def _values(config: DictConfig) -> Iterator[tuple[str, str, Any]]:
    """Where each value stands, its key, and the value as it is written."""

    def visit(node: Any, where: str, name: str) -> Iterator[tuple[str, str, Any]]:
        if isinstance(node, dict):
            for key, value in node.items():
                if isinstance(key, str) and "${" in key:
                    yield where, name, key
                yield from visit(value, f"{where}.{key}" if where else str(key), str(key))
        elif isinstance(node, list):
            yield where, name, node
            for number, value in enumerate(node):
                yield from visit(value, f"{where}.{number}", name)
        else:
            yield where, name, node

    for section, node in OmegaConf.to_container(config).items():
        if section not in _OF_HYDRA:
            yield from visit(node, str(section), str(section))


def _read_arguments(file: Path) -> None:
    """Refuses a list of arguments, told beside every policy that is saved, that is something else."""
    arguments = _read_yaml(file)
    if not isinstance(arguments, ListConfig) or not all(
        isinstance(argument, str) for argument in OmegaConf.to_container(arguments)
    ):
        raise UserError(f"{file}: expected the arguments of a command line, each a text")


def _read_yaml(file: Path) -> DictConfig | ListConfig:
    try:
        text = read_regular(file, MOST_BYTES).decode("utf-8")
        _check_events(text, file)
        return OmegaConf.load(io.StringIO(text))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged: {one_line(str(error))[:300]}") from error


def _check_events(text: str, file: Path) -> None:
    """Refuses what makes a small file large or builds objects: aliases, tags, and depth."""
    depth = values = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise UserError(f"{file}, line {event.start_mark.line + 1}: anchors and aliases are not read")
        if getattr(event, "tag", None) not in (None, "!"):
            raise UserError(
                f"{file}, line {event.start_mark.line + 1}: the tag {event.tag[:100]!r} is not read"
            )
        values += 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH or values > MOST_VALUES:
            raise UserError(f"{file} is larger than the configuration of any run")
