"""Files that may come from a stranger."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import UserError


def read_regular(path: str | Path, most: int, kind: type[UserError] = UserError) -> bytes:
    """Content of a regular file of ``most`` bytes.

    Raises:
        OSError: It cannot be read.
        UserError: Of ``kind``: it is larger, or no regular file (a device, a pipe, on which one would wait).
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise kind(f"{path} is no regular file")
        if found.st_size > most:
            raise kind(f"{path} has {found.st_size:,} bytes; at most {most:,} are read")
        return file.read(most)
