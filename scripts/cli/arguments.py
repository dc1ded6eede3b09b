"""The arguments of a command line: what they imply, and whether every name in them exists.

Names are looked up before Hydra starts a job, in the configuration that it will compose.

A class of the user's own is named by ``agent._target_=my_module.MyPolicy``, which imports the module, here
and in the processes that this command starts. Nothing else does: a policy, a run or a sweep that names such a
class may be a stranger's and is refused until the user names it again.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...agents.storage.paths import absolute_argument
from ...envs.errors import UserError, nearest, one_line, shown
from ...envs.numbers import declared
from ...envs.task_set import values_of
from ...envs.user_modules import NAME, OURS, own_class

CONFIG_MODULE = "somite.conf"
LONGEST_KEY = 200
MAX_COMBINATIONS = 64
"""Of swept group choices whose keys are looked up before a multirun starts."""

SECTIONS = ("env", "agent", "algorithm")
"""Sections of a configuration whose class may be the user's own."""

_GROUPS = {"train": SECTIONS, "cross_validate": SECTIONS, "describe": ("env",)}
"""Those of them that a command chooses; others have no such key, and only need the module."""

_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))

_WITH_TARGETS = (CONFIG_MODULE, "somite.scripts.benchmarks.conf")
_TARGET = re.compile(r"^\s*_target_:\s*(\S+)", re.MULTILINE)
_MORPHOLOGY, _ID, _IMPORTS = "env.morphology", "env.id", "env.imports"
_OF_ROBOTS = (_MORPHOLOGY, "env.unseen", "env.files_from", "env.compile_seconds", "env.keyframe")


def with_implied(arguments: Sequence[str], chooses_env: bool = True) -> list[str]:
    """The arguments with absolute paths, and with what a user's own robot or environment implies.

    ``env.id=my_module:MyEnv-v0`` is the user's word to import that module, so it comes to ``env.imports``.
    ``env=locomotion`` comes to them where ``env.morphology`` is given and no ``env`` (a resumed run has
    its own), if the command has that group.
    """
    here = Path.cwd()
    keys = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    alone = chooses_env and _MORPHOLOGY in keys and not keys & {"env", "resume"}
    found = [absolute_argument(text, here) for text in arguments]
    if alone:  # beside the others: argparse wants all overrides in a row
        first = next(number for number, text in enumerate(found) if key_of(text) == _MORPHOLOGY)
        found.insert(first, "env=locomotion")
    given = {key: value for key, _, value in (argument.partition("=") for argument in found)}
    modules = re.findall(r"([\w./-]+):", given.get(_ID, ""))  # several in a multirun
    if not modules:
        return found
    others = re.findall(r"[^\[\],'\" ]+", given.get(_IMPORTS, ""))
    names = dict.fromkeys(name for name in (*others, *modules) if name != "null")
    kept = [argument for argument in found if argument.partition("=")[0] != _IMPORTS]
    return [*kept, f"{_IMPORTS}=[{','.join(names)}]"]


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


def key_of(argument: str) -> str:
    """The key or group of ``key=value``, ``+key=value``, ``~key``."""
    return argument.partition("=")[0].lstrip("+~")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's options and the overrides among the arguments of a command line."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser().parse_args(arguments)


@contextmanager
def configuration(parsed: argparse.Namespace) -> Iterator[Any]:
    """Hydra's loader of the configuration that the arguments name."""
    if parsed.config_path and "://" not in parsed.config_path:
        context = hydra.initialize_config_dir(os.path.abspath(parsed.config_path), version_base="1.3")
    else:
        module = (parsed.config_path or CONFIG_MODULE).removeprefix("pkg://")
        context = hydra.initialize_config_module(module, version_base="1.3")
    with context:
        loader = GlobalHydra.instance().config_loader()
        if parsed.config_dir:
            loader.get_search_path().prepend("command-line", f"file://{os.path.abspath(parsed.config_dir)}")
            loader.repository.initialize_sources(loader.get_search_path())
        yield loader


