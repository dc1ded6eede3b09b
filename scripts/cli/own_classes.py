"""Classes of the user's own, by his own word: ``agent._target_=my_module.MyPolicy`` on the command line.

The word imports the module, here and in the processes that this command starts. Nothing else does: a policy,
a run or a sweep that names such a class is refused until the word is said again, as it may be a stranger's.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

from ...envs.errors import UserError
from ...envs.numbers import declared
from ...envs.user_modules import NAME, OURS, own_class

SECTIONS = ("env", "agent", "algorithm")
"""Of a configuration, whose class may be the user's own."""

_GROUPS = {"train": SECTIONS, "describe": ("env",)}
"""Of each command, those of them that it chooses; others have no such key, and only need the module."""

_TARGET = re.compile(r"^\s*_target_:\s*(\S+)", re.MULTILINE)
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


def names_own_class(key: str, target: Any) -> bool:
    """Whether a key and its value choose a class that is not of this package."""
    section, _, last = key.rpartition(".")
    is_name = isinstance(target, str) and NAME.fullmatch(target) is not None and "." in target
    return section in SECTIONS and last == "_target_" and is_name and not target.startswith(OURS)


def with_own_classes(arguments: Sequence[str], command: str) -> list[str]:
    """The arguments, with a choice for each class of the user's own that they name, imported.

    ``agent._target_=my_module.MyPolicy`` comes with ``agent=MyPolicy``, a choice that has the defaults of the
    class's constructor, unless they choose an agent or resume a run.

    Raises:
        UserError: no such module or class, or one of another kind.
    """
    kept, given = [], {argument.partition("=")[0] for argument in arguments}
    for argument in arguments:
        key, _, target = argument.partition("=")
        if not names_own_class(key.lstrip("+"), target):
            kept.append(argument)
            continue
        section = key.lstrip("+").partition(".")[0]
        cls, base = own_class(target, key), _base(section)
        if not issubclass(cls, base):
            name = f"{base.__module__}.{base.__name__}"
            raise UserError(f"{argument}: {cls.__name__} is not a subclass of {name}")
        if section in _GROUPS.get(command, ()):
            ConfigStore.instance().store(group=section, name=cls.__name__, node=_defaults(cls, section))
            kept += [argument] if given & {section, "resume"} else [f"{section}={cls.__name__}", argument]
    return kept


def named_targets() -> set[str]:
    """Targets that the user named: in the arguments that Hydra knows, or in files of ``--config-dir``."""
    if HydraConfig.instance().cfg is None:
        return set()
    known = HydraConfig.get()
    pairs = (argument.lstrip("+").partition("=") for argument in known.overrides.task)
    found = {target for key, _, target in pairs if names_own_class(key, target)}
    for source in known.runtime.config_sources:
        if source.schema == "file":
            for file in Path(source.path).rglob("*.yaml"):
                found.update(_TARGET.findall(file.read_text(encoding="utf-8", errors="replace")))
    return found


def _base(section: str) -> type:
    """What a class of a section is."""
    module, name = {
        "agent": ("agents.policies.base", "Policy"),
        "env": ("envs.task_set", "TaskSet"),
        "algorithm": ("agents.algorithms.base", "Algorithm"),
    }[section]
    return getattr(importlib.import_module(OURS + module), name)  # with torch, which --help does not need


def _defaults(cls: type, section: str) -> dict[str, Any]:
    """A node of the configuration, as a file of ``conf/`` would have it.

    It has the arguments that may be typed; an agent gets others from its environment.
    """
    node: dict[str, Any] = {"_target_": f"{cls.__module__}.{cls.__name__}"}
    parameters = inspect.signature(cls).parameters
    own = inspect.signature(inspect.unwrap(cls.__init__)).parameters
    for name, parameter in parameters.items():
        if name not in own and name not in declared(cls):
            continue
        if parameter.default is inspect.Parameter.empty:
            node |= {} if section == "agent" else {name: "???"}
        elif isinstance(parameter.default, _PLAIN):
            node[name] = parameter.default
    if section == "env" and "senses" in parameters:
        node["defaults"] = [{"/env_parts@_here_": "senses"}, "_self_"]
        node.pop("senses", None)
    return node
