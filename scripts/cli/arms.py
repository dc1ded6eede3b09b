"""Arms of a comparison: what a command line or a file says they are, and what a folder keeps of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ...agents.storage.paths import hydra_quoted
from ...agents.storage.untrusted import read_json, read_yaml
from ...envs.errors import UserError
from .arguments import combinations, key_of, parse
from .multirun import check_kept
from .values import KEYS

OWN = ("output", "seeds", "folds", "joint_split", "arms", "reference", "runs", "episodes", "jobs")
"""Keys of somite-cross-validate; any other goes to every training."""

OURS = {"env.split": "folds=[fold_0,fold_1]", "seed": "seeds=[0,1]", "resume": "output=<folder>"}
"""Keys that it gives each training itself, and what to say in place of them."""

FORMAT_VERSION = 1
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
SPLIT = "env.split"
SPLIT_KEY = re.compile(r"env(\.\w+)*\.split")


def with_arms(arguments: list[str]) -> list[str]:
    """The arguments of a command line, with arms in place of keys that have several values.

    Raises:
        UserError: several seeds, or arms beside such a key.
    """
    parsed = parse(arguments)
    overrides = OverridesParser.create().parse_overrides(parsed.overrides)
    for override in overrides:
        if override.key_or_group == "arms":
            _check_once(override.input_line.partition("=")[2])
    swept = [override for override in overrides if override.is_sweep_override()]
    if not swept:
        return arguments
    lines = [override.input_line for override in swept]
    for override in swept:
        if override.key_or_group in (*OWN, *OURS):
            hint = OURS.get(override.key_or_group, "a list in brackets")
            raise UserError(f"{override.input_line}: say {hint}")
    if any(key_of(text) == "arms" for text in parsed.overrides):
        raise UserError(f"{lines[0]} makes an arm of each value; leave it out, or put it into arms=")
    arms: dict[str, list[str]] = {}
    for own in combinations(swept):
        name = "-".join(map(_short, own))
        if name in arms:
            told = "two arms would be called"
            raise UserError(f"{' '.join(lines)}: {told} {name}; name them yourself by arms=")
        arms[name] = own
    told = ", ".join(f"{name}: [{', '.join(map(hydra_quoted, own))}]" for name, own in arms.items())
    # In place of the first: argparse wants all overrides in a row.
    found = [f"arms={{{told}}}" if text == lines[0] else text for text in arguments]
    return [text for text in found if text not in lines]


@dataclass(frozen=True)
class Arm:
    """What is compared: the arguments of its trainings, but for split and seed, and its seeds.

    ``split_key`` is the key that the split goes to, another one where further families are trained on.
    """

    arguments: tuple[str, ...]
    seeds: tuple[int, ...]
    split_key: str = SPLIT

    def with_seeds(self, seeds: Sequence[int]) -> Arm:
        """The arm with these seeds, too."""
        return replace(self, seeds=tuple(dict.fromkeys((*self.seeds, *seeds))))


def read_arms(given: Any) -> dict[str, list[str]]:
    """The arguments of each arm, of a node of the configuration or a file. Raises UserError."""
    arms, where = plain(given), "arms"
    if isinstance(arms, str):
        where = f"arms={arms}"
        if not Path(arms).is_file():
            raise UserError(f"{where}: there is no such file; it has a line for each arm, name: key=value")
        arms = OmegaConf.to_container(read_yaml(Path(arms)))
    if not isinstance(arms, dict | None):
        raise UserError(f'{where} must be names with arguments: arms={{base: "", wide: "agent.width=128"}}')
    found = {}
    for name, own in (arms or {}).items():
        texts = shlex.split(own) if isinstance(own, str) else own or []
        if not isinstance(texts, list) or not all(isinstance(t, str) and "=" in t for t in texts):
            raise UserError(f"{where}: {name} is {own!r}; expected as in {name}: 'agent.width=128'")
        for text in texts:
            if key_of(text) in (*OURS, *OWN):
                raise UserError(f"{where}: {name} has {text}, which is the same for all arms")
        found[str(name)] = texts
    return found


def read_kept(file: Path) -> dict[str, Any]:
    """What `_Plan` kept, in a file that may be a stranger's. Raises UserError."""
    kept = read_json(file, 2**26)
    found = kept.get("format") if isinstance(kept, dict) else None
    if found != FORMAT_VERSION:
        raise UserError(f"{file} is of format {found!r}; this version reads {FORMAT_VERSION}")
    valid = KEYS["cross_validate"]
    try:
        for key in ("folds", "joint_split"):
            valid[key].read(f"{file}: {key}", kept[key])
        for name, arm in kept["arms"].items():
            if not NAME.fullmatch(name):
                raise UserError(f"{file}: {name!r} is not the name of an arm")
            check_kept(arm["arguments"], f"{file}: arm {name}")
            seeds = valid["seeds"].read(f"{file}: seeds", arm["seeds"])
            if not SPLIT_KEY.fullmatch(arm["split_key"]):
                raise UserError(f"{file}: {arm['split_key']!r} is not the key of a split")
            kept["arms"][name] = Arm(tuple(arm["arguments"]), tuple(seeds), arm["split_key"])
        check_kept(kept["arguments"], str(file))
        if not kept["arms"]:
            raise UserError(f"{file} is damaged: it has no arms")
        for key in {"episodes", "reference"} & {*kept}:  # those of earlier versions have neither
            valid[key].read(f"{file}: {key}", kept[key])
        kept["runs"] = {str(name): list(map(str, folders)) for name, folders in kept["runs"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged: {type(error).__name__}: {error}") from error
    return kept


def plain(value: Any) -> Any:
    """The value of a key, as Python has it."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _check_once(arms: str) -> None:
    """Raises UserError: a name stands twice among arms, of which Hydra would keep the last."""
    try:
        node = yaml.compose(arms, yaml.SafeLoader)
    except yaml.YAMLError:
        return  # it is a path, or Hydra's own way of writing; YAML is close to it
    names = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"arms: two arms are called {name}; give each a name of its own")


def _short(argument: str) -> str:
    """A name for an arm: ``mlp`` for ``agent=mlp``, ``width_64`` for ``agent.width=64``."""
    key, _, value = argument.partition("=")
    return re.sub(r"[^\w.+-]+", "_", f"{key.rpartition('.')[2]}_{value}" if "." in key else value)
