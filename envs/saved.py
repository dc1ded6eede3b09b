"""Task sets from the configuration that a policy was saved with, which may come from a stranger."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .errors import UserError, one_line
from .user_modules import NAME, imported_class, is_foreign

if TYPE_CHECKING:
    from .task_set import TaskSet

MOST_DEPTH, MOST_VALUES, LONGEST_TEXT = 20, 100_000, 4096
"""Objects inside each other, values, and characters of one, of an environment's configuration."""

LARGEST: dict[str, float] = {
    "frame_skip": 1000,
    "action_repeat": 1000,
    "max_episode_steps": 10_000_000,
    "history": 1000,
    "neighbors": 1_000_000,
    "traces": 1_000_000,
    "duplicates": 1000,
    "noise_channels": 10_000,
    "stuck": 100_000,
    "patch_size": 4096,
    "size": 4096,
    "variants": 1000,
    "strips": 1000,
    "parts": 1000,
}
"""Of what is stored or repeated so often, by the name of its key. What is larger could only do harm."""

ALLOWANCES = ("files_from", "compile_seconds", "imports")
"""What a user allows: files of his robots, modules. It travels with no policy, which may be a stranger's."""

_TARGET = re.compile(r"somite(\.[A-Za-z_][A-Za-z0-9_]*)+")


def task_set_of(config: Mapping[str, Any]) -> TaskSet:
    """Rebuild what ``conf/env`` described when the policy was trained.

    A policy may come from a stranger: ``_target_`` must be a task of ours, or of a module that the user has
    named or imported himself. Its paths are read as robots and pictures, and as nothing else.

    Raises:
        UserError: another target, an unknown key, or an invalid value.
    """
    # With torch, which is not needed to read a policy.json.
    from . import car_racing, images, locomotion, sensors
    from .task_set import TaskSet, build_parts

    try:
        check_environment(config, "env")
        target = str(config.get("_target_"))
        for package in (sensors, car_racing, images):
            if target.rpartition(".")[0] == package.__name__:
                return package.task_from_config(config)
        own = imported_class(target, TaskSet, __package__)
        if own is not None and target.rpartition(".")[0] != locomotion.__name__:
            parts = {"senses": (sensors.Senses, sensors.__name__)} if "senses" in config else {}
            return build_parts(own, config, parts)
        if is_foreign(target):
            raise UserError(
                f"this environment is a {target!r}, a class of a module that is not of this package; if you "
                f"trust it, say env._target_={target} on the command line, or import its module first"
            )
        return locomotion.BodySet.from_config(config)
    except UserError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        told = one_line(str(error))
        raise UserError(f"the saved environment cannot be built: {type(error).__name__}: {told}") from error


def check_environment(config: Mapping[str, Any], where: str) -> None:
    """Refuses sizes that could only do harm, and names that are not ours.

    Args:
        config: of an environment.
        where: it stands, for the message.

    Raises:
        UserError: a value that is none of an environment of ours.
    """
    for count, (key, name, value) in enumerate(values_of(config, where)):
        if count > MOST_VALUES or key.count(".") - where.count(".") > MOST_DEPTH:
            raise UserError(f"{where} is larger than the configuration of any environment")
        known = NAME if key == f"{where}._target_" else _TARGET  # which `task_set_of` looks up
        if name == "_target_" and not (isinstance(value, str) and known.fullmatch(value)):
            raise UserError(f"{key} is {str(value)[:100]!r}; only names that start with somite. are known")
        if isinstance(value, str) and (len(value) > LONGEST_TEXT or "\0" in value):
            raise UserError(f"{key} has {len(value):,} characters, or one that no text has")
        if name in LARGEST and isinstance(value, str):
            value = _number(value)  # counts may be written as text
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            most = LARGEST.get(name, math.inf if isinstance(value, float) else 1e15)
            if not abs(value) <= most:  # not a number is not, either
                raise UserError(
                    f"{key} is {str(value)[:100]}; no environment has more than {most:,.0f} there"
                )


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def values_of(node: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """The values of nested objects and lists: where each stands, the key it belongs to, and the value.

    Not by recursion: what is too deep is to be refused by a message.
    """
    waiting = [(where, "", node)]
    while waiting:
        at, name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{at}.{key}" if at else str(key), str(key), inner) for key, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(f"{at}.{number}", name, inner) for number, inner in enumerate(value)]
        yield at, name, value
