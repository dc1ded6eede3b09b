"""Evaluates saved policies on bodies seen and unseen in training: ``somite-evaluate run=last``."""

from __future__ import annotations

from omegaconf import DictConfig

from somite.scripts.cli import command_line


def evaluate(config: DictConfig) -> None:
    """Evaluates what the configuration names."""
    from somite.agents.evaluation import evaluate as evaluation  # torch takes seconds, --help does not

    evaluation.evaluate(config)


def main() -> None:
    """Entry point of ``somite-evaluate``."""
    command_line.run(evaluate, "evaluate", resumable=False)


if __name__ == "__main__":
    main()
