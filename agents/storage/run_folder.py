"""Where a run keeps what it leaves behind.

::

    runs/<date-time with microseconds>-<env>-<agent>-<algorithm>/
      checkpoints/<step>/policy/           what is shared
                         training_state/   what the run resumes from
      policy/                              the last policy
      best/                                the best one by validation
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from ...envs.errors import UserError, nearest
from .atomic import clear_leftovers, copy_folder, remove_folder, replace_folder, standing, stepped_aside

ROOT = "runs"
CHECKPOINTS = "checkpoints"
SET_ASIDE = ".set_aside"
TIME_FORMAT = "%Y-%m-%d_%H-%M-%S-%f"
_TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}")
# Jobs of one multirun start at one time and end in their number.
_NAME = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6})-.*?(?:-(\d+))?$")


def run_name(env: str, agent: str, algorithm: str, time: datetime | None = None) -> str:
    """Name of a run's folder; the command line composes the same in ``conf/train.yaml``.

    Args:
        env: Choice of the group ``env``.
        agent: Choice of the group ``agent``.
        algorithm: Choice of the group ``algorithm``.
        time: When it started; now if None.

    Returns:
        ``<date-time with microseconds>-<env>-<agent>-<algorithm>``.
    """
    return f"{(time or datetime.now()).strftime(TIME_FORMAT)}-{env}-{agent}-{algorithm}"


def find_run(run: str | Path, root: str | Path = ROOT, needs: str = "policy") -> Path:
    """Finds a run folder.

    Args:
        run: ``last`` for the newest run that has ``needs``, a path, or a folder's name in ``root``.
        root: Where runs are.
        needs: A folder that the run must have: ``policy`` to evaluate it, ``checkpoints`` to resume it.

    Returns:
        The run's folder.

    Raises:
        UserError: If there is none, with the nearest names.
    """
    root = Path(root)
    runs = sorted(_runs(root, needs), key=_started)
    if str(run) == "last":
        if not runs:
            raise UserError(f"There is no run with {needs}/ in {root.resolve()}; somite-train makes one.")
        return runs[-1]
    for folder in (Path(run), root / run):
        if folder.is_dir():
            if not standing(folder / needs).is_dir():
                raise UserError(f"{folder} is there but has no {needs}/: {_content(folder)}")
            return folder
    names = [folder.name for folder in reversed(runs)][:20]
    raise UserError(
        f"There is no run {str(run)!r}, neither as a path nor in {root.resolve()}; "
        f"{nearest(Path(run).name, [*names, 'last']) if names else 'no run is there yet'}"
    )


@contextmanager
def new_checkpoint(run: str | Path, step: int) -> Iterator[Path]:
    """Gives a folder to write ``policy/`` and ``training_state/`` into, which becomes the checkpoint.

    Args:
        run: The run's folder.
        step: Environment steps so far.

    Yields:
        The folder to write into; after an error nothing of it remains.
    """
    with replace_folder(checkpoint_folder(run, step)) as writing:
        yield writing


def checkpoint_folder(run: str | Path, step: int) -> Path:
    """Place of the checkpoint of a step.

    Args:
        run: The run's folder.
        step: Environment steps so far.
    """
    return Path(run) / CHECKPOINTS / str(int(step))


def list_checkpoints(run: str | Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first.

    Args:
        run: The run's folder.
    """
    folder, found = Path(run) / CHECKPOINTS, {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:  # stepped aside ones come first
        name = stepped_aside(path) or path.name
        if name.isdecimal() and path.is_dir():
            found[int(name)] = path
    return [found[step] for step in sorted(found)]


def step_of(checkpoint: str | Path) -> int:
    """The step that a checkpoint was made at.

    Args:
        checkpoint: One of :func:`list_checkpoints`.
    """
    checkpoint = Path(checkpoint)
    return int(stepped_aside(checkpoint) or checkpoint.name)


def last_checkpoint(run: str | Path) -> Path:
    """The newest complete checkpoint of a run.

    Args:
        run: The run's folder.

    Raises:
        UserError: If the run has none.
    """
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise UserError(f"{run} has no checkpoint to go on from: {_content(Path(run))}")
    return checkpoints[-1]


def keep_newest(run: str | Path, count: int) -> None:
    """Removes all but the newest checkpoints.

    Args:
        run: The run's folder.
        count: How many to keep, at least one.
    """
    for folder in list_checkpoints(run)[: -max(1, count)]:
        remove_folder(folder)


def split_checkpoint(path: str | Path) -> tuple[Path, int | None]:
    """The run and the step of ``<run>/checkpoints/<step>``; of any other path the path itself and None.

    Args:
        path: As the user gave it.
    """
    path = Path(path)
    if path.name.isdecimal() and path.parent.name == CHECKPOINTS:
        return path.parent.parent, int(path.name)
    return path, None


def go_back_to(run: str | Path, step: int) -> list[Path]:
    """Makes an earlier checkpoint the last one: later ones are set aside, its policy is published.

    Args:
        run: The run's folder; no other process may write into it.
        step: Of the checkpoint.

    Returns:
        Where the later ones are now, ``checkpoints/<step>.set_aside``; nothing is deleted.

    Raises:
        UserError: There is no such checkpoint, with the steps that there are.
    """
    checkpoints = {step_of(path): path for path in list_checkpoints(run)}
    if step not in checkpoints:
        there = nearest(str(step), map(str, checkpoints))
        raise UserError(f"{run} has no checkpoint of step {step}; {there}")
    moved = []
    for later in [path for at, path in checkpoints.items() if at > step]:
        aside, count = later.with_name(f"{step_of(later)}{SET_ASIDE}"), 1
        while aside.exists():
            count += 1
            aside = later.with_name(f"{step_of(later)}{SET_ASIDE}-{count}")
        later.rename(aside)
        moved.append(aside)
    publish(checkpoints[step], run)
    return moved


def tidy(run: str | Path) -> None:
    """Puts in order what a killed process has left half written in a run's folder.

    Args:
        run: The run's folder; no other process may write into it.
    """
    clear_leftovers(run)
    clear_leftovers(Path(run) / CHECKPOINTS)


def claim_folder(folder: str | Path) -> Path:
    """Makes a new folder that no other run has; a name that is taken gets the next free microsecond.

    Args:
        folder: Named as :func:`run_name` does; its parents are made.

    Returns:
        The folder made.

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


def publish(checkpoint: str | Path, run: str | Path, name: str = "policy") -> Path:
    """Copies a checkpoint's policy to ``policy/`` or ``best/`` of its run, as a whole or not at all.

    Args:
        checkpoint: The checkpoint's folder.
        run: The run's folder.
        name: ``policy`` or ``best``.

    Returns:
        The folder written.
    """
    target = Path(run) / name
    copy_folder(Path(checkpoint) / "policy", target)
    return target


def _runs(root: Path, needs: str) -> list[Path]:
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return [folder for folder in folders if standing(folder / needs).is_dir()]


def _started(folder: Path) -> tuple[str, int, str]:
    match = _NAME.match(folder.name)
    if match:
        return match[1], int(match[2] or 0), folder.name
    # A folder that was renamed or made otherwise: by when it last changed.
    return datetime.fromtimestamp(folder.stat().st_mtime).strftime(TIME_FORMAT), 0, folder.name


def _content(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return f"it holds {', '.join(names[:10])}." if names else "it is empty."
