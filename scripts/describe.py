"""Tells what bodies are made of and draws them: ``somite-describe env.morphology=robot.xml``."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from somite.scripts import command_line, implied


def describe(config: DictConfig) -> None:
    """Describes the bodies that the configuration names."""
    from somite.scripts import description  # torch takes seconds, --help does not need it

    description.describe_bodies(config)


def main() -> None:
    """Entry point of ``somite-describe``."""
    given = implied.with_implied_env(sys.argv[1:])
    command_line.run(describe, "describe", given, resumable=False)


if __name__ == "__main__":
    main()