def check_names(arguments: Sequence[str], config_name: str) -> None:
    """Looks up every group, choice and key of a command line, in the primary configuration ``config_name``.

    Raises:
        UserError: A name does not exist, with the nearest one that does.
    """
    parsed = parse(arguments)
    if parsed.hydra_help or parsed.shell_completion or parsed.info:
        return
    overrides = OverridesParser.create().parse_overrides(parsed.overrides)
    for override in overrides:  # Hydra looks for files of these names
        if len(override.key_or_group) > LONGEST_KEY:
            raise UserError(f"there is no key {shown(override.key_or_group)!r}: it is longer than any")
    with configuration(parsed) as loader:
        config_name = parsed.config_name or config_name
        search = [o.input_line for o in overrides if o.key_or_group == "hydra.searchpath"]
        defaults = hydra.compose(config_name, search, return_hydra_config=True)
        # The folder holds the groups of every command; this command has those of its defaults. To look for
        # the others in the folder would take longer than to compose.
        groups = {str(group) for group in defaults.hydra.runtime.choices if "@" not in group}
        chosen, values = [], []
        for override in overrides:
            group = override.key_or_group
            choices = loader.get_group_options(group, None, config_name, search) if group in groups else []
            if choices:
                _check_choices(override, choices)
            (chosen if choices else values).append(override)
        for combination in combinations(chosen):
            composed = defaults
            if combination:
                composed = hydra.compose(config_name, [*search, *combination], return_hydra_config=True)
            _check_experiment(composed, config_name, search)
            known = _known_keys(composed)
            for override in values:
                _check_key(override, known, groups)


def _values(override: Override) -> list[str]:
    """Every value of an override, as strings; several if it is a sweep."""
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    value = override.value()
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _check_choices(override: Override, choices: list[str]) -> None:
    group, line = override.key_or_group, shown(override.input_line)
    if override.is_delete():
        if not isinstance(override.value(), (str, type(None))):
            raise UserError(f"{line}: ~{group} leaves out a group, or ~{group}=<its choice>")
        return
    may_be_left_out = group == "experiment" or "/" in group
    for value in _values(override):
        if value not in choices and not (value == "None" and may_be_left_out):
            raise UserError(f"{line}: {group} has no choice {shown(value)!r}; {nearest(value, choices)}")


def combinations(chosen: list[Override]) -> Iterator[list[str]]:
    """The choices of groups of each job of a multirun, as overrides; one combination if it is none."""
    lines = []
    for override in chosen:
        key = override.input_line.partition("=")[0]
        swept = override.is_sweep_override()
        lines.append([f"{key}={value}" for value in _values(override)] if swept else [override.input_line])
    yield from map(list, itertools.islice(itertools.product(*lines), MAX_COMBINATIONS))


def _known_keys(config: DictConfig) -> dict[str, Any]:
    """Every key of a configuration, with dots, and its value as it is written."""
    return {where: value for where, _, value in values_of(OmegaConf.to_container(config))}


def _check_experiment(composed: DictConfig, config_name: str, search: list[str]) -> None:
    """An experiment may change keys, never add one that no part would read."""
    choices = composed.hydra.runtime.choices
    if not choices.get("experiment"):
        return
    plain = [f"{group}={choices[group]}" for group in choices if "/" not in group and group != "experiment"]
    without = _known_keys(hydra.compose(config_name, [*search, *plain]))
    for key in _known_keys(OmegaConf.masked_copy(composed, [name for name in composed if name != "hydra"])):
        # What is null by default and here a dictionary, or in a list, is checked by what is built from it.
        if key not in without and isinstance(without.get(key.rpartition(".")[0]), dict):
            hint = _nearest_key(key, without)
            raise UserError(f"experiment={choices.experiment} sets {key}, which does not exist; {hint}")


