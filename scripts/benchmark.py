"""Measures how fast and how good Somite is beside its rivals: ``somite-benchmark locomotion``."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from somite.envs.errors import UserError
from somite.scripts.benchmarks import arguments
from somite.scripts.cli import command_line
from somite.scripts.cli.streams import patient_streams


def benchmark(config: DictConfig) -> None:
    """Runs the benchmark that the configuration names."""
    from somite.scripts.benchmarks import runner  # torch takes seconds, --help does not need it

    runner.run(config)


def main() -> None:
    """Entry point of ``somite-benchmark``."""
    try:
        given = arguments.for_hydra(sys.argv[1:])
    except UserError as error:
        with patient_streams():
            print(error, file=sys.stderr)
        raise SystemExit(2) from None
    command_line.run(benchmark, arguments.CONFIG_NAME, given, resumable=False)


if __name__ == "__main__":
    main()
