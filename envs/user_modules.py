"""Modules of the user's own, imported because the command line names them.

They register environments (``env.imports``), or hold classes (``agent._target_=my_module.MyPolicy``).
Nothing else of this package imports a module by a name that a configuration holds: a saved policy, or a
run's own folder, may come from a stranger.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import UserError, nearest, one_line, shown

OURS = "somite."
"""What the names of this package's classes begin with."""

INHERITED = "SOMITE_MODULES"
"""Variable that hands their folder and the modules that the user named on to processes of this one."""

_OURS = str(Path(__file__).parent)
_REGISTRATION = os.path.join("gymnasium", "envs", "registration.py")
_PYTHON = os.path.dirname(os.__file__)
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

_folder: Path | None = None


def look_in(folder: str | Path) -> None:
    """From now on modules are looked for in this folder, too, and not in the one that is then the current."""
    global _folder
    _folder = Path(folder).absolute()


def folder_of_modules() -> Path:
    """Where modules are looked for that are not installed."""
    return _folder or Path.cwd()


def module_names(imports: Any) -> tuple[str, ...]:
    """The names of ``env.imports``: a list, one name, or None. Raises UserError: something else."""
    given = () if imports is None else [imports] if isinstance(imports, str) else imports
    if not isinstance(given, Sequence):
        raise UserError(f"env.imports is a list of modules, such as env.imports=[my_module]; got {imports!r}")
    for name in given:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            meant = re.sub(r"[/\\]+", ".", str(name).strip("./\\").removesuffix(".py"))
            fits = NAME.fullmatch(meant) and not os.path.isabs(str(name))
            hint = f"did you mean env.imports=[{meant}]?" if fits else ""
            raise UserError(
                f"env.imports names modules as Python imports them, such as my_module; got {shown(name)!r}. "
                f"{hint}".strip()
            )
    return tuple(given)


def import_modules(imports: Any, key: str = "env.imports") -> tuple[str, ...]:
    """Imports modules that the user has named: installed ones, or those of `folder_of_modules`.

    Args:
        imports: their names, or one name, or None.
        key: in which he named them, for messages.

    Raises:
        UserError: no such module, or one that cannot be imported, with the reason and the line.
    """
    names = module_names(imports)
    for name in names:
        if name in sys.modules:
            continue
        folder = folder_of_modules()
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # last: it hides nothing installed; worker processes inherit it
        importlib.invalidate_caches()  # a file written a moment ago is found
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # it runs what the user wrote, which may raise anything
            raise UserError(_why(key, name, error, folder)) from error
    return names


def own_class(target: str, key: str) -> type:
    """The class that a key names; its module is imported. Raises UserError: there is no such class."""
    module, _, name = target.rpartition(".")
    if not NAME.fullmatch(module) or not NAME.fullmatch(name):
        raise UserError(f"{key} is a class with its module, such as my_module.MyClass; got {shown(target)!r}")
    import_modules(module, key)
    classes = [known for known, value in vars(sys.modules[module]).items() if isinstance(value, type)]
    if name not in classes:
        raise UserError(f"{key}: the module {module!r} has no class {name!r}; {nearest(name, classes)}")
    inherit(os.pathsep.join(dict.fromkeys([*modules_to_inherit().split(os.pathsep), module])))
    return getattr(sys.modules[module], name)


def modules_to_inherit() -> str:
    """The folder of modules and those that the user has named, for `inherit`."""
    return os.environ.get(INHERITED) or str(folder_of_modules())


def inherit(modules: str) -> None:
    """Know what the user has named to another process; see `modules_to_inherit`."""
    os.environ[INHERITED] = modules
    look_in(modules.split(os.pathsep)[0])


def imported_class(target: Any, base: type, package: str) -> type | None:
    """The class that a saved file names: one of ours, or of a module that the user has named or imported.

    Args:
        target: what the file names.
        base: of which it must be a subclass, so that nothing else is built.
        package: of ours, whose modules alone are imported by this name.

    Returns:
        None: it is another thing, or in a module that was not imported.
    """
    folder, *modules = os.environ.get(INHERITED, "").split(os.pathsep)
    if modules and _folder is None:
        look_in(folder)  # this process was started by the one that the user named them to
    import_modules(modules)
    module, _, name = str(target).rpartition(".")
    found = None
    if f"{module}.".startswith(f"{package}.") and NAME.fullmatch(module):
        with suppress(ImportError):
            found = getattr(importlib.import_module(module), name, None)
    elif module in sys.modules:
        found = vars(sys.modules[module]).get(name)
    return found if isinstance(found, type) and issubclass(found, base) else None


def is_foreign(target: str) -> bool:
    """Whether a name is of a module that is neither ours nor imported, for which the user has to say so."""
    named = NAME.fullmatch(target) and "." in target and not target.startswith(OURS)
    return bool(named) and target.rpartition(".")[0] not in sys.modules


def _why(key: str, name: str, error: BaseException, folder: Path) -> str:
    """In one sentence, why a module could not be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        parent = name.rpartition(".")[0]
        inside = folder.joinpath(*parent.split("."))  # of a package, or the folder itself
        found = [p.stem for p in inside.glob("*.py")] + [p.parent.name for p in inside.glob("*/*.py")]
        near = [f"{parent}.{stem}".lstrip(".") for stem in found]
        close = difflib.get_close_matches(name, near, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{key}: there is no module {error.name!r}, neither installed nor in {folder}{hint}"
    return f"{key}: the module {name!r} cannot be imported: {with_place(error)}"


def _is_between(file: str) -> bool:
    """Whether a file is of those that only call others' code: ours, and what imports and registers."""
    return "importlib" in file or file.startswith(_OURS) or file.endswith(_REGISTRATION)


def _is_installed(file: str) -> bool:
    """Whether a file is of Python itself or of a package."""
    return file.startswith(_PYTHON) or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def with_place(error: BaseException) -> str:
    """What code that is not ours raised at first, and where: in a line of the user's own, if there is one."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason, where = str(error), ""
    if isinstance(error, SyntaxError):
        reason, where = error.msg, f" ({error.filename}, line {error.lineno})"
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_between(f.filename)]
        own = [f for f in frames if not _is_installed(f.filename)]
        if frames:
            place = (own or frames)[-1]
            where = f" ({place.filename}, line {place.lineno})"
    return f"{type(error).__name__}{': ' * bool(reason)}{one_line(reason)}{where}"
