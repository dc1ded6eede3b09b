"""Folders that are written as a whole or not at all.

A folder is written under a hidden name beside its place and renamed when it is complete and on the disk.
No system call that Python offers replaces a folder that is not empty, so an old one steps aside first,
to the name that :func:`standing` knows: at every moment either ``folder`` or the one that stepped aside
is complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """Gives an empty folder to write into, which becomes ``folder`` when the block ends without an error.

    Args:
        folder: The place; its parents are made, a folder that is there is replaced.

    Yields:
        The folder to write into. After an error it is removed and ``folder`` is as before.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    writing = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".writing", dir=folder.parent))
    try:
        yield writing
        # mkdtemp makes private folders; these are to be shared like any other.
        writing.chmod(0o777 & ~_umask())
        for path in [*writing.rglob("*"), writing]:
            _sync(path)
        _commit(writing, folder)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise


def copy_folder(source: str | Path, target: str | Path) -> None:
    """Copies a folder so that ``target`` is the old or the new one at every moment.

    Args:
        source: What to copy.
        target: Its place; replaced if there.

    Raises:
        FileNotFoundError: If ``source`` is missing.
    """
    with replace_folder(target) as writing:
        shutil.copytree(standing(source), writing, dirs_exist_ok=True)


def remove_folder(folder: str | Path) -> None:
    """Removes a folder so that half of it can never be taken for the whole.

    Args:
        folder: What to remove; it must be there.
    """
    folder = Path(folder)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".removing", dir=folder.parent))
    os.rename(folder, aside)  # an empty folder may be replaced
    shutil.rmtree(aside)


def standing(folder: str | Path) -> Path:
    """The complete folder: ``folder``, or the one that stepped aside if a replacement was cut short.

    Args:
        folder: The place.

    Returns:
        A path; ``folder`` itself when neither is there.
    """
    folder = Path(folder)
    previous = _previous(folder)
    return previous if not folder.exists() and previous.is_dir() else folder


def _commit(writing: Path, folder: Path) -> None:
    previous = _previous(folder)
    if folder.exists():
        if previous.exists():  # left by a replacement that was cut short after its last rename
            shutil.rmtree(previous)
        os.rename(folder, previous)
    try:
        os.rename(writing, folder)
    except OSError:
        if previous.exists() and not folder.exists():
            os.rename(previous, folder)
        raise
    _sync(folder.parent)
    if previous.exists():
        shutil.rmtree(previous)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # Reading the mask is only possible by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
