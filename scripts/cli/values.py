"""Values of a composed configuration, compared with what is declared, before anything is made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...agents.storage.paths import PATHS, RUN, check_folder
from ...agents.storage.policy_json import policy_folders
from ...agents.storage.run_folder import list_checkpoints
from ...envs.errors import UserError, one_line
from ...envs.numbers import (
    FLAG,
    NAMES,
    NULL,
    POSITIVE,
    SEED,
    TEXT,
    Valid,
    check_arguments,
    declared,
    listed,
    one_of,
    whole,
)
from .arguments import check_targets


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):
        raise ValueError
    return value


DEVICE = Valid("auto, cpu, cuda or cuda:<number>", _device, ("auto", "cpu", "cuda"))
_EPISODES, _PIXELS, _PLACES = whole(1, 10**6), whole(16, 8192), whole(1, 10**7) | NULL
_PROCESSES = one_of("auto") | whole(1, 4096)

_OF_TRAINING = {
    "seed": SEED,
    "device": DEVICE,
    "simulation": one_of("auto", "cpu", "warp", "torch"),
    "warp.contacts": _PLACES,
    "warp.constraints": _PLACES,
    "warp.layouts": whole(1, 1000) | NULL,
    "precision": one_of("float32", "bf16"),
    "threads": _PROCESSES,
    "on_save_error": one_of("stop", "continue"),
}

KEYS: dict[str, dict[str, Valid]] = {
    "train": _OF_TRAINING,
    "cross_validate": {
        **_OF_TRAINING,
        "seeds": listed(SEED, 1),
        "folds": listed(TEXT, 1),
        "joint_split": TEXT,
        "reference": TEXT | NULL,
        "episodes": _EPISODES,
        "jobs": _PROCESSES,
        "output": TEXT,
    },
    "evaluate": {
        "bodies": NAMES | NULL,
        "joint": TEXT | NULL,
        "episodes": _EPISODES | NULL,
        "seed": SEED,
        "device": DEVICE,
        "video": FLAG | NAMES,
        "random_baseline": FLAG,
        "unfit": one_of("fail", "skip"),
        "threads": _PROCESSES,
        "workers": _PROCESSES,
    },
    "view": {
        "bodies": NAMES | NULL,
        "viewer": one_of("auto", "mujoco", "window", "web"),
        "seed": SEED,
        "port": whole(0, 65_535),
        "device": DEVICE,
    },
    "describe": {
        "bodies": NAMES,
        "pictures": FLAG,
        "features": FLAG,
        "tokens": FLAG,
        "width": _PIXELS,
        "height": _PIXELS,
    },
    "export": {"format": one_of("onnx"), "tolerance": POSITIVE},
    "references": {"episodes": _EPISODES, "seed": SEED, "threads": _PROCESSES},
    "results": {"table": TEXT, "output": TEXT},
    "benchmark": {"output": TEXT | NULL},
}
"""Keys that belong to no section, by command, as in its file of ``conf/``; they are checked here alone.

Who reads what names a file, a run or a body looks it up.
"""

_CHANGES = {
    "": ("locomotion.RobotSet", "locomotion.FamilySet", "sensors.CartPoleSwingUp", "car_racing.CarRacing"),
    "task": ("locomotion.LocomotionTask",),
    "variation": ("locomotion.BodyVariation",),
    "damage": ("locomotion.Damage",),
    "world": ("locomotion.World",),
    "senses": ("sensors.Senses",),
    "scenery": ("car_racing.Scenery",),
}
"""Classes whose arguments may be changed for an evaluation, by section of the environment."""


def check_values(config: DictConfig, command: str, folder: str | Path) -> None:
    """Refuses runs that are not there, values that are not as declared, and those that do not go together.

    What can be told without importing what the configuration builds, which takes seconds, comes first.

    Args:
        config: As composed. Numbers that belong to no section are written back: ``5e6`` as 5000000.
        command: Whose configuration it is, as in ``conf/``.
        folder: Of the run; one that goes on needs none to start from.

    Raises:
        UserError: With the key, what it may be and what came; or something is to be built that is not ours.
    """
    check_folder(folder)
    for key in [] if list_checkpoints(folder) else [key for key, kind in PATHS.items() if kind == RUN]:
        name = OmegaConf.select(config, key, default=None)
        if name is not None:
            policy_folders(name)
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(one_line(str(error))) from error
    for key, valid in KEYS[command].items():
        section, _, name = key.rpartition(".")
        node = values.get(section) if section else values
        if section and section in values:
            _check_section(section, node)
        if node is not None and name in node:
            value = valid.read(key, node[name])
            if isinstance(value, int) and not isinstance(value, bool):
                OmegaConf.update(config, key, value)
    built = check_targets(config)
    if "zero_shot" in values:
        from ...agents.training.zero_shot import read_settings

        _check_section("zero_shot", values["zero_shot"])
        for kind, conditions in read_settings(values["zero_shot"]).conditions.items():
            for name, changes in (conditions or {}).items():
                check_changes(changes, f"zero_shot.conditions.{kind}.{name}")
    if command in ("evaluate", "view", "export"):
        check_changes(values["env"], "env")
    for suite, node in (values.get("suite") or {}).items() if command == "evaluate" else ():
        from ...agents.evaluation.suites import read_suite

        for condition in read_suite(str(suite), node).conditions:
            check_changes(condition.env, f"suite.{suite}: {condition.name}: env")
    named = values.get("benchmark")
    for where, node in built.items():
        if command != "benchmark" or f"{where}.".startswith(f"{named}."):
            # A benchmark's own arguments stand on the command line without its name.
            prefix = "" if where == named else f"{where}."
            check_arguments(hydra.utils.get_object(node["_target_"]), node, prefix)


def check_changes(changes: Any, where: str) -> None:
    """Refuses changes, as in the node ``env`` of ``conf/evaluate.yaml``, that no environment takes.

    ``where`` they stand is for the message. Raises UserError: a value that is not as declared.
    """
    _check_section(where, changes)
    for name, value in changes.items():
        if name in _CHANGES and value is not None:
            _check_section(f"{where}.{name}", value)
        section, values = (name, value or {}) if name in _CHANGES else ("", {name: value})
        place = f"{where}.{section}" if section else where
        for key, v in values.items():
            _check_change(section, key, v, place)
            for quantity, ranges in (v or {}).items() if key == "extrapolation" else ():
                _check_change(section, quantity, ranges, f"{place}.{key}")


def _check_change(section: str, key: str, value: Any, place: str) -> None:
    """An unknown key is refused by who builds it."""
    built = (hydra.utils.get_class(f"somite.envs.{target}") for target in _CHANGES[section])
    valid = next((declared(one)[key] for one in built if key in declared(one)), None)
    if valid is not None and value is not None:
        valid.read(f"{place}.{key}", value)


def _check_section(where: str, node: Any) -> None:
    if not isinstance(node, Mapping):
        raise UserError(f"{where} must be keys and values of its own, got {node!r}")
