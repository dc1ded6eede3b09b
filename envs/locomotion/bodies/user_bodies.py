"""Robots that a user brings: a file, a folder of files, or a name of MuJoCo Menagerie."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, nearest
from .mjcf import load_morphology
from .morphology import Morphology

MENAGERIE = "menagerie:"


class UserBodies:
    """Bodies read from MJCF files.

    Args:
        source: an MJCF file; a folder, all of whose MJCF files with an actuator are bodies, called after
            their files; or ``menagerie:<robot>`` (``menagerie:<robot>/<entry>``), which the package
            ``mujoco-menagerie`` fetches from the network at its first use.

    Raises:
        UserError: nothing there that can be a body; with the reason for each file.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        if source.startswith(MENAGERIE):
            files = {source.removeprefix(MENAGERIE): menagerie_file(source.removeprefix(MENAGERIE))}
        else:
            files = _find_files(Path(source).expanduser())
        self._files = files
        self._bodies: dict[str, Morphology] = {}
        reasons = []
        for name, path in files.items():
            try:
                self._bodies[name] = load_morphology(name, path)
            except UserError as error:
                reasons.append(str(error))
        if not self._bodies:
            raise UserError(reasons[0] if len(reasons) == 1 else "no robot here: " + "; ".join(reasons))
        for reason in reasons:
            warnings.warn(f"left out: {reason}", stacklevel=3)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bodies."""
        return tuple(self._bodies)

    def canonical(self, name: str, also: Sequence[str] = ()) -> str:
        """The name itself. Raises UserError, with the nearest name (or group in ``also``), if unknown."""
        if name not in self._bodies:
            raise UserError(f"{self.source} has no body {name!r}; {nearest(name, [*self._bodies, *also])}")
        return name

    def build(self, name: str) -> Morphology:
        """The body of that name."""
        return self._bodies[self.canonical(name)]

    def match(self, patterns: str | Sequence[str]) -> tuple[str, ...]:
        """Names that fit one of the patterns (``*``, ``?``, ``[...]``).

        Raises:
            UserError: a pattern that fits none.
        """
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        for pattern in patterns:
            if not fnmatch.filter(self._bodies, pattern):
                hint = nearest(pattern, self._bodies)
                raise UserError(f"no body of {self.source} fits {pattern!r}; {hint}")
        return tuple(n for n in self._bodies if any(fnmatch.fnmatchcase(n, p) for p in patterns))


def read_user_bodies(source: str) -> UserBodies:
    """`UserBodies` of a source, read once (compiling many meshes takes seconds) and after every edit."""
    path = Path(source)
    files = [path] if path.is_file() else sorted(path.rglob("*.xml"))
    return _read(source, tuple(file.stat().st_mtime_ns for file in files if file.is_file()))


@functools.lru_cache(maxsize=8)
def _read(source: str, stamps: tuple[int, ...]) -> UserBodies:
    return UserBodies(source)


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
    files = sorted(path.rglob("*.xml"))
    if not files:
        raise UserError(f"{path} holds no .xml file")
    stems = [file.stem for file in files]
    # Two robots of one file name are told apart by their folders.
    return {
        file.stem if stems.count(file.stem) == 1 else str(file.relative_to(path).with_suffix("")): file
        for file in files
    }


def menagerie_file(name: str) -> Path:
    """File of a robot of MuJoCo Menagerie, fetched at its first use.

    Args:
        name: ``<robot>`` (its default scene) or ``<robot>/<entry>``.

    Raises:
        UserError: the package is missing, the name unknown, or nothing could be fetched.
    """
    try:
        package = importlib.import_module("mujoco_menagerie")
    except ModuleNotFoundError as error:
        if error.name != "mujoco_menagerie":
            raise
        raise UserError(
            f"{MENAGERIE}{name} needs the package mujoco-menagerie: pip install 'somite[menagerie]'"
        ) from error
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
