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
from omegaconf import DictConfig, ListConfig, OmegaConf

from ...envs.errors import UserError
from ..bundled import PREFIX
from .atomic import replace_file
from .run_folder import ROOT, find_run
from .untrusted import check_inside, read_json

RUN, ROBOT, PICTURE, FILE = "run", "robot", "picture", "file"

PATHS = {
    "run": RUN,
    "start_from": RUN,
    "algorithm.teacher": RUN,
    "env.morphology": ROBOT,
    "env.files_from": FILE,
    "env.kwargs.xml_file": ROBOT,
    "env.kwargs.model_path": ROBOT,
    "env.scenery.background": PICTURE,
    "table": FILE,
    "output": FILE,
}
"""Every key of a command that is a path, or a list of them, and what lies there."""

WHERE = "paths.json"
"""Beside Hydra's record of a run: from where on this machine its relative paths were."""

_BRACES = re.compile(r"(\\*)\$\{")
_PATTERN = set("*?[")
_LARGEST_FILE = 2**20
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
    if kind == RUN and not text.startswith(PREFIX) and _PATTERN & set(text):
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
    if any(os.path.lexists(place) for place in _places(raw, kind, here)):
        return f"{key}={hydra_quoted(absolute(raw, kind, here))}"
    try:
        return _with_values(argument, lambda text: absolute(text, kind, here))
    except HydraException:
        # A bare name or pattern, of something that is not there or several; a list is Hydra's to refuse.
        is_bare = not raw.startswith(("[", "'", '"'))
        return f"{key}={hydra_quoted(absolute(raw, kind, here))}" if is_bare else argument


def _with_values(argument: str, changed: Callable[[str], str]) -> str:
    """An argument with each text of its value, or of the values that it sweeps over, changed and quoted."""
    override = OverridesParser.create().parse_override(argument)
    value, key = override.value(), argument.partition("=")[0]
    given, changed = changed, lambda text: given(_unescaped(text))
    if isinstance(value, str):
        return f"{key}={hydra_quoted(changed(value))}" if changed(value) != value else argument
    if isinstance(value, ChoiceSweep) and not value.shuffle and not value.tags:
        swept = [Override._convert_value(item) for item in value.list]
        if all(isinstance(item, str) for item in swept):
            return f"{key}={','.join(hydra_quoted(changed(item)) for item in swept)}"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return f"{key}=[{','.join(hydra_quoted(changed(item)) for item in value)}]"
    return argument


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
        if isinstance(value, ListConfig):
            found: Any = [absolute(v, kind, here) if isinstance(v, str) else v for v in value]
        else:
            found = absolute(value, kind, here) if isinstance(value, str) else value
        if found != value:
            OmegaConf.update(config, key, _literal(found), merge=False)


def _literal(value: Any) -> Any:
    """The same for OmegaConf, which looks up what stands in ``${...}``."""
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return _BRACES.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def _unescaped(text: str) -> str:
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda found: found[1][::2] + "${", text)


def with_paths(node: Any, changed: Callable[[str, str], str], where: str = "") -> Any:
    """A configuration of plain values with every path in it changed, given its text and its kind."""
    if isinstance(node, Mapping):
        inner = ((key, value, f"{where}.{key}" if where else str(key)) for key, value in node.items())
        return {key: with_paths(value, changed, place) for key, value, place in inner}
    if where not in PATHS:
        return node
    if isinstance(node, (list, tuple)):
        return [changed(item, PATHS[where]) if isinstance(item, str) else item for item in node]
    return changed(node, PATHS[where]) if isinstance(node, str) else node


def relative_to_run(config: Mapping[str, Any], run: str | Path) -> dict[str, Any]:
    """A configuration of plain values as it is saved: its absolute paths relative to the run's folder."""
    root = os.path.realpath(run)
    return with_paths(config, lambda text, kind: _relative(text, root))


def _relative(text: str, root: str) -> str:
    return os.path.relpath(os.path.realpath(text), root) if os.path.isabs(text) else text


def training_to_share(training: Mapping[str, Any], run: str | Path) -> dict[str, Any]:
    """What ``policy.json`` tells of a policy's training, its algorithm and command, without folders."""
    root = os.path.realpath(run)
    told = relative_to_run(training, run)
    if isinstance(training.get("command"), list):
        given = [argument for argument in training["command"] if isinstance(argument, str)]
        told["command"] = [_relative_argument(argument, root) for argument in given]
    return told


def _relative_argument(argument: str, root: str) -> str:
    if argument.partition("=")[0].lstrip("+") not in PATHS:
        return argument
    try:
        return _with_values(argument, lambda text: _relative(text, root))
    except HydraException:
        return argument


def found_from_run(config: Mapping[str, Any], run: str | Path) -> dict[str, Any]:
    """What `relative_to_run` saved, with absolute paths again.

    A path is looked for from the run's folder, wherever that is today; if nothing is there, as the run was
    moved without it, where it was when the run began.
    """
    root, where = Path(os.path.realpath(run)), Path(run) / ".hydra" / WHERE
    check_inside(where, run)
    before = read_json(where, _LARGEST_FILE) if where.is_file() else {}

    def found(text: str, kind: str) -> str:
        if os.path.isabs(text) or "\0" in text or len(text) > 4096:
            return text
        there, was = os.path.normpath(root / text), before.get(text) if isinstance(before, dict) else None
        if os.path.lexists(there):
            return there
        if isinstance(was, str) and os.path.isabs(was) and os.path.lexists(was):
            return was
        return there if text.startswith("..") else text  # a name stays as it is

    return with_paths(config, found)


def keep_where(config: Mapping[str, Any], run: str | Path) -> None:
    """Notes where the absolute paths of a configuration are on this machine, for `found_from_run`."""
    root, kept = os.path.realpath(run), {}

    def keep(text: str, kind: str) -> str:
        if os.path.isabs(text):
            kept[_relative(text, root)] = text
        return text

    with_paths(config, keep)
    if kept:
        text = json.dumps(kept, indent=1) + "\n"
        replace_file(Path(run) / ".hydra" / WHERE, text.encode("ascii"))


def run_of(policy: str | Path) -> Path:
    """The run of ``<run>/policy``, ``<run>/best`` or ``<run>/checkpoints/<step>/policy``.

    Of a policy that was copied elsewhere, the folder that it lies in.
    """
    policy = Path(policy).absolute()
    return policy.parents[2] if policy.parent.parent.name == "checkpoints" else policy.parent


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
    texts = {key: str(value) for key, value in keys.items()}
    given = [f"{key}={text if _is_plain(text) else hydra_quoted(text)}" for key, text in texts.items()]
    return " ".join([program, *map(shlex.quote, given), *arguments])


def _is_plain(text: str) -> bool:
    return bool(_PLAIN_WORD.fullmatch(text)) and text.lower() not in _WORDS
