"""``policy.json``: what a saved policy says about itself, found, read and checked without its tensors.

It may come from a stranger: it is held against a schema and limits of size before anything is made of it.
Torch is not imported here: a wrong folder is answered before.
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import ListConfig

from ...envs.errors import UserError, nearest, shown
from ...envs.numbers import FLAG, NULL, TEXT, VALUES, listed, one_of, real, whole
from ...envs.task_set import MOST_DEPTH, check_environment, values_of
from ...envs.tokens import CONTRACT_VERSION
from ...envs.user_modules import NAME
from ..bundled import PREFIX, bundled_folder, bundled_names
from .atomic import standing
from .run_folder import ROOT, find_run
from .untrusted import check_inside, read_json

FORMAT_VERSION = 1
"""Raised when ``policy.json`` changes so that older code would misread it."""

TENSORS, DESCRIPTION = "policy.safetensors", "policy.json"
MOST_BYTES, MOST_VALUES = 8 * 2**20, 200_000
"""Of a ``policy.json``; ours have some ten thousand bytes and hundreds of values."""

REQUIRED = ("format", "contract", "policy", "spec", "environment", "training", "sha256")

MOST_COLUMNS, LONGEST_LIST, MOST_DECISIONS = 65_536, 16, 4096
"""Columns of all features of a token; numbers of one argument of a network, and of its ``discrete``."""

LARGEST_SIZE, LARGEST = 65_536, {"layers": 64, "heads": 64, "rounds": 256}
"""Of an argument of a network, and of those by which parts are repeated."""

_LOOKED_UP = ("policy._target_", "environment.config._target_")
_OURS = re.compile(rf"(?=somite\.){NAME.pattern}")
_NAMES = listed(TEXT).told("a list of names")
_FEATURE = {
    "name": TEXT,
    "size": whole(1, MOST_COLUMNS),
    "kind": one_of("state", "descriptor"),
    "unit": TEXT,
    "meaning": TEXT,
}


class CheckpointError(UserError):
    """A policy folder that is missing, damaged, or made by another version."""


def policy_folders(run: Any) -> list[Path]:
    """The policy folders of the key ``run``: a name, a path, a pattern such as ``runs/*``, or a list.

    Raises:
        UserError: One of them is not there, with the nearest names.
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


def policy_folder_of(run: str | Path) -> Path:
    """The folder with ``policy.json``, by a run's name, ``last``, a path to either, or ``bundled/<name>``.

    Raises:
        UserError: No such run; the nearest names are told.
        CheckpointError: The folder holds no policy, or links that lead out of it.
    """
    folder, name = Path(run), str(run).removeprefix(PREFIX)
    if name != str(run) and not folder.is_dir():
        if name not in bundled_names():
            raise UserError(f"there is no bundled agent {name!r}; {nearest(name, bundled_names())}")
        return bundled_folder(name)
    folder = folder if standing(folder).is_dir() else find_run(run)
    for place in (standing(folder), standing(folder / "policy")):
        if (place / DESCRIPTION).is_file():
            # What stands in for a policy that is being replaced lies beside it.
            root = folder.parent if place == standing(folder) != folder else folder
            for file in (DESCRIPTION, TENSORS):
                check_inside(place / file, root, CheckpointError)
            return place
    raise CheckpointError(
        f"{folder} holds no policy: expected {DESCRIPTION} and {TENSORS}, there or in a folder policy/."
    )


def read_description(file: Path) -> dict[str, Any]:
    """The content of a ``policy.json``, of the versions that this code reads, with every required key.

    Raises:
        CheckpointError: It is missing, damaged, or of another version.
    """
    values = read_json(file, MOST_BYTES, CheckpointError)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: expected a JSON object, got {type(values).__name__}.")
    for key, supported in (("format", FORMAT_VERSION), ("contract", CONTRACT_VERSION)):
        found = values.get(key)
        if type(found) is not int or found != supported:
            newer = type(found) is int and found > supported
            advice = "Install a newer Somite." if newer else "It must be trained again or converted."
            raise CheckpointError(
                f"{file} has {key} version {shown(repr(found))}; this Somite ({installed_version('somite')}) "
                f"reads {supported}. {advice}"
            )
    try:
        _check_description(values)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}.") from error
    return values


@functools.cache  # each look goes through the folder of packages, and every checkpoint wants ten
def installed_version(package: str) -> str | None:
    """Version of an installed distribution, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_description(values: Mapping[str, Any]) -> None:
    """Refuses what no policy of ours says of itself. Raises ValueError, without the file's name."""
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}; it has {', '.join(map(repr, values))[:500]}")
    for key in ("policy", "spec", "environment", "training"):
        VALUES.read(key, values[key])
    for count, (where, name, value) in enumerate(values_of(values)):
        if count > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values; a policy's description has hundreds")
        if where.count(".") > MOST_DEPTH:
            raise ValueError(f"objects inside each other more than {MOST_DEPTH} times, at {where[:100]}...")
        # Policies and environments are looked up where they are built; of what trained it nothing is built.
        known = NAME if where.startswith("training.") else _OURS
        is_known = isinstance(value, str) and known.fullmatch(value)
        if name == "_target_" and where not in _LOOKED_UP and not is_known:
            raise ValueError(f"{where} is {shown(repr(value))}; only names that start with somite. are known")
    if not re.fullmatch("[0-9a-f]{64}", str(values["sha256"])):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {shown(repr(values['sha256']))}")
    _check_policy(values["policy"])
    _check_spec(values["spec"])
    environment = values["environment"]
    for key in ("seen", "unseen"):
        _NAMES.read(f"environment.{key}", environment.get(key, []))
    for key in ("hashes", "identities"):
        table = VALUES.read(f"environment.{key}", environment.get(key, {}))
        _NAMES.read(f"environment.{key}", list(table.values()))
    config = VALUES.read("environment.config", environment.get("config", {}))
    check_environment(config, "environment.config")


def _check_policy(arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        most = LARGEST.get(name, LARGEST_SIZE)
        valid = real(-most, most) | NULL | FLAG | TEXT
        if isinstance(value, list):
            valid = listed(valid, most=MOST_DECISIONS if name == "discrete" else LONGEST_LIST)
        valid.read(f"policy.{name}", value)


def _check_spec(spec: Mapping[str, Any]) -> None:
    for part, features in spec.items():
        one_of("token", "joint", "trace").read("a part of spec", part)
        listed(VALUES, most=1000).told("a list of at most 1,000 features").read(f"spec.{part}", features)
        columns = 0
        for number, feature in enumerate(features):
            where = f"spec.{part}[{number}]"
            if set(feature) != set(_FEATURE):
                found = ", ".join(map(repr, feature))[:200]
                raise ValueError(f"{where} has {found}; expected {', '.join(_FEATURE)}")
            read = {name: valid.read(f"{where}.{name}", feature[name]) for name, valid in _FEATURE.items()}
            columns += read["size"]
        if columns > MOST_COLUMNS:
            raise ValueError(f"spec.{part} has {columns:,} columns; at most {MOST_COLUMNS:,} are read")
