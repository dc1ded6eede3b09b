"""Groups of a command line that its keys imply, so that nobody has to say them."""

from __future__ import annotations

from collections.abc import Sequence

MORPHOLOGY = "env.morphology"


def with_implied_env(arguments: Sequence[str]) -> list[str]:
    """``env=locomotion`` before the arguments where ``env.morphology`` is given and no ``env``."""
    keys = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    if MORPHOLOGY in keys and "env" not in keys:
        return ["env=locomotion", *arguments]
    return list(arguments)
