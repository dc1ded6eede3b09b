"""``policy.json``: what a saved policy says about itself, read without its tensors."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from ..envs.errors import UserError, nearest
from ..envs.tokens import CONTRACT_VERSION
from .atomic_folder import standing

FORMAT_VERSION = 1
"""Raised when ``policy.json`` changes so that older code would misread it."""

TENSORS, DESCRIPTION = "policy.safetensors", "policy.json"
REQUIRED = ("format", "contract", "policy", "spec", "environment", "training", "sha256")


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
        CheckpointError: If neither is there, with the nearest names that are.
    """
    folder = Path(folder)
    places = [standing(folder), standing(folder / "policy")]
    for place in places:
        if (place / DESCRIPTION).is_file():
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
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: not JSON ({error}).") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: expected a JSON object, got {type(values).__name__}.")
    for key, supported in (("format", FORMAT_VERSION), ("contract", CONTRACT_VERSION)):
        found = values.get(key)
        if found != supported:
            newer = isinstance(found, int) and found > supported
            advice = "Install a newer Somite." if newer else "It must be trained again or converted."
            raise CheckpointError(
                f"{file} has {key} version {found!r}; this Somite ({installed_version('somite')}) reads "
                f"{supported}. {advice}"
            )
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise CheckpointError(f"{file} lacks {', '.join(missing)}; it has {', '.join(values)}.")
    for key in ("policy", "spec", "environment", "training"):
        if not isinstance(values[key], dict):
            raise CheckpointError(f"{file}: {key} must be an object, got {type(values[key]).__name__}.")
    return values


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, None if there is none.

    Args:
        package: Its name.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
