"""Builds the benchmark that a configuration names and runs it."""

from __future__ import annotations

import signal

import hydra
from omegaconf import DictConfig
from rich.console import Console

from ...envs.errors import UserError, nearest
from .arguments import benchmark_names
from .machine import busy_message, describe_machine
from .results import Results


def run(config: DictConfig) -> None:
    """Run ``config.benchmark`` with the section of its name.

    Raises:
        UserError: a setting that cannot be meant, or an output that cannot be written.
        SystemExit: a benchmark that says so has found something to fail.
    """
    name, names = str(config.benchmark), benchmark_names(config)
    if name not in names:
        raise UserError(f"there is no benchmark {name!r}; {nearest(name, names)}")
    machine = describe_machine()  # before anything of ours loads the machine
    benchmark = hydra.utils.instantiate(config[name], _convert_="all")
    results = Results(config.output, machine)
    console = Console()
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    found = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {versions}"
    console.print(found, highlight=False, soft_wrap=True)
    warning = busy_message(machine)
    if warning:
        console.print(warning, style="yellow", soft_wrap=True)
    try:
        code = benchmark.run(results, console)
    except KeyboardInterrupt:
        console.print("stopped")
        raise SystemExit(128 + signal.SIGINT) from None
    if results.path is not None:
        console.print(f"written to {results.path}", soft_wrap=True)
    if code:
        raise SystemExit(code)
