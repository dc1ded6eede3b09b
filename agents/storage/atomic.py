"""Files and folders that are written as a whole or not at all.

A folder is written under a hidden name beside its place and renamed when it is complete and on the disk. No
system call that Python offers replaces a folder that is not empty, so an old one steps aside first, to the
name that `standing` knows: at every moment either ``folder`` or the one that stepped aside is complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_WRITING, _REMOVING, _PREVIOUS = ".writing", ".removing", ".previous"


@contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """Gives an empty folder to write into, which becomes ``folder`` when the block ends without an error.

    Parents are made, and a folder that is there is replaced. After an error ``folder`` is as before.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    writing = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=_WRITING, dir=folder.parent))
    try:
        yield writing
        # mkdtemp makes private folders; these are to be shared like any other.
        mask = os.umask(0o022)  # reading the mask is only possible by setting it
        os.umask(mask)
        writing.chmod(0o777 & ~mask)
        for path in [*writing.rglob("*"), writing]:
            _sync(path)
        _rename(writing, folder)
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise


def _rename(writing: Path, folder: Path) -> None:
    previous = _previous(folder)
    if folder.exists():
        if previous.exists():  # left by a replacement that was cut short after its last rename
            remove_folder(previous)
        os.rename(folder, previous)
    try:
        os.rename(writing, folder)
    except OSError:
        if previous.exists() and not folder.exists():
            os.rename(previous, folder)
        raise
    _sync(folder.parent)
    if previous.exists():
        # Not in place: half of it, left by a kill, would be taken for the whole once `folder` is gone.
        remove_folder(previous)


def replace_file(path: str | Path, data: bytes) -> None:
    """Writes a file so that it is the old or the new one at every moment; see `replace_files`."""
    replace_files({Path(path): data})


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Writes files so that each is the old or the new one at every moment; the last one is replaced last.

    Raises:
        OSError: One cannot be written; the old files stay, and nothing beside them.
    """
    beside = {path: path.with_name(f".{path.name}{_WRITING}") for path in contents}
    try:
        for path, data in contents.items():
            beside[path].unlink(missing_ok=True)  # a link there would lead what is written elsewhere
            with beside[path].open("xb") as file:
                file.write(data)
            _sync(beside[path])
        for path, written in beside.items():
            os.replace(written, path)
    except BaseException:
        for written in beside.values():
            with suppress(OSError):
                written.unlink()
        raise


def remove_folder(folder: str | Path) -> None:
    """Removes a folder so that half of it can never be taken for the whole."""
    folder = Path(folder)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name.lstrip('.')}.", suffix=_REMOVING, dir=folder.parent))
    os.rename(folder, aside)  # an empty folder may be replaced
    shutil.rmtree(aside)


def standing(folder: str | Path) -> Path:
    """The complete folder: ``folder``, or the one that stepped aside if a replacement was cut short."""
    folder = Path(folder)
    previous = _previous(folder)
    return previous if not folder.exists() and previous.is_dir() else folder


def stepped_aside(path: Path) -> str | None:
    """The name of the folder that ``path`` is the stepped-aside one of; None if it is of none."""
    is_aside = path.name.startswith(".") and path.name.endswith(_PREVIOUS)
    return path.name[1 : -len(_PREVIOUS)] if is_aside else None


def clear_leftovers(folder: str | Path) -> None:
    """Tidies what a killed process has left in a folder; no other process may write into it.

    A folder that had stepped aside for one that never came takes its place again; what was half written or
    half removed is deleted.
    """
    for path in sorted(Path(folder).glob(".*")):
        name = stepped_aside(path)
        if name is not None and not path.with_name(name).exists():
            os.rename(path, path.with_name(name))
        elif name is not None:
            remove_folder(path)
        elif path.name.endswith((_WRITING, _REMOVING)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_PREVIOUS}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
