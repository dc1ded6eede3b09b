"""What the arguments of a command line imply, so that nobody has to say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

MORPHOLOGY = "env.morphology"
_ID, _IMPORTS = "env.id", "env.imports"


def with_implied(arguments: Sequence[str], chooses_env: bool = True) -> list[str]:
    """The arguments, and what a user's own robot or environment implies.

    ``env.id=my_module:MyEnv-v0`` is the user's word to import that module, so it comes to ``env.imports``.

    ``env=locomotion`` comes before them where ``env.morphology`` is given and no ``env`` (a resumed run
    has its own). A path becomes absolute, so that what is saved finds the file from every folder; several
    values (of a multirun) and names that are no path are left as they are.

    Args:
        arguments: of the command line.
        chooses_env: whether the command has the group ``env``.
    """
    keys = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    alone = chooses_env and MORPHOLOGY in keys and not keys & {"env", "resume"}
    arguments = _with_modules(list(map(_with_absolute_path, arguments)))
    return [*(["env=locomotion"] if alone else []), *arguments]


def _with_modules(arguments: list[str]) -> list[str]:
    """The arguments with ``env.imports``, where ``env.id`` names modules (several in a multirun)."""
    given = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    modules = re.findall(r"([A-Za-z_][\w.]*):", given.get(_ID, ""))
    if not modules:
        return arguments
    others = re.findall(r"[^\[\],'\" ]+", given.get(_IMPORTS, ""))
    names = dict.fromkeys(name for name in (*others, *modules) if name != "null")
    kept = [argument for argument in arguments if argument.partition("=")[0] != _IMPORTS]
    return [*kept, f"{_IMPORTS}=[{','.join(names)}]"]


def _with_absolute_path(argument: str) -> str:
    key, equals, value = argument.partition("=")
    path = Path(value.strip("'\"")).expanduser()
    if key.lstrip("+") != MORPHOLOGY or not path.name or not path.exists():
        return argument
    return f"{key}{equals}'{path.absolute()}'"
