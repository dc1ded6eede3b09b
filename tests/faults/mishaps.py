"""What happens to a run, at a moment that a test chooses; called in the run's own process."""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def before(what: str, call: int, do: Callable[[], None]) -> None:
    """Do something right before the n-th call of ``module:name`` or ``module:Class.name``."""
    module, _, path = what.partition(":")
    holder: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        holder = getattr(holder, parent)
    function, count = getattr(holder, name), 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            do()
        return function(*arguments, **options)

    setattr(holder, name, wrapped)


def send(what: str, number: int, call: int = 1, again_after: float | None = None) -> None:
    """A signal to this process, and perhaps the same one again, some seconds later."""

    def do() -> None:
        os.kill(os.getpid(), number)
        if again_after is not None:
            time.sleep(again_after)
            os.kill(os.getpid(), number)

    before(what, call, do)


def slow_disk(seconds: float) -> None:
    """Every fsync takes longer, so that a test can kill in the middle of saving."""
    sync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(seconds)
        sync(descriptor)

    os.fsync = slow


def small_files(what: str, call: int, until: int, size: int) -> None:
    """From one call to another no file may grow beyond ``size`` bytes (RLIMIT_FSIZE)."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before(what, call, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard)))
    before(what, until, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))


def own_mounts() -> None:
    """User and mount namespaces of its own. Exits with 99 where the machine does not allow them."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_user, new_mounts = 0x10000000, 0x00020000
    user, group = os.getuid(), os.getgid()
    if libc.unshare(new_user | new_mounts) != 0:
        os._exit(99)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError:
        os._exit(99)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    if libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]) != 0:
        raise OSError(ctypes.get_errno(), "mount", target)


def full_disk(folder: str, size: str, what: str, call: int, until: int | None = None) -> None:
    """A file system of its own at ``folder``, which is full from one call to another.

    What it holds at the end is copied to ``<folder>-after``.
    """
    import shutil

    own_mounts()
    _mount("tmpfs", folder, "tmpfs", 0, f"size={size}")
    filler = Path(folder) / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            for block in (2**16, 2**10, 1):
                try:
                    while file.write(bytes(block)):
                        pass
                except OSError:
                    continue

    before(what, call, fill)
    if until is not None:
        before(what, until, filler.unlink)
    leave = os._exit

    def copied(code: int) -> None:
        filler.unlink(missing_ok=True)
        os.chdir("/")
        shutil.copytree(folder, f"{folder}-after", dirs_exist_ok=True)
        leave(code)

    os._exit = copied
    os.chdir(folder)


def read_only(folder: str, what: str, call: int, until: int | None = None) -> None:
    """``folder`` is mounted read-only from one call to another; root, too, cannot write then.

    Files that are open already stay open for writing, as they would in a folder that lost its permission.
    """
    own_mounts()
    bind, remount, only_read, lazily = 0x1000, 0x20, 0x1, 0x2

    def cover() -> None:
        _mount(folder, folder, None, bind, None)
        _mount(folder, folder, None, bind | remount | only_read, None)
        os.chdir(folder)  # relative paths, too, lead to the cover

    before(what, call, cover)
    if until is not None:
        before(what, until, lambda: ctypes.CDLL(None).umount2(folder.encode(), lazily))
    os.chdir(folder)


def raises(what: str, call: int, error: int) -> None:
    """An error of the system at one call."""

    def do() -> None:
        raise OSError(error, os.strerror(error))

    before(what, call, do)
