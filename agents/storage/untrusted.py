"""Folders that may come from a stranger: what is read and written there stays there."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ...envs.errors import UserError

MOST_ENTRIES = 500_000
"""Files and folders of a run."""


def check_links(folder: str | Path) -> None:
    """Refuses a folder in which something leads out of it, so that nothing else is read or written.

    Args:
        folder: of a run, or of what is written into one; it may be missing.

    Raises:
        UserError: a link that leads out, or what is neither file, folder nor link (a pipe, on which a reader
            waits for ever); it is named.
    """
    root, entries = os.path.realpath(folder), 0
    for at, folders, files in os.walk(root):
        entries += len(folders) + len(files)
        if entries > MOST_ENTRIES:
            raise UserError(f"{folder} has more than {MOST_ENTRIES:,} files, which is no run's folder")
        for name in (*folders, *files):
            path = os.path.join(at, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                check_inside(path, root)
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise UserError(f"{path} is neither a file nor a folder; take it away")


def check_inside(path: str | Path, folder: str | Path, kind: type[UserError] = UserError) -> None:
    """Raises ``kind`` of error: a path leads out of a folder, through links or ``..``."""
    root = os.path.realpath(folder)
    if os.path.commonpath([os.path.realpath(path), root]) != root:
        raise kind(
            f"{path} is a link that leads out of {folder}, where nothing is read or written for a run; put "
            "what it leads to in its place"
        )


def read_regular(path: Path, most: int, kind: type[UserError] = UserError) -> bytes:
    """Content of a file that is no larger than it may be.

    Args:
        path: of the file.
        most: bytes.
        kind: of error.

    Raises:
        OSError: it cannot be read.
        UserError: of ``kind``: it is larger, or no regular file (a pipe, a device).
    """
    with open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise kind(f"{path} is no regular file")
        if found.st_size > most:
            raise kind(f"{path} has {found.st_size:,} bytes; at most {most:,} are read")
        return file.read(most)


def read_json(path: Path, most: int) -> Any:
    """What a JSON file of ours says.

    Args:
        path: of the file.
        most: bytes.

    Raises:
        UserError: it cannot be read, is larger, no regular file, or no JSON.
    """
    try:
        return json.loads(read_regular(path, most).decode("utf-8"))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not JSON ({error})") from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
