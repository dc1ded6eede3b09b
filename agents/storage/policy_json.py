"""``policy.json``: what a saved policy says about itself, read without its tensors."""

from __future__ import annotations

import fnmatch
import functools
import glob
import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import ListConfig

from ...envs.errors import UserError, nearest, one_line
from ...envs.tokens import CONTRACT_VERSION
from ..bundled import PREFIX, bundled_folder, bundled_names
from .atomic import standing
from .policy_schema import check_description
from .run_folder import ROOT, find_run
from .untrusted import check_inside, read_regular

FORMAT_VERSION = 1
"""Raised when ``policy.json`` changes so that older code would misread it."""

TENSORS, DESCRIPTION = "policy.safetensors", "policy.json"
MOST_BYTES = 8 * 2**20
"""Of a ``policy.json``; ours have some ten thousand."""


class CheckpointError(UserError):
    """A policy folder that is missing, damaged, or made by another version."""


def read_policy_json(folder: str | Path) -> dict[str, Any]:
    """Reads the description of a saved policy without its tensors.

    Args:
        folder: A ``policy/`` folder or a run folder.

    Returns:
        The content of ``policy.json``, its versions and required keys checked.

    Raises:
        CheckpointError: If the folder is missing, or its description damaged or of another version.
    """
    return read_description(find_policy_folder(folder) / DESCRIPTION)


def find_policy_folder(folder: str | Path) -> Path:
    """The folder that holds ``policy.json``.

    Args:
        folder: A ``policy/`` folder, or a run folder with one inside.

    Returns:
        Its path.

    Raises:
        CheckpointError: If neither is there, with the nearest names that are; or if its files are links
            that lead out of the folder.
    """
    folder = Path(folder)
    places = [standing(folder), standing(folder / "policy")]
    for place in places:
        if (place / DESCRIPTION).is_file():
            # What stands in for a policy that is being replaced lies beside it.
            root = folder.parent if place == standing(folder) != folder else folder
            for name in (DESCRIPTION, TENSORS):
                check_inside(place / name, root, CheckpointError)
            return place
    if any(place.is_dir() and (place / TENSORS).is_file() for place in places):
        raise CheckpointError(f"{folder} has {TENSORS} but no {DESCRIPTION}, which says what to build.")
    if folder.is_dir():
        raise CheckpointError(
            f"{folder} holds no policy: expected {DESCRIPTION} and {TENSORS}, there or in a folder policy/."
        )
    beside = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
    beside = [name for name in beside if not name.startswith(".")]
    raise CheckpointError(f"There is no folder {folder}. In {folder.parent}, {nearest(folder.name, beside)}")


def policy_folders(run: Any) -> list[Path]:
    """The policy folders of the key ``run``: a name, a path, a pattern such as ``runs/*``, or a list.

    Raises:
        UserError: one of them is not there, with the nearest names.
    """
    runs = list(run) if isinstance(run, (ListConfig, list, tuple)) else [run]
    return [policy_folder_of(name) for given in runs for name in _expanded(str(given))]


def _expanded(run: str) -> list[str]:
    """The folders that a pattern such as ``runs/*`` means, those with a policy; any other name as it is."""
    if not set(run) & set("*?[") or any(Path(root, run).is_dir() for root in (".", ROOT)):
        return [run]
    if run.startswith(PREFIX):
        return [PREFIX + name for name in fnmatch.filter(bundled_names(), run.removeprefix(PREFIX))] or [run]
    found = sorted(path for path in glob.glob(run) if standing(Path(path) / "policy").is_dir())
    if not found:
        plain = re.sub(r"\[([*?[])\]", r"\1", run)  # as it was before glob.escape
        raise UserError(f"no folder that matches {plain} has a policy/")
    return found


def policy_folder_of(run: str) -> Path:
    """The policy folder of a run's name, ``last``, a path to a run or a policy, or ``bundled/<name>``.

    Raises:
        UserError: there is none, with the nearest names.
    """
    folder = Path(run)
    if run.startswith(PREFIX) and not folder.is_dir():
        name = run.removeprefix(PREFIX)
        if name not in bundled_names():
            raise UserError(f"there is no bundled agent {name!r}; {nearest(name, bundled_names())}")
        return bundled_folder(name)
    return find_policy_folder(folder if folder.is_dir() else find_run(run))


def read_description(file: Path) -> dict[str, Any]:
    """Reads a ``policy.json``.

    Args:
        file: Its path.

    Returns:
        Its content, with the versions that this code reads and every required key.

    Raises:
        CheckpointError: If it is missing, damaged, or of another version.
    """
    try:
        data = read_regular(file, MOST_BYTES, CheckpointError)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        values = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: not JSON ({one_line(str(error))}).") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: expected a JSON object, got {type(values).__name__}.")
    for key, supported in (("format", FORMAT_VERSION), ("contract", CONTRACT_VERSION)):
        found = values.get(key)
        if type(found) is not int or found != supported:
            newer = type(found) is int and found > supported
            advice = "Install a newer Somite." if newer else "It must be trained again or converted."
            raise CheckpointError(
                f"{file} has {key} version {repr(found)[:100]}; this Somite ({installed_version('somite')}) "
                f"reads {supported}. {advice}"
            )
    try:
        check_description(values)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}.") from error
    return values


@functools.cache  # each look goes through the folder of packages, and every checkpoint wants ten
def installed_version(package: str) -> str | None:
    """Version of an installed distribution, None if there is none.

    Args:
        package: Its name.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
