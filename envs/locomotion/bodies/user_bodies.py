"""Robots that a user brings: a file, a folder of files, or a name of MuJoCo Menagerie.

MuJoCo's compiler trusts its input: a height field whose size overflows ends the process, a mechanism that is
repeated a million times never ends. So a file is compiled in another process first, see `CompileGuard`.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ...errors import UserError, check_installed, nearest, one_line
from .families import distinct
from .mjcf import load_morphology
from .mjcf_files import check_files, what_a_folder_holds
from .morphology import Morphology

MENAGERIE = "menagerie:"

SECONDS = 5
"""Of computation that a robot may need to compile and make its first steps; public ones need below one."""

MEMORY = 8 * 2**30  # bytes of addresses that it may need; the process itself takes one of the eight
_CHILD = Path(__file__).with_name("compile_child.py")

MOST_ROBOTS, MOST_ENTRIES = 1000, 200_000
"""MJCF files of a folder, and files and folders in it, that are looked through."""


class UserBodies:
    """Bodies read from MJCF files; `RobotSet` says what the arguments mean.

    ``source`` is an MJCF file; a folder, all of whose MJCF files with an actuator are bodies, called after
    their files; or ``menagerie:<robot>`` (``menagerie:<robot>/<entry>``), fetched at its first use.

    Raises:
        UserError: nothing there that can be a body; with the reason for each file.
    """

    def __init__(
        self,
        source: str,
        files_from: str | None = None,
        compile_seconds: int = SECONDS,
        keyframe: str | int | None = None,
    ) -> None:
        self.source, self._bodies, reasons = source, dict[str, Morphology](), []
        folder = Path(source).expanduser()
        if source.startswith(MENAGERIE):
            robot = source.removeprefix(MENAGERIE)
            files = {robot: menagerie_file(robot)}
        else:
            files = _find_files(folder)
        allowed = [] if files_from is None else [Path(files_from).expanduser()]
        if allowed and not allowed[0].is_dir():
            raise UserError(
                f"env.files_from={files_from!r} is no folder; say one that is there, or leave it out"
            )
        with CompileGuard(compile_seconds) as guard:
            for name, path in files.items():
                try:
                    root = folder if folder.is_dir() else path.parent
                    is_inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
                    if folder.is_dir() and not is_inside:
                        raise UserError(
                            f"{path} is a link out of {folder}; name the file that it leads to instead"
                        )
                    check_files(path, root, *allowed)
                    guard.check(path)
                    self._bodies[name] = load_morphology(name, path, keyframe)
                except UserError as error:
                    reasons.append(str(error))
        if not self._bodies:
            if held := what_a_folder_holds(folder, MOST_ROBOTS) if folder.is_dir() else "":
                reasons.append(held)
            raise UserError(reasons[0] if len(reasons) == 1 else "no robot here: " + "; ".join(reasons))
        self._names, twins = distinct(list(self._bodies), self._bodies.__getitem__)
        reasons += [f"{twin} is the same robot as {name}" for twin, name in twins.items()]
        for reason in reasons:
            warnings.warn(f"left out: {reason}", stacklevel=3)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bodies, without those that equal another one."""
        return tuple(self._names)

    def canonical(self, name: str, also: Sequence[str] = ()) -> str:
        """The name itself. Raises UserError, with the nearest name (or group in ``also``), if unknown."""
        if name not in self._bodies:
            raise UserError(f"{self.source} has no body {name!r}; {nearest(name, [*self._bodies, *also])}")
        return name

    def build(self, name: str) -> Morphology:
        """The body of that name."""
        return self._bodies[self.canonical(name)]

    def match(self, patterns: str | Sequence[str]) -> tuple[str, ...]:
        """Names that fit a pattern (``*``, ``?``, ``[...]``), duplicates too. Raises UserError: none fits."""
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        for pattern in patterns:
            if not fnmatch.filter(self._bodies, pattern):
                hint = nearest(pattern, self._bodies)
                raise UserError(f"no body of {self.source} fits {pattern!r}; {hint}")
        return tuple(n for n in self._bodies if any(fnmatch.fnmatchcase(n, p) for p in patterns))


def read_user_bodies(source: str, **options: Any) -> UserBodies:
    """`UserBodies` of a source, read once (compiling many meshes takes seconds) and after every edit."""
    path = Path(source)
    files = [path] if path.is_file() else _xml_files(path) if path.is_dir() else []
    stamps = tuple(file.stat().st_mtime_ns for file in files if file.is_file())
    return _read(stamps, source, **options)


