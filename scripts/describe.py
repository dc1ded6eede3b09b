"""Tells what bodies are made of and draws them: ``somite-describe env.morphology=robot.xml``."""

from __future__ import annotations

from omegaconf import DictConfig

from somite.scripts.cli import command_line


def describe(config: DictConfig) -> None:
    """Describes the bodies that the configuration names."""
    from somite.scripts.cli import description  # torch takes seconds, --help does not need it

    description.describe_bodies(config)


def main() -> None:
    """Entry point of ``somite-describe``."""
    command_line.run(describe, "describe", resumable=False)


if __name__ == "__main__":
    main()
