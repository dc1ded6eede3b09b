"""What a benchmark found: rows and the machine, kept in a JSON file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...envs.errors import UserError


class Results:
    """``{"machine": {...}, "rows": [{"name": ..., "steps_per_second": ...}, ...]}``.

    The file is written anew, as a whole or not at all, after every row.

    Args:
        output: the file; None to keep nothing.
        machine: of :func:`~somite.scripts.benchmarks.machine.describe_machine`.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, output: str | Path | None, machine: dict[str, Any]) -> None:
        self.path = None if output is None else Path(output)
        self.machine = machine
        self.rows: list[dict[str, Any]] = []
        if self.path is not None:
            # Said now, not after minutes of measuring.
            if self.path.is_dir():
                raise UserError(f"output={output} is a folder; name a file, such as {output}/results.json")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"output={output} cannot be written: {error}") from error
            if not os.access(self.path.parent, os.W_OK):
                raise UserError(f"output={output} cannot be written: {self.path.parent} is not writable")

    def keep_earlier(self) -> None:
        """Begin with the rows that the file holds already.

        Raises:
            UserError: the file is no such report.
        """
        if self.path is None or not self.path.exists():
            return
        try:
            self.rows = list(json.loads(self.path.read_text(encoding="utf-8"))["rows"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path} is there, but is no report of a benchmark ({type(error).__name__}: {error}); "
                f"move it away or name another output"
            ) from error

    def add(self, row: dict[str, Any]) -> None:
        """Keep one more row."""
        self.rows.append(row)
        if self.path is None:
            return
        beside = self.path.with_name(self.path.name + ".tmp")
        text = json.dumps({"machine": self.machine, "rows": self.rows}, indent=1)
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, self.path)
