"""Where a run keeps what it leaves behind, and which process may write there.

::

    runs/<date-time with microseconds>-<env>-<agent>-<algorithm>/
      .lock                                who writes into it, see `hold`
      checkpoints/<step>/policy/           what is shared
                         training_state/   what the run resumes from
      policy/                              the last policy
      best/                                the best one by validation
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

from ...envs.errors import UserError, nearest
from .atomic import clear_leftovers, remove_folder, replace_folder, standing, stepped_aside

log = logging.getLogger(__name__)

ROOT, CHECKPOINTS, SET_ASIDE, LOCK = "runs", "checkpoints", ".set_aside", ".lock"
TIME_FORMAT = "%Y-%m-%d_%H-%M-%S-%f"
"""With which the name of a run begins, as in ``conf/train.yaml``."""

_TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}")
# Jobs of one multirun start at one time and end in their number.
_NAME = re.compile(rf"({_TIME.pattern})-.*?(?:-(\d+))?$")
_TAKEN = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_held: dict[Path, int] = {}
"""How often this process holds each folder: the system gives a process its own lock again and again."""


def find_run(run: str | Path, root: str | Path = ROOT, needs: str = "policy") -> Path:
    """The folder of a run.

    Args:
        run: ``last`` for the newest run that has ``needs``, a path, or a folder's name in ``root``.
        root: Where runs are.
        needs: A folder that the run must have: ``policy`` to evaluate it, ``checkpoints`` to resume it.

    Raises:
        UserError: No such run; the nearest names are told.
    """
    root = Path(root)
    folders = [folder for folder in root.glob("*") if not folder.name.startswith(".")]
    runs = sorted((folder for folder in folders if standing(folder / needs).is_dir()), key=_started)
    if str(run) == "last":
        if not runs:
            raise UserError(f"There is no run with {needs}/ in {root.resolve()}; somite-train makes one.")
        return runs[-1]
    for folder in (Path(run), root / run):
        if folder.is_dir():
            if not standing(folder / needs).is_dir():
                raise UserError(f"{folder} is there but has no {needs}/: {_content(folder)}")
            return folder
    names, beside = [folder.name for folder in reversed(runs)][:20], Path(run).parent
    if beside != Path() and beside.is_dir():
        names = [path.name for path in beside.iterdir() if path.is_dir() and not path.name.startswith(".")]
    raise UserError(
        f"There is no run {str(run)!r}, neither as a path nor in {root.resolve()}; "
        f"{nearest(Path(run).name, [*names, 'last']) if names else 'no run is there yet'}"
    )


def _started(folder: Path) -> tuple[str, int, str]:
    match = _NAME.match(folder.name)
    if match:
        return match[1], int(match[2] or 0), folder.name
    # A folder that was renamed or made otherwise: by when it last changed.
    return datetime.fromtimestamp(folder.stat().st_mtime).strftime(TIME_FORMAT), 0, folder.name


def _content(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return f"it holds {', '.join(names[:10])}" if names else "it is empty"


def claim_folder(folder: str | Path) -> Path:
    """Makes a new folder that no other run has; a name that is taken gets the next free microsecond.

    Raises:
        UserError: It is there and its name does not begin with a time.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            folder.mkdir()  # either this process makes it or another one has
            return folder
        except FileExistsError:
            match = _TIME.match(folder.name)
            if match is None:
                raise UserError(f"{folder} is there already; choose another folder") from None
            later = datetime.strptime(match[0], TIME_FORMAT) + timedelta(microseconds=1)
            folder = folder.with_name(later.strftime(TIME_FORMAT) + folder.name[match.end() :])


def checkpoint_folder(run: str | Path, step: int) -> Path:
    """Place of the checkpoint of a step."""
    return Path(run) / CHECKPOINTS / str(int(step))


def new_checkpoint(run: str | Path, step: int) -> AbstractContextManager[Path]:
    """A block's folder for ``policy/`` and ``training_state/``, which becomes the checkpoint of a step."""
    return replace_folder(checkpoint_folder(run, step))


