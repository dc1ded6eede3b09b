"""One process at a time writes into a run's folder.

A record lock (``fcntl``) on ``.lock`` in the folder belongs to the process: the system gives it back when the
process ends, however it ends, so a lock that a dead process has left does not exist. Child processes do not
inherit it. On a network file system it holds between machines only where the server keeps locks (NFS 4, or
NFS 3 with its lock daemon); where it keeps none, that is said and the run goes on unguarded.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from ...envs.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_held: dict[Path, int] = {}
"""How often this process holds each folder: the system gives a process its own lock again and again."""


@contextmanager
def hold(folder: str | Path) -> Iterator[None]:
    """Keeps a run's folder for this process while the block lasts; within it, it may be held again.

    Args:
        folder: The run's folder; it must be there.

    Raises:
        UserError: Another process holds it, which is named, or nothing can be written into it.
    """
    folder = Path(folder).resolve()
    if folder in _held:
        _held[folder] += 1
        try:
            yield
        finally:
            _held[folder] -= 1
        return
    file = _lock(folder)
    _held[folder] = 1
    try:
        yield
    finally:
        del _held[folder]
        file.close()  # gives the lock back


def holder(folder: str | Path) -> str | None:
    """Who holds a run's folder, in words; None if nobody does.

    Args:
        folder: The run's folder. Nothing in it is changed.
    """
    folder = Path(folder).resolve()
    if folder in _held:
        return f"this process ({os.getpid()})"
    path = folder / LOCK
    if not path.exists():
        return None
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        if error.errno == errno.EACCES and not os.access(path, os.W_OK):
            return None
        return _described(path)
    except OSError:  # a read-only folder, or one without locks: nobody can hold it
        return None
    return None


def _lock(folder: Path) -> IO[bytes]:
    path = folder / LOCK
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    except OSError as error:
        raise UserError(f"{folder} cannot be written into: {error.strerror}") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            log.warning(
                "%s cannot be locked (%s): nothing keeps a second run out of it", folder, error.strerror
            )
            return file
        file.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise UserError(f"{path} cannot be locked: {error.strerror}") from error
        raise UserError(
            f"{folder} is in use by {_described(path)}; wait for it, stop it, or start a run of its own"
        ) from error
    said = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(timespec="seconds"),
    }
    try:
        file.truncate(0)
        file.write(json.dumps(said).encode() + b"\n")
        file.flush()
    except OSError as error:
        file.close()
        raise UserError(f"{folder} cannot be written into: {error.strerror}") from error
    return file


def _described(path: Path) -> str:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return f"process {said['process']} on {said['host']}, since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has just taken it and not yet said who it is
