"""The command line of ``somite-benchmark``: its first word names the benchmark, keys are that section's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ...agents.storage.paths import absolute_argument, hydra_quoted
from ...envs.errors import UserError, nearest
from ...envs.numbers import TEXT, listed, real, whole

CONFIG_NAME = "benchmark"

COUNT = whole(1, 10**6)
"""Of environments, candidates, episodes."""

ROUNDS = whole(1, 10_000)
ROUNDS_OR_NONE = whole(0, 10_000)
SECONDS = real(0, 86_400, above=True)
ARGUMENTS = listed(TEXT)
"""Of ``somite-train``."""

_OVERRIDE = re.compile(r"(\+\+|\+|~)?([^=]+)(=.*)?", re.DOTALL)
# What is said to somite-train in the same words. agent=<choice> is not: a benchmark compares several.
_OF_TRAINING = re.compile(r"(env|device|simulation|precision|threads)=|(env|agent|algorithm)\.|algorithm=")


def benchmark_names(config: DictConfig) -> list[str]:
    """Names of all benchmarks: the sections of ``conf/benchmark.yaml`` that build something."""
    return [str(name) for name in config if OmegaConf.is_dict(config[name]) and "_target_" in config[name]]


def for_hydra(arguments: Sequence[str]) -> list[str]:
    """Turns ``locomotion seconds=5 output=x.json env=walker`` into what Hydra composes.

    Args:
        arguments: of the command line, without the program's name.

    Returns:
        The arguments with ``seconds`` as ``locomotion.seconds``, and ``env=walker``, which is meant for the
        training runs, in the list ``locomotion.train``; not so a key that the section has itself, such as
        ``gpu.device``. ``output`` and Hydra's own keys stay.

    Raises:
        UserError: the first word names no benchmark, with the nearest one that does.
    """
    if arguments and arguments[0].startswith("-"):
        return list(arguments)  # --help and other questions to Hydra
    with resources.files("somite.conf").joinpath(f"{CONFIG_NAME}.yaml").open(encoding="utf-8") as file:
        config = OmegaConf.load(file)
    names = benchmark_names(config)
    if not arguments or "=" in arguments[0]:
        raise UserError(
            f"the first word names the benchmark, for example: somite-benchmark {names[0]} "
            f"output={names[0]}.json; choices: {', '.join(names)}"
        )
    name, *others = arguments
    if name not in names:
        raise UserError(f"there is no benchmark {name!r}; {nearest(name, names)}")
    training = [
        argument
        for argument in others
        if _OF_TRAINING.match(argument) and argument.partition("=")[0] not in config[name]
    ]
    own = [_in_section(argument, name, config) for argument in others if argument not in training]
    # In Hydra's grammar a list's items hold no bare "=".
    found = [hydra_quoted(absolute_argument(argument, Path.cwd())) for argument in training]
    further = [f"{name}.train=[{','.join(found)}]"] if found else []
    return [f"benchmark={name}", *own, *further]


def _in_section(argument: str, name: str, config: DictConfig) -> str:
    match = _OVERRIDE.fullmatch(argument)
    if argument.startswith("-") or match is None or not (match[1] or match[3]):
        return argument  # an option of Hydra's or its value
    first = match[2].partition(".")[0]
    if first in config or first == "hydra":
        return argument
    return f"{match[1] or ''}{name}.{match[2]}{match[3] or ''}"
