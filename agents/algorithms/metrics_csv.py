"""``metrics.csv``: every logged scalar, one row for each update, kept when a run is resumed."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter


class MetricsCsv(KVWriter):
    """Writes SB3's logger to a CSV file whose first column is ``step``.

    A column that appears later (a body's first whole episode) makes the file be written anew, with
    empty cells above.

    Args:
        path: the file; rows that it holds already, up to ``last_step``, are kept.
        last_step: rows beyond it belong to what a resumed run will do again.
    """

    def __init__(self, path: Path, last_step: int = 0) -> None:
        self.path = path
        self._rows: list[dict[str, Any]] = []
        self._columns = ["step"]
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                self._columns = list(reader.fieldnames or ["step"])
                self._rows = [row for row in reader if int(row["step"]) <= last_step]
        self._rewrite()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """Append one row of the scalars among ``key_values``."""
        row = {"step": step} | {k: float(v) for k, v in key_values.items() if _is_number(v)}
        self._rows.append(row)
        new = [key for key in row if key not in self._columns]
        if new:
            self._columns += sorted(new)
            self._rewrite()
        else:
            csv.DictWriter(self._file, self._columns).writerow(row)
            self._file.flush()

    def _rewrite(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        beside = self.path.with_suffix(".tmp")
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(beside, self.path)
        self._file = self.path.open("a", newline="")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
