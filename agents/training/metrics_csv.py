"""``metrics.csv``: every logged scalar, one row for each update, kept when a run is resumed."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from stable_baselines3.common.logger import KVWriter

from ...envs.errors import UserError
from ..storage.atomic import replace_file


def _raise(error: OSError) -> None:
    raise error


class MetricsCsv(KVWriter):
    """Writes SB3's logger to a CSV file whose first column is ``step``.

    A column that appears later (a body's first whole episode) makes the file be written anew, with
    empty cells above; so does a row that could not be written, with the next one.

    Args:
        path: the file; rows that it holds already, up to ``last_step``, are kept.
        last_step: rows beyond it belong to what a resumed run will do again.
        failed: is told of an error of the disk; if it returns, rows wait for the next one.
        succeeded: is told when every row has been written.

    Raises:
        UserError: the file that is there is damaged.
        OSError: it cannot be written at the start.
    """

    def __init__(
        self,
        path: Path,
        last_step: int = 0,
        failed: Callable[[OSError], None] = _raise,
        succeeded: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self._failed, self._succeeded = path, failed, succeeded
        self._columns, rows = _read(path) if path.exists() else (["step"], [])
        self._rows: list[dict[str, Any]] = [row for row in rows if int(row["step"]) <= last_step]
        self._file: IO[str] | None = None
        self._rewrite()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """Append one row of the scalars among ``key_values``."""
        row = {"step": step} | {k: float(v) for k, v in key_values.items() if _is_number(v)}
        self._rows.append(row)
        new = [key for key in row if key not in self._columns]
        self._columns += sorted(new)
        try:
            if new or self._file is None:
                self._rewrite()
            else:
                csv.DictWriter(self._file, self._columns).writerow(row)
                self._file.flush()
        except OSError as error:
            self._drop()
            self._failed(error)
        else:
            self._succeeded()

    def _rewrite(self) -> None:
        self._drop()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        replace_file(self.path, text.getvalue().encode())
        self._file = self.path.open("a", newline="", encoding="utf-8")

    def _drop(self) -> None:
        """Close the file; what it could not take is written with all other rows."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:
                pass  # it tries to write what it could not write before

    def close(self) -> None:
        """Close the file."""
        self._drop()


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows. Raises UserError: a line that is none of ours."""
    text = path.read_text(encoding="utf-8", errors="replace")
    text = text[: text.rfind("\n") + 1]  # the last row of a process that was killed may be half there
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns, rows = list(reader.fieldnames or ["step"]), []
    for row in reader:
        if None in row or None in row.values() or not str(row.get("step")).isdecimal():
            raise UserError(
                f"{path} is damaged at line {reader.line_num}; move it away to go on without its earlier rows"
            )
        rows.append(row)
    return columns, rows


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
