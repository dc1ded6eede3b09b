"""Writes the page of results from reports: ``somite-results``."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from somite.envs.errors import UserError
from somite.scripts.cli.command_line import program


def write(config: DictConfig) -> None:
    """Writes the page that the configuration names."""
    if not Path(config.table).is_file():
        raise UserError(f"there is no table {config.table}")
    from somite.agents.evaluation.results_page import write_results  # pandas takes seconds

    write_results(Path(config.table), Path(config.output))


main = program("results", "somite.scripts.results:write")

if __name__ == "__main__":
    main()
