"""Environments of Gymnasium: found by their id, made, and drawn; faults are told with their remedy."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from ..errors import EnvironmentFault, UserError, check_installed, nearest, shown
from ..user_modules import import_modules, with_place
from .boundary import check_methods

logger = logging.getLogger(__name__)

_NAMED_BY_ARGUMENTS = ("GymV21Environment", "GymV26Environment")
"""They import and make whatever environment their arguments name."""

_ARGUMENTS_OF_MAKE = {
    "id": "say env.id",
    "max_episode_steps": "say env.max_episode_steps",
    "disable_env_checker": "its checker is always off",
}

_EXTRAS = {"box2d": "box2d", "phys2d": "jax", "tabular": "jax"}
"""What of Gymnasium is to be installed for the environments of a folder of its own."""

ATARI = "ALE/"
"""What the ids of Atari games begin with; they are registered by a package of their own."""

MOST_NAMES = 5
"""Ids that the message about an unknown one tells: hundreds may be registered."""

_ROBOT_FILES = ("xml_file", "model_path")
"""Arguments of MuJoCo tasks that name an MJCF file."""


def find_spec(env_id: Any, imports: Any = None) -> EnvSpec:
    """What is registered under exactly this id.

    Nothing is imported by a name in it, as `gymnasium.make` would do for ``"module:Id"``: a saved policy,
    which holds the id of its task, may come from a stranger. The module is to be among ``imports``, or
    imported already.

    Args:
        env_id: with its version, with or without the module that registers it.
        imports: modules that are imported first, at the user's word; see `import_modules`.

    Raises:
        UserError: no text, a module that the user does not name, an unknown id (with the nearest that are
            registered), or one whose arguments name another environment.
    """
    if not isinstance(env_id, str) or not env_id:
        raise UserError(
            f"env.id is {env_id!r}; say the id of a Gymnasium environment, such as env.id=Pendulum-v1"
        )
    named = import_modules(imports)
    module, _, name = env_id.rpartition(":")
    if module and module not in sys.modules:
        word = ",".join([*named, module])
        raise UserError(
            f"env.id={env_id} is of the module {module!r}, which is imported only where the command line "
            f"names it: add env.imports=[{word}]"
        )
    if name.startswith(ATARI) and name not in gymnasium.registry:
        # Atari games are known once their package has been imported, which is done for their ids alone.
        check_installed(name, {"ale_py": "ale-py"}, "atari")
        import ale_py

        gymnasium.register_envs(ale_py)
    if name not in gymnasium.registry:
        raise UserError(_unknown(name, dict.fromkeys([module, *named] if module else named)))
    spec = gymnasium.registry[name]
    if spec.name in _NAMED_BY_ARGUMENTS:
        raise UserError(f"env.id={env_id!r} makes what its arguments name, and imports it; give a task's id")
    return spec


def _unknown(name: str, modules: Iterable[str]) -> str:
    """That there is no such id, and what can be done."""
    said = f"no environment {name!r} is registered with Gymnasium"
    if not modules:
        close = difflib.get_close_matches(name, gymnasium.registry, n=MOST_NAMES, cutoff=0.3)
        hint = f"did you mean {close[0]!r}? similar: {', '.join(close)}" if close else "nothing is similar"
        return f"{said}; {hint}; where a module registers it: env.imports=[<module>]"
    roots = [_root(module) for module in modules]
    own = [key for key, spec in gymnasium.registry.items() if _root(spec.entry_point) in roots]
    near = difflib.get_close_matches(name, own, n=1)
    own.sort(key=lambda key: key not in near)  # it is told first
    registered = shown(", ".join(own), 300) if own else "no environment of its own"
    return f"{said}, also after the import of {', '.join(modules)}, which registers {registered}"


def _root(made_by: Any) -> str:
    """The package of a module or of what makes an environment."""
    name = made_by if isinstance(made_by, str) else getattr(made_by, "__module__", "")
    return re.split("[.:]", name)[0]


class _Guarded(gymnasium.Wrapper):
    """An environment of somebody else's, whose errors are told in one message with the line of its code."""

    def reset(self, **kwargs: Any) -> Any:
        """Raises EnvironmentFault."""
        return self._call("reset()", self.env.reset, **kwargs)

    def step(self, action: Any) -> Any:
        """Raises EnvironmentFault."""
        return self._call("step()", self.env.step, action)

    def close(self) -> None:
        """What goes wrong is logged: nothing more is wanted of it."""
        try:
            self._call("close()", self.env.close)
        except UserError as error:
            _warn_once(str(error))

    def _call(self, method: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except UserError:  # of an environment of ours
            raise
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(f"{self.env.spec.id}: {method} raised {with_place(error)}") from error


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def make_env(env_id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    """The environment without Gymnasium's time limit and checks.

    Args:
        env_id: of a registered environment.
        kwargs: arguments of its own.

    Raises:
        UserError: a package is missing, or the environment does not take these arguments.
    """
    spec = find_spec(env_id)
    for name, advice in _ARGUMENTS_OF_MAKE.items():
        if name in kwargs:
            raise UserError(f"env.kwargs.{name} is no argument of {env_id} itself; {advice}")
    for name in _ROBOT_FILES:
        if isinstance(kwargs.get(name), str):
            _check_robot(kwargs[name])
    try:
        env = _Guarded(gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True, **kwargs))
        check_methods(env)
        return env
    except UserError:
        raise
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"{env_id} cannot be made: {error}{_extra(spec, str(error))}") from error
    except Exception as error:  # it runs code of others, which may raise anything
        known = _arguments(spec)
        unknown = [str(name) for name in kwargs if name not in known]
        if unknown:
            reason = f"takes no argument {unknown[0]!r}; {nearest(unknown[0], known)}"
        elif kwargs:
            reason = f"does not take env.kwargs={dict(kwargs)}: {with_place(error)}"
        else:
            reason = f"cannot be made: {with_place(error)}"
        raise UserError(f"{env_id} {reason}") from error


