"""Learns a policy: ``somite-train env=cheetah agent=limb_transformer algorithm=ppo``."""

from __future__ import annotations

from omegaconf import DictConfig

from somite.scripts.cli import command_line


def train(config: DictConfig) -> None:
    """Trains what the configuration describes, in the folder that Hydra made for this run."""
    from somite.agents.training import train as training  # torch takes seconds, --help does not need it

    training.train(config, command_line.program_folder())


def main() -> None:
    """Entry point of ``somite-train``."""
    command_line.run(train, "train")


if __name__ == "__main__":
    main()
