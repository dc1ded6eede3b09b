"""What the arguments of a command line imply, so that nobody has to say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..agents.storage.paths import absolute_argument

MORPHOLOGY = "env.morphology"
_ID, _IMPORTS = "env.id", "env.imports"


def with_implied(arguments: Sequence[str], chooses_env: bool = True) -> list[str]:
    """The arguments, and what a user's own robot or environment implies.

    ``env.id=my_module:MyEnv-v0`` is the user's word to import that module, so it comes to ``env.imports``.

    ``env=locomotion`` comes before them where ``env.morphology`` is given and no ``env`` (a resumed run
    has its own). Paths become absolute.

    Args:
        arguments: of the command line.
        chooses_env: whether the command has the group ``env``.
    """
    here = Path.cwd()
    keys = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    alone = chooses_env and MORPHOLOGY in keys and not keys & {"env", "resume"}
    given = _with_modules([absolute_argument(argument, here) for argument in arguments])
    return [*(["env=locomotion"] if alone else []), *given]


def _with_modules(arguments: list[str]) -> list[str]:
    """The arguments with ``env.imports``, where ``env.id`` names modules (several in a multirun)."""
    given = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    modules = re.findall(r"([\w./-]+):", given.get(_ID, ""))
    if not modules:
        return arguments
    others = re.findall(r"[^\[\],'\" ]+", given.get(_IMPORTS, ""))
    names = dict.fromkeys(name for name in (*others, *modules) if name != "null")
    kept = [argument for argument in arguments if argument.partition("=")[0] != _IMPORTS]
    return [*kept, f"{_IMPORTS}=[{','.join(names)}]"]
