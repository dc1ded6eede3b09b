"""What the arguments of a command line imply, so that nobody has to say it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MORPHOLOGY = "env.morphology"


def with_implied(arguments: Sequence[str], chooses_env: bool = True) -> list[str]:
    """The arguments, and what a user's own robot implies: its environment, and where its file is.

    ``env=locomotion`` comes before them where ``env.morphology`` is given and no ``env`` (a resumed run
    has its own). A path becomes absolute, so that what is saved finds the file from every folder; several
    values (of a multirun) and names that are no path are left as they are.

    Args:
        arguments: of the command line.
        chooses_env: whether the command has the group ``env``.
    """
    keys = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    alone = chooses_env and MORPHOLOGY in keys and not keys & {"env", "resume"}
    return [*(["env=locomotion"] if alone else []), *map(_with_absolute_path, arguments)]


def _with_absolute_path(argument: str) -> str:
    key, equals, value = argument.partition("=")
    path = Path(value.strip("'\"")).expanduser()
    if key.lstrip("+") != MORPHOLOGY or not path.name or not path.exists():
        return argument
    return f"{key}{equals}'{path.absolute()}'"
