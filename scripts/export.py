"""Writes a saved policy as a file that other programs run: ``somite-export run=last output=policy.onnx``."""

from __future__ import annotations

from omegaconf import DictConfig

from somite.scripts.cli import command_line


def export(config: DictConfig) -> None:
    """Exports what the configuration names."""
    from somite.agents.export import export as exporting  # torch takes seconds, --help does not need it

    exporting.export(config)


def main() -> None:
    """Entry point of ``somite-export``."""
    command_line.run(export, "export", resumable=False)


if __name__ == "__main__":
    main()
