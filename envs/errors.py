"""What a user did wrong, said in one message."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST_MESSAGE = 4000
"""Characters."""


class UserError(ValueError):
    """Wrong input from a user: a name, a key, a file, a shape.

    The message says what came, what was wanted and the nearest valid choice. The console commands
    print it alone, without a traceback, and exit with code 2. What came may be long; a message is cut.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(shown(message, LONGEST_MESSAGE))


class EnvironmentFault(UserError):
    """Code of an environment that is not this package's raised an error, or gave what does not fit."""


def check_open(env: Any) -> None:
    """Raises UserError: an environment has been closed, which has let its simulations go."""
    if env.closed:
        raise UserError("this environment has been closed, and its simulations are gone: make another one")


def check_installed(what: str, packages: Mapping[str, str], extra: str) -> None:
    """Raises UserError: ``packages``, named by their modules, that ``what`` needs and ``extra`` brings."""
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        needed = ", ".join(missing)
        raise UserError(f"{what} needs {needed}: pip install 'somite[{extra}]' brings what is missing")


def nearest(name: str, choices: Iterable[str]) -> str:
    """``did you mean 'x'? choices: ...`` for a message about the unknown ``name``."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}choices: {', '.join(choices) or 'none'}"


def shown(text: object, most: int = 100) -> str:
    """What came, for a message: cut where it is long."""
    text = str(text)
    return text if len(text) <= most else f"{text[:most]}..."


def one_line(message: str) -> str:
    """Another library's message on one line, for a message of ours; control characters become spaces."""
    lines = ("".join(c if c.isprintable() else " " for c in line).strip() for line in message.splitlines())
    return "; ".join(line for line in lines if line)