def _check_key(override: Override, known: Mapping[str, Any], groups: set[str]) -> None:
    key, line = override.key_or_group, shown(override.input_line)
    if override.is_delete() and "." not in key:
        raise UserError(f"{line}: {key} cannot be left out; give it a value: {key}=<value>")
    if key == "env" and "env" not in groups and isinstance(known.get("env"), dict):
        raise UserError(
            f"{line}: the environment is that which the policy was trained in; drop {line} "
            "(env.morphology=<your robot> and other keys of env change it)"
        )
    if key == "hydra.searchpath" or key in known:
        return
    if key in _OF_ROBOTS and "env" in groups:
        environment = known["hydra.runtime.choices.env"]
        more = "" if key == _MORPHOLOGY else f", and say {_MORPHOLOGY}=<your robot>"
        raise UserError(
            f"{line}: {key} is a key of your own robots, not of env={environment}; "
            f"drop env={environment}{more}"
        )
    parent = key.rpartition(".")[0]
    if (override.is_add() or override.is_force_add()) and parent and parent in known:
        return  # an entry of a dictionary; what is built from it checks it
    if "." in key:
        raise UserError(f"{line}: there is no key {shown(key)!r}; {_nearest_key(key, known)}")
    resume = ["resume"] if "start_from" in known else []  # which is read before Hydra is asked
    names = {*known[""], *resume, *(group for group in groups if not group.startswith("hydra"))} - {"hydra"}
    raise UserError(f"{line}: there is no key or group {shown(key)!r}; {nearest(key, map(str, names))}")


def _nearest_key(key: str, known: Mapping[str, Any]) -> str:
    """Names beside the first part of a dotted key that does not exist."""
    parts, depth = key.split("."), 0
    while ".".join(parts[: depth + 1]) in known:
        depth += 1
    parent = ".".join(parts[:depth])
    if not isinstance(known[parent], dict):
        return f"{parent} has no keys of its own"
    hidden = ("_target_",) if depth else ("hydra",)
    beside = [".".join([*parts[:depth], str(name)]) for name in known[parent] if name not in hidden]
    return nearest(".".join(parts[: depth + 1]), beside)


@functools.cache
def known_targets() -> frozenset[str]:
    """Every ``_target_`` in ``conf/``: functions of ours that remove or write files are not among them."""
    found: set[str] = set()
    waiting: list[Traversable] = [resources.files(package) for package in _WITH_TARGETS]
    while waiting:
        place = waiting.pop()
        if place.is_dir():
            waiting += place.iterdir()
        elif place.name.endswith(".yaml"):
            found.update(_TARGET.findall(place.read_text(encoding="utf-8")))
    return frozenset(found)


def check_targets(config: DictConfig) -> dict[str, Mapping[str, Any]]:
    """Refuses a composed configuration that builds anything but parts of this package, with their keys.

    And but classes that the user has named himself, whose modules are imported.

    Returns:
        The sections that are built, in lists, too, by where they stand.

    Raises:
        UserError: A ``_target_`` that no configuration of ours has, or a key beside it, forced in with ``+``,
            that is no argument of it.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(one_line(str(error))) from error
    nodes = values_of(values)
    built = {where: node for where, _, node in nodes if isinstance(node, Mapping) and "_target_" in node}
    for where, node in built.items():
        prefix = f"{where}." if where else ""
        parameters = inspect.signature(_target(node["_target_"], f"{prefix}_target_")).parameters
        allowed = [name for name in parameters if name != "self"]
        for name in node:
            if name not in (*allowed, "_target_"):
                raise UserError(f"there is no key '{prefix}{shown(name)}'; {nearest(str(name), allowed)}")
    return built


def _target(target: Any, key: str) -> Any:
    """What a ``_target_`` names. Raises UserError: nothing that this package's configurations build."""
    if not isinstance(target, str) or not target.startswith(OURS):
        if isinstance(target, str) and target in named_targets():
            return own_class(target, key)
        raise UserError(f"{key} is {target!r}; only names that start with {OURS} are built")
    if target not in known_targets():
        hint = nearest(target, known_targets())
        raise UserError(f"{key} is {target!r}, which no configuration builds; {hint}")
    return hydra.utils.get_object(target)
