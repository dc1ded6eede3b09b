"""What a ``policy.json`` may hold, checked before anything is made of it: it may come from a stranger."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ...envs.saved import MOST_DEPTH, check_environment, values_of

REQUIRED = ("format", "contract", "policy", "spec", "environment", "training", "sha256")

MOST_VALUES = 200_000
"""Values of a whole description."""

MOST_FEATURES, MOST_COLUMNS = 1000, 65_536
"""Features of a token, and their columns."""

LARGEST_SIZE = 65_536
"""Of an argument of a network."""

LONGEST_LIST, MOST_DECISIONS = 16, 4096
"""Numbers of one argument of a network, and of ``discrete``, which has one for each decision."""

LARGEST: dict[str, int] = {"layers": 64, "heads": 64, "rounds": 256}
"""Of arguments that are repeated, where the size is that of what is repeated."""

_TARGET = re.compile(r"somite(\.[A-Za-z_][A-Za-z0-9_]*)+")
_HASH = re.compile(r"[0-9a-f]{64}")
_FEATURE = {"name": str, "size": int, "kind": str, "unit": str, "meaning": str}
_KINDS = ("state", "descriptor")


def check_description(values: Mapping[str, Any]) -> None:
    """Refuses what no policy of ours says of itself.

    Args:
        values: of a ``policy.json``, its versions already checked.

    Raises:
        ValueError: what is wrong, and where; a sentence without the file's name.
    """
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}; it has {', '.join(map(repr, values))[:500]}")
    for key in ("policy", "spec", "environment", "training"):
        if not isinstance(values[key], dict):
            raise ValueError(f"{key} must be an object, got {type(values[key]).__name__}")
    _check_all(values)
    if not isinstance(values["sha256"], str) or not _HASH.fullmatch(values["sha256"]):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {_shown(values['sha256'])}")
    _check_policy(values["policy"])
    _check_spec(values["spec"])
    environment = values["environment"]
    for key in ("seen", "unseen"):
        _expect(
            f"environment.{key}", environment.get(key, []), "a list of names", lambda v: _is_list_of(v, str)
        )
    for key in ("hashes", "identities"):
        _expect(f"environment.{key}", environment.get(key, {}), "names and hashes", _is_text_by_name)
    _expect(
        "environment.config", environment.get("config", {}), "an object", lambda v: isinstance(v, Mapping)
    )
    check_environment(environment.get("config", {}), "environment.config")


def _check_all(values: Mapping[str, Any]) -> None:
    """What holds everywhere."""
    for count, (where, name, value) in enumerate(values_of(values)):
        if count > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values; a policy's description has hundreds")
        if where.count(".") > MOST_DEPTH:
            raise ValueError(f"objects inside each other more than {MOST_DEPTH} times, at {where[:100]}...")
        if name == "_target_" and (where != "policy._target_") and not _is_target(value):
            raise ValueError(f"{where} is {_shown(value)}; only names that start with somite. are known")


def _is_target(value: Any) -> bool:
    return isinstance(value, str) and _TARGET.fullmatch(value) is not None


def _check_policy(arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        if name == "_target_":
            continue  # looked up among the policies, with a message of its own
        longest = MOST_DECISIONS if name == "discrete" else LONGEST_LIST
        for number in value if isinstance(value, list) else [value]:
            if number is None or isinstance(number, (bool, str)):
                continue
            if not isinstance(number, (int, float)) or (isinstance(value, list) and len(value) > longest):
                raise ValueError(
                    f"policy.{name} is {_shown(value)}; expected a number, a word or a short list"
                )
            most = LARGEST.get(name, LARGEST_SIZE)
            if not abs(number) <= most:  # not a number is not, either
                raise ValueError(
                    f"policy.{name} is {_shown(number)}; networks are built with {most:,} at most"
                )


def _check_spec(spec: Mapping[str, Any]) -> None:
    for part, features in spec.items():
        if part not in ("token", "joint", "trace"):
            raise ValueError(
                f"spec has {_shown(part)}; cannot be built from more than token, joint and trace"
            )
        where, columns = f"spec.{part}", 0
        _expect(where, features, "a list of features", lambda v: _is_list_of(v, dict))
        if len(features) > MOST_FEATURES:
            raise ValueError(f"{where} has {len(features):,} features; at most {MOST_FEATURES:,} are read")
        for number, feature in enumerate(features):
            if set(feature) != set(_FEATURE):
                raise ValueError(
                    f"{where}[{number}] has {', '.join(map(_shown, feature))}; expected {_words()}"
                )
            for name, kind in _FEATURE.items():
                value = feature[name]
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise ValueError(f"{where}[{number}].{name} is {_shown(value)}; expected {kind.__name__}")
            if feature["kind"] not in _KINDS:
                raise ValueError(
                    f"{where}[{number}].kind is {_shown(feature['kind'])}; expected state or descriptor"
                )
            if not 1 <= feature["size"] <= MOST_COLUMNS:
                raise ValueError(
                    f"{where}[{number}].size is {feature['size']}; expected 1 to {MOST_COLUMNS:,}"
                )
            columns += feature["size"]
        if columns > MOST_COLUMNS:
            raise ValueError(f"{where} has {columns:,} columns; at most {MOST_COLUMNS:,} are read")


def _words() -> str:
    return ", ".join(_FEATURE)


def _expect(where: str, value: Any, wanted: str, holds: Callable[[Any], bool]) -> None:
    if not holds(value):
        raise ValueError(f"{where} must be {wanted}, got {_shown(value)}")


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_text_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
