"""Shows a saved policy in a window, with keys that disturb it: ``somite-view run=last``."""

from __future__ import annotations

from omegaconf import DictConfig

from somite.scripts.cli import command_line


def view(config: DictConfig) -> None:
    """Shows what the configuration names."""
    from somite.agents.show import view as viewers  # torch takes seconds, --help does not need it

    viewers.view(config)


def main() -> None:
    """Entry point of ``somite-view``."""
    command_line.run(view, "view", resumable=False)


if __name__ == "__main__":
    main()