def _check_robot(name: str) -> None:
    """Refuses an MJCF file that reads beyond its folder. Gymnasium looks in its own for a bare name."""
    from ..locomotion.bodies.user_bodies import check_robot

    own = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    for path in (Path(name).expanduser(), own / name):
        if path.is_file():
            check_robot(path, path.stat().st_mtime_ns)


def _extra(spec: EnvSpec, message: str) -> str:
    """How to install what an environment of Gymnasium's own needs, where the message does not say so."""
    parts = str(spec.entry_point).split(".")
    if parts[:2] == ["gymnasium", "envs"] and parts[2] in _EXTRAS and "pip install" not in message:
        return f'; try pip install "gymnasium[{_EXTRAS[parts[2]]}]"'
    return ""


def _arguments(spec: EnvSpec) -> list[str]:
    """Names that the constructor takes, those handed on to its parents included."""
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    names: dict[str, None] = {}
    for part in inspect.getmro(creator) if inspect.isclass(creator) else (creator,):
        if part in (gymnasium.Env, object):
            break
        own = inspect.signature(part).parameters.values()
        names |= {p.name: None for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if all(p.kind != p.VAR_KEYWORD for p in own):
            break
    return list(names)


def picture_of(env: gymnasium.Env) -> np.ndarray:
    """(H, W, 3) uint8, what an environment draws. Raises UserError: no picture, or not on this machine."""
    try:
        with _drawing(env):
            picture = env.render()
    except UserError:
        raise
    except Exception as error:  # whatever somebody else's drawing raises: numbers stand without pictures
        raise UserError(f"{env.spec.id} cannot be drawn here: {with_place(error)}") from error
    picture = np.asarray(picture[-1] if isinstance(picture, list) and picture else picture)
    if picture.ndim != 3 or picture.shape[2] not in (3, 4) or picture.dtype != np.uint8 or not picture.size:
        raise UserError(
            f"{env.spec.id} cannot be filmed: its render() gives {picture.dtype} of shape {picture.shape}, "
            "expected uint8 of shape (height, width, 3)"
        )
    return picture[..., :3]


@contextlib.contextmanager
def _drawing(env: gymnasium.Env) -> Iterator[None]:
    """Within it, libraries that open windows do without a display.

    Gymnasium's drawing of MuJoCo looks for a display first, and breaks where there is none; it is told the
    backend that works, as long as nobody else has chosen one.
    """
    mujoco, name, value = sys.modules.get("mujoco"), None, ""
    if mujoco and isinstance(getattr(env.unwrapped, "model", None), mujoco.MjModel):
        from ..locomotion.pictures.rendering import find_backend

        name, value = "MUJOCO_GL", find_backend()
    elif sys.platform == "linux" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        name, value = "SDL_VIDEODRIVER", "dummy"  # of pygame
    before = os.environ.get(name or "")
    if name and not before:
        os.environ[name] = value
    try:
        yield
    finally:
        if name and before is None:
            os.environ.pop(name, None)
        elif name:
            os.environ[name] = before
