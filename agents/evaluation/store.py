"""Episodes on disk as they come, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...envs.errors import UserError


def key_of(meant: Mapping[str, Any]) -> str:
    """A name for a piece of work: equal for equal work, other for any other.

    Args:
        meant: all that its numbers depend on, as JSON has it.
    """
    text = json.dumps(meant, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class EpisodeStore:
    """A file to which pieces of work are appended, one line each, and which knows those it has.

    Args:
        path: of the file; it and its folder are made.

    Raises:
        UserError: a line that is damaged; the last one may have been cut by an interruption and is left out.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._records = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # an interruption has cut the last line
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = json.loads(line)
                self._records[record["key"]] = record
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(
                    f"{path}, line {number}, is damaged ({error}); move the file away to begin anew"
                ) from error

    def get(self, key: str) -> dict[str, Any] | None:
        """The piece of work of that key, if it has been done."""
        return self._records.get(key)

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a piece of work; when this returns, it is on disk."""
        record = {"key": key, **record}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._records[key] = record
