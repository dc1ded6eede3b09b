"""Files and folders that may come from a stranger: bounded, regular, and nothing outside them.

JSON and YAML give plain values only; tensors are read by `somite.agents.storage.policy` after their header
has been compared with the network. Nothing that a file says is called, imported or built.
"""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...envs.errors import UserError, one_line
from ...envs.files import read_regular

MOST_ENTRIES = 500_000
"""Files and folders of a run."""

MOST_YAML_BYTES, MOST_YAML_DEPTH, MOST_YAML_VALUES = 2**18, 30, 20_000
"""Of a run's configuration; ours have some thousand bytes."""


def check_links(folder: str | Path) -> None:
    """Refuses a run's folder, which may be missing, in which something leads out of it.

    Raises:
        UserError: A link that leads out, or what is neither file, folder nor link (a pipe, on which a reader
            waits for ever); it is named.
    """
    root, entries = os.path.realpath(folder), 0
    for at, folders, files in os.walk(root):
        entries += len(folders) + len(files)
        if entries > MOST_ENTRIES:
            raise UserError(f"{folder} has more than {MOST_ENTRIES:,} files, which is no run's folder")
        for name in (*folders, *files):
            path = os.path.join(at, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                check_inside(path, root)
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise UserError(f"{path} is neither a file nor a folder; remove it")


def check_inside(path: str | Path, folder: str | Path, kind: type[UserError] = UserError) -> None:
    """Raises ``kind`` of error: a path leads out of a folder, through links or ``..``."""
    root = os.path.realpath(folder)
    if os.path.commonpath([os.path.realpath(path), root]) != root:
        raise kind(
            f"{path} is a link that leads out of {folder}, where nothing is read or written for a run; put "
            "what it leads to in its place"
        )


def read_json(path: Path, most: int, kind: type[UserError] = UserError) -> Any:
    """What a JSON file of ``most`` bytes says.

    Raises:
        UserError: Of ``kind``: it cannot be read, is larger, no regular file, or no JSON.
    """
    try:
        return json.loads(read_regular(path, most, kind).decode("utf-8"))
    except OSError as error:
        raise kind(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise kind(f"{path} is damaged: not JSON ({one_line(str(error))})") from error


def read_yaml(path: Path) -> DictConfig | ListConfig:
    """What a run's configuration, or its list of arguments, says; interpolations stay as they are written.

    Raises:
        UserError: It cannot be read, is larger than any configuration, no regular file, no YAML, or has tags,
            anchors or aliases, which build objects and make a small file large.
    """
    depth = values = 0
    try:
        text = read_regular(path, MOST_YAML_BYTES).decode("utf-8")
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise UserError(f"{path}, line {line}: anchors and aliases are not read")
            if getattr(event, "tag", None) not in (None, "!"):
                raise UserError(f"{path}, line {line}: the tag {event.tag[:100]!r} is not read")
            values += 1
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_YAML_DEPTH or values > MOST_YAML_VALUES:
                raise UserError(f"{path} is larger than the configuration of any run")
        return OmegaConf.load(io.StringIO(text))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {one_line(str(error))[:300]}") from error
