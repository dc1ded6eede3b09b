"""Measures how fast Somite is beside its rivals: ``somite-benchmark locomotion``."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from somite.agents.storage.paths import absolute_argument, hydra_quoted
from somite.envs.errors import UserError, nearest
from somite.scripts.cli.command_line import program

_OVERRIDE = re.compile(r"(\+\+|\+|~)?([^=]+)(=.*)?", re.DOTALL)
# What is said to somite-train in the same words. agent=<choice> is not: a benchmark compares several.
_OF_TRAINING = re.compile(r"(env|device|simulation|precision|threads)=|(env|agent|algorithm)\.|algorithm=")


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
    with resources.files("somite.conf").joinpath("benchmark.yaml").open(encoding="utf-8") as file:
        config = OmegaConf.load(file)
    if not arguments or "=" in arguments[0]:
        names = _names(config)
        raise UserError(
            f"the first word names the benchmark, for example: somite-benchmark {names[0]} "
            f"output={names[0]}.json; choices: {', '.join(names)}"
        )
    name, own, training = _checked(arguments[0], config), [], []
    for argument in arguments[1:]:
        match = _OVERRIDE.fullmatch(argument)
        if _OF_TRAINING.match(argument) and argument.partition("=")[0] not in config[name]:
            # In Hydra's grammar a list's items hold no bare "=".
            training.append(hydra_quoted(absolute_argument(argument, Path.cwd())))
        elif argument.startswith("-") or match is None or not (match[1] or match[3]):
            own.append(argument)  # an option of Hydra's or its value
        else:
            is_of_all = match[2].partition(".")[0] in (*config, "hydra")
            section = "" if is_of_all else f"{name}."
            own.append(f"{match[1] or ''}{section}{match[2]}{match[3] or ''}")
    further = [f"{name}.train=[{','.join(training)}]"] if training else []
    return [f"benchmark={name}", *own, *further]


def _names(config: DictConfig) -> list[str]:
    """Of all benchmarks: the sections that build something."""
    return [str(name) for name in config if OmegaConf.is_dict(config[name]) and "_target_" in config[name]]


def _checked(name: str, config: DictConfig) -> str:
    if name not in _names(config):
        raise UserError(f"there is no benchmark {name!r}; {nearest(name, _names(config))}")
    return name


def benchmark(config: DictConfig) -> None:
    """Runs the benchmark that the configuration names, with the section of its name.

    Raises:
        UserError: an invalid setting, or an output that cannot be written.
        SystemExit: a benchmark that found something wrong says so.
    """
    import hydra  # torch takes seconds, --help does not need it

    from somite.scripts.benchmarks.harness import Report, busy_message, describe_machine

    name = _checked(str(config.benchmark), config)
    machine = describe_machine()  # before anything of ours loads the machine
    chosen = hydra.utils.instantiate(config[name], _convert_="all")
    report = Report(config.output, machine)
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    found = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {versions}"
    report.console.print(found, highlight=False, soft_wrap=True)
    warning = busy_message(machine)
    if warning:
        report.console.print(warning, style="yellow", soft_wrap=True)
    try:
        chosen.run(report)
    except KeyboardInterrupt:
        report.console.print("stopped")
        raise SystemExit(128 + signal.SIGINT) from None
    if report.path is not None:
        report.console.print(f"written to {report.path}", soft_wrap=True)
    if report.failures:
        report.console.print(f"failed: {', '.join(report.failures)}", style="red", soft_wrap=True)
        raise SystemExit(1)


main = program("benchmark", "somite.scripts.benchmark:benchmark", prepare=for_hydra)

if __name__ == "__main__":
    main()
