"""Measures specialists and random actions: ``somite-references "run=runs/*"``."""

from __future__ import annotations

from omegaconf import DictConfig

from somite.scripts.cli import command_line


def measure(config: DictConfig) -> None:
    """Measures the runs that the configuration names."""
    from somite.agents.evaluation.references import make_references  # torch takes seconds

    make_references(config)


def main() -> None:
    """Entry point of ``somite-references``."""
    command_line.run(measure, "references", resumable=False)


if __name__ == "__main__":
    main()
