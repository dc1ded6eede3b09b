"""Paths in a configuration: which keys are paths, and how they are read, kept and told.

In memory they are absolute, against the folder where the user stands. In what a run saves they are relative
to the run's folder, so that a policy or a report names no folder of the machine that made it.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ...envs.errors import UserError
from ..bundled import PREFIX
from .atomic import replace_file
from .run_folder import CHECKPOINTS, ROOT, find_run
from .untrusted import check_inside, read_json, read_yaml

RUN, ROBOT, PICTURE, FILE = "run", "robot", "picture", "file"

PATHS = {
    "run": RUN,
    "start_from": RUN,
    "joint": RUN,
    "algorithm.teacher": RUN,
    "env.morphology": ROBOT,
    "env.files_from": FILE,
    "env.kwargs.xml_file": ROBOT,
    "env.kwargs.model_path": ROBOT,
    "env.scenery.background": PICTURE,
    "table": FILE,
    "output": FILE,
    "arms": FILE,
}
"""Every key of a command that is a path, or a list of them, and what lies there."""

WHERE = "paths.json"
"""Beside Hydra's record of a run: from where on this machine its relative paths were."""

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_/.@%+-]*[A-Za-z_/.@%-][A-Za-z0-9_/.@%+-]*")
_WORDS = ("null", "true", "false", "nan", "inf", "last")


def absolute(text: str, kind: str, here: Path) -> str:
    """A path as it is found from every folder.

    What is there under exactly this name is meant, before a home folder, a pattern or a name of another kind.

    Args:
        text: As the user gave it.
        kind: A value of `PATHS`.
        here: The folder where the user stands.

    Returns:
        The text itself where it is no path: ``bundled/<name>``, ``menagerie:<robot>``, the name of a
        background, or a run, robot or picture that is not there.

    Raises:
        UserError: ``last``, and there is no run.
    """
    for place in _places(text, kind, here):
        if os.path.lexists(place):
            return os.path.realpath(place) if ".." in place.parts else str(place)
    if kind == RUN and text == "last":
        return str(find_run("last", here / ROOT))
    if kind == RUN and not text.startswith(PREFIX) and set("*?[") & set(text):
        return os.path.join(glob.escape(str(here)), os.path.expanduser(text))
    return str(here / os.path.expanduser(text)) if kind == FILE and text else text


def _places(text: str, kind: str, here: Path) -> list[Path]:
    """Where what a text names may be, the exact name first."""
    is_word = kind == PICTURE and not ("." in os.path.basename(text) or "/" in text)  # grass, plain:0,0,0
    if not text or is_word or (kind == RUN and text == "last"):
        return []
    in_runs = [here / ROOT / text] if kind == RUN else []
    return [here / text, *in_runs, here / os.path.expanduser(text)]  # an unknown user's is left as it is


def absolute_argument(argument: str, here: Path) -> str:
    """An argument ``key=value`` with its paths made absolute and quoted, where its key is one.

    It may be given by Hydra's grammar, or as the bare name of what is there.
    """
    key, equals, raw = argument.partition("=")
    kind = PATHS.get(key.lstrip("+"))
    if kind is None or not equals:
        return argument
    if not any(os.path.lexists(place) for place in _places(raw, kind, here)):
        try:
            return _with_values(argument, lambda text: absolute(text, kind, here))
        except HydraException:
            # A bare name or pattern, of something that is not there or several; a list is Hydra's to refuse.
            if raw.startswith(("[", "'", '"')):
                return argument
    return f"{key}={hydra_quoted(absolute(raw, kind, here))}"


def _with_values(argument: str, changed: Callable[[str], str]) -> str:
    """An argument with each text of its value, or of the values that it sweeps over, changed and quoted."""
    override = OverridesParser.create().parse_override(argument)
    value, key = override.value(), argument.partition("=")[0]

    def quoted(text: str) -> str:
        return hydra_quoted(changed(_unescaped(text)))

    if isinstance(value, str):
        return f"{key}={quoted(value)}" if changed(_unescaped(value)) != value else argument
    swept = isinstance(value, ChoiceSweep) and not value.shuffle and not value.tags
    items = [Override._convert_value(item) for item in value.list] if swept else value
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        return argument
    found = ",".join(map(quoted, items))
    return f"{key}={found}" if swept else f"{key}=[{found}]"


def named_run(text: str, here: Path) -> str:
    """The absolute path of the run that is named by the bare text or by one that `hydra_quoted` quoted.

    The name itself if nothing is there, or if it is ``last``.
    """
    names = [text]
    if text[:1] in ("'", '"'):
        with suppress(HydraException):  # an apostrophe of the name
            names.append(_unescaped(OverridesParser.create().parse_override(f"run={text}").value()))
    for place in (place for name in names for place in _places(name, RUN, here)):
        if os.path.lexists(place):
            return str(place)
    return names[-1]


def make_absolute(config: DictConfig, here: Path) -> None:
    """Makes the paths of a composed configuration absolute, in place."""
    for key, kind in PATHS.items():
        value = OmegaConf.select(config, key, default=None)
        value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        found = _with_texts(value, lambda text, kind=kind: absolute(text, kind, here))
        if found != value:
            OmegaConf.update(config, key, _with_texts(found, _literal), merge=False)