@functools.lru_cache(maxsize=8)
def _read(stamps: tuple[int, ...], source: str, **options: Any) -> UserBodies:
    return UserBodies(source, **options)


@functools.lru_cache(maxsize=64)
def check_robot(path: Path, stamp: int) -> None:
    """Refuses a file, which another library is to read, as `UserBodies` does.

    Args:
        path: of the file.
        stamp: when it was last written; it is checked again after every edit.

    Raises:
        UserError: it is no robot, or reads files beyond its folder.
    """
    check_files(path)
    with CompileGuard() as guard:
        guard.check(path)


def absolute_source(source: str) -> str:
    """The source as it is found from every folder."""
    return source if source.startswith(MENAGERIE) else os.path.abspath(Path(source).expanduser())


def _find_files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {path.stem: path}
    if not path.is_dir():
        if not path.parent.is_dir():
            raise UserError(f"there is no file {str(path)!r}: {path.parent} is no folder")
        beside = [p.name for p in path.parent.iterdir() if p.is_dir() or p.suffix == ".xml"]
        raise UserError(f"{path.parent} has no {path.name!r}; {nearest(path.name, beside)}")
    files = _xml_files(path)
    if not files:
        held = what_a_folder_holds(path, MOST_ROBOTS)
        raise UserError(f"{path} holds no .xml file" + (held and f"; {held}"))
    stems = [file.stem for file in files]
    # Two robots of one file name are told apart by their folders.
    return {
        file.stem if stems.count(file.stem) == 1 else str(file.relative_to(path).with_suffix("")): file
        for file in files
    }


def _xml_files(folder: Path) -> list[Path]:
    """The MJCF files of a folder and of those in it. Raises UserError: it is too large."""
    found, entries = [], 0
    for at, folders, names in os.walk(folder):
        entries += len(folders) + len(names)
        found += [Path(at, name) for name in names if name.endswith(".xml")]
        if entries > MOST_ENTRIES or len(found) > MOST_ROBOTS:
            raise UserError(
                f"{folder} is too large to be a folder of robots: more than {MOST_ROBOTS:,} .xml files, or "
                f"{MOST_ENTRIES:,} files of any kind; name one that holds what is to be trained on"
            )
    return sorted(found)


def menagerie_file(name: str) -> Path:
    """File of a robot of MuJoCo Menagerie, fetched at its first use.

    Args:
        name: ``<robot>`` (its default scene) or ``<robot>/<entry>``.

    Raises:
        UserError: the package is missing, the name unknown, or nothing could be fetched.
    """
    check_installed(MENAGERIE + name, {"mujoco_menagerie": "mujoco-menagerie"}, "menagerie")
    package = importlib.import_module("mujoco_menagerie")
    robot, _, entry = name.partition("/")
    if robot not in package.names():
        raise UserError(f"MuJoCo Menagerie has no robot {robot!r}; {nearest(robot, package.names())}")
    found = package.get(robot)
    if entry and entry not in found.entry_names:
        raise UserError(f"{robot} of MuJoCo Menagerie has no {entry!r}; {nearest(entry, found.entry_names)}")
    try:
        return Path(found.xml(entry or None))
    except (package.MenagerieError, OSError) as error:
        raise UserError(f"{MENAGERIE}{name} could not be fetched: {error}") from error


class CompileGuard(AbstractContextManager):
    """A process that compiles files, each within ``seconds`` and ``memory`` (bytes); a context manager."""

    def __init__(self, seconds: int = SECONDS, memory: int = MEMORY) -> None:
        self._limits = (seconds, memory)
        self._process: subprocess.Popen[str] | None = None

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.kill()  # it has nothing to lose
            self._process.wait()

    def check(self, path: Path) -> None:
        """Compiles a file and steps it.

        Raises:
            UserError: MuJoCo does not compile it, crashes on it, or needs more time or memory than it may.
        """
        if self._process is None:
            # No display, no threads: it draws nothing. In a folder of its own: nothing is imported from ours.
            environment = {**os.environ, "MUJOCO_GL": "disable", "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
                cwd=tempfile.gettempdir(),
            )
        try:
            self._process.stdin.write(json.dumps([os.path.abspath(path), *self._limits]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"the process that compiles robots has ended with code {code}")
        refusal = json.loads(line)
        if refusal:
            raise UserError(f"{path} {one_line(refusal)}")