def list_checkpoints(run: str | Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folder, found = Path(run) / CHECKPOINTS, {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:  # stepped aside ones come first
        name = stepped_aside(path) or path.name
        if name.isdecimal() and path.is_dir():
            found[int(name)] = path
    return [found[step] for step in sorted(found)]


def step_of(checkpoint: str | Path) -> int:
    """The step of one of `list_checkpoints`."""
    checkpoint = Path(checkpoint)
    return int(stepped_aside(checkpoint) or checkpoint.name)


def last_checkpoint(run: str | Path) -> Path:
    """The newest complete checkpoint of a run. Raises UserError: it has none."""
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise UserError(f"{run} has no checkpoint to go on from: {_content(Path(run))}")
    return checkpoints[-1]


def find_checkpoint(run: str | Path, step: int) -> Path:
    """The checkpoint of a step. Raises UserError, which names the steps that were saved, if it was not."""
    checkpoints = {step_of(path): path for path in list_checkpoints(run)}
    if step not in checkpoints:
        there = nearest(str(step), map(str, checkpoints))
        raise UserError(f"{run} has no checkpoint of step {step}; {there}")
    return checkpoints[step]


def split_checkpoint(path: str | Path) -> tuple[Path, int | None]:
    """The run and the step of ``<run>/checkpoints/<step>``; of any other path the path itself and None."""
    path = Path(path)
    if path.name.isdecimal() and path.parent.name == CHECKPOINTS:
        return path.parent.parent, int(path.name)
    return path, None


def keep_newest(run: str | Path, count: int) -> None:
    """Removes all but the ``count`` newest checkpoints; one always stays."""
    for folder in list_checkpoints(run)[: -max(1, count)]:
        remove_folder(folder)


def publish(checkpoint: str | Path, run: str | Path) -> None:
    """Copies a checkpoint's policy to ``policy/`` of its run."""
    with replace_folder(Path(run) / "policy") as writing:
        shutil.copytree(standing(Path(checkpoint) / "policy"), writing, dirs_exist_ok=True)


def go_back_to(run: str | Path, step: int) -> list[Path]:
    """Makes an earlier checkpoint the last one, and its policy the run's; no other process may write there.

    Returns:
        Where the later ones are now, ``checkpoints/<step>.set_aside``; nothing is deleted.

    Raises:
        UserError: There is no such checkpoint, with the steps that there are.
    """
    checkpoint, moved = find_checkpoint(run, step), []
    for later in [path for path in list_checkpoints(run) if step_of(path) > step]:
        aside, count = later.with_name(f"{step_of(later)}{SET_ASIDE}"), 1
        while aside.exists():
            count += 1
            aside = later.with_name(f"{step_of(later)}{SET_ASIDE}-{count}")
        moved.append(later.rename(aside))
    publish(checkpoint, run)
    return moved


def tidy(run: str | Path) -> None:
    """Tidies what a killed process has left half written; no other process may write into the run."""
    clear_leftovers(run)
    clear_leftovers(Path(run) / CHECKPOINTS)


@contextmanager
def hold(folder: str | Path) -> Iterator[None]:
    """Keeps a run's folder, which must be there, for this process; within the block it may be held again.

    A record lock (``fcntl``) belongs to the process: the system gives it back however the process ends, and
    child processes do not inherit it. On a network file system it holds between machines only where the
    server keeps locks (NFS 4, or NFS 3 with its lock daemon); where it keeps none, that is said and the run
    goes on unguarded.

    Raises:
        UserError: Another process holds it, which is named, or nothing can be written into it.
    """
    folder = Path(folder).resolve()
    file = None if folder in _held else _lock(folder)
    _held[folder] = _held.get(folder, 0) + 1
    try:
        yield
    finally:
        _held[folder] -= 1
        if file is not None:
            del _held[folder]
            file.close()  # gives the lock back


def holder(folder: str | Path) -> str | None:
    """Who holds a run's folder, in words; None if nobody does. Nothing in it is changed."""
    folder = Path(folder).resolve()
    if folder in _held:
        return f"this process ({os.getpid()})"
    path = folder / LOCK
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # A folder without a lock file, a read-only one, or a file system without locks: nobody can hold it.
        return _described(path) if error.errno in _TAKEN and os.access(path, os.W_OK) else None
    return None


def _lock(folder: Path) -> IO[bytes]:
    path = folder / LOCK
    said = {"process": os.getpid(), "host": socket.gethostname()}
    said["since"] = datetime.now().isoformat(timespec="seconds")
    try:
        with ExitStack() as closing:
            file = closing.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b"))
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _TAKEN:
                    user = _described(path)
                    advice = "wait for it, stop it, or start a run of its own"
                    raise UserError(f"{folder} is in use by {user}; {advice}") from error
                if error.errno not in _NO_LOCKS:
                    raise
                unguarded = "nothing keeps a second run out of it"
                log.warning("%s cannot be locked (%s): %s", folder, error.strerror, unguarded)
            else:
                file.truncate(0)
                file.write(json.dumps(said).encode() + b"\n")
                file.flush()
            closing.pop_all()  # it stays open, and with it the lock
            return file
    except OSError as error:
        raise UserError(f"{folder} cannot be written into: {error.strerror}") from error


def _described(path: Path) -> str:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return f"process {said['process']} on {said['host']}, since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has just taken it and not yet said who it is