def _with_texts(value: Any, changed: Callable[[str], str]) -> Any:
    """A text, or those of a list, changed; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [changed(item) if isinstance(item, str) else item for item in value]
    return changed(value) if isinstance(value, str) else value


def _literal(text: str) -> str:
    """The same for OmegaConf, which looks up what stands in ``${...}``."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _unescaped(text: str) -> str:
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda found: found[1][::2] + "${", text)


def _with_paths(node: Any, changed: Callable[[str], str], where: str = "") -> Any:
    """A configuration of plain values with every path in it changed."""
    if isinstance(node, Mapping):
        inner = ((key, value, f"{where}.{key}" if where else str(key)) for key, value in node.items())
        return {key: _with_paths(value, changed, place) for key, value, place in inner}
    return _with_texts(node, changed) if where in PATHS else node


def relative_to_run(config: Mapping[str, Any], run: str | Path) -> dict[str, Any]:
    """A configuration of plain values as it is saved: its absolute paths relative to the run's folder."""
    root = os.path.realpath(run)
    return _with_paths(config, lambda text: _relative(text, root))


def _relative(text: str, root: str) -> str:
    return os.path.relpath(os.path.realpath(text), root) if os.path.isabs(text) else text


def typed_arguments(run: str | Path) -> list[str]:
    """The arguments that a run was started with, where the command line did; nothing in them is looked up.

    Raises:
        UserError: The file is damaged or too large, or holds something else than texts.
    """
    file = Path(run) / ".hydra" / "overrides.yaml"
    found = OmegaConf.to_container(read_yaml(file)) if file.is_file() else []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise UserError(f"{file}: expected the arguments of a command line, each a text")
    return found


def training_to_share(training: Mapping[str, Any], run: str | Path) -> dict[str, Any]:
    """What ``policy.json`` tells of a policy's training, its algorithm and command, without folders."""
    root, told = os.path.realpath(run), relative_to_run(training, run)

    def shared(argument: str) -> str:
        if argument.partition("=")[0].lstrip("+") in PATHS:
            with suppress(HydraException):
                return _with_values(argument, lambda text: _relative(text, root))
        return argument

    if isinstance(training.get("command"), list):
        told["command"] = [shared(given) for given in training["command"] if isinstance(given, str)]
    return told


def found_from_run(config: Mapping[str, Any], run: str | Path) -> dict[str, Any]:
    """What `relative_to_run` saved, with absolute paths again.

    A path is looked for from the run's folder, wherever that is today; if nothing is there, as the run was
    moved without it, where it was when the run began.
    """
    root, where = Path(os.path.realpath(run)), Path(run) / ".hydra" / WHERE
    check_inside(where, run)
    before = read_json(where, 2**20) if where.is_file() else {}

    def found(text: str) -> str:
        if os.path.isabs(text) or "\0" in text or len(text) > 4096:
            return text
        there, was = os.path.normpath(root / text), before.get(text) if isinstance(before, dict) else None
        if os.path.lexists(there):
            return there
        if isinstance(was, str) and os.path.isabs(was) and os.path.lexists(was):
            return was
        return there if text.startswith("..") else text  # a name stays as it is

    return _with_paths(config, found)


def keep_where(config: Mapping[str, Any], run: str | Path) -> None:
    """Notes where the absolute paths of a configuration are on this machine, for `found_from_run`."""
    root, kept = os.path.realpath(run), {}

    def keep(text: str) -> str:
        if os.path.isabs(text):
            kept[_relative(text, root)] = text
        return text

    _with_paths(config, keep)
    if kept:
        text = json.dumps(kept, indent=1) + "\n"
        replace_file(Path(run) / ".hydra" / WHERE, text.encode("ascii"))


def run_of(policy: str | Path) -> Path:
    """The run of ``<run>/policy``, ``<run>/best`` or ``<run>/checkpoints/<step>/policy``.

    Of a policy that was copied elsewhere, the folder that it lies in.
    """
    policy = Path(policy).absolute()
    return policy.parents[2] if policy.parent.parent.name == CHECKPOINTS else policy.parent


def check_folder(folder: str | Path) -> None:
    """Raises UserError: Hydra cannot stand in this folder or write into it, as its path holds ``${``."""
    path = os.path.abspath(folder)
    if "${" in path:
        raise UserError(f"the folder {path} has ${{ in its name, which Hydra would look up; rename it")


def hydra_quoted(text: str | Path) -> str:
    """A text as the value of an override: quoted by Hydra's grammar, its ``${`` looked up nowhere."""
    # Backslashes count as such but before a quote and before ${, where they are doubled.
    text = re.sub(r"(\\*)'", r"\1\1\\'", _literal(str(text)))
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def command(program: str, *arguments: str, **keys: str | Path) -> str:
    """A command to be pasted into a shell: ``command("somite-train", resume=folder)``.

    ``arguments`` are further ones, as they are; ``keys`` are paths by their keys.
    """

    def value(text: str) -> str:
        is_plain = _PLAIN_WORD.fullmatch(text) and text.lower() not in _WORDS
        return text if is_plain else hydra_quoted(text)

    given = [f"{key}={value(str(path))}" for key, path in keys.items()]
    return " ".join([program, *map(shlex.quote, given), *arguments])
