"""Whether a run that is gone on with is the one that was never stopped, and what differs if it is not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..storage.policy_json import installed_version
from ..storage.training_state import PACKAGES
from .earlier import carried_over

WITHOUT_INFLUENCE = (
    "checkpoint_every",
    "keep_checkpoints",
    "validate_every",
    "validation_episodes",
    "zero_shot_every",
)
"""Settings of an algorithm that decide what is saved and shown, and nothing that is learnt."""

COMPARED = ("env", "agent", "algorithm", "seed", "precision")
"""Of the configuration, what a training state keeps to be compared."""


@dataclass(frozen=True)
class Changes:
    """What differs from when a training state was written.

    Attributes:
        notes: in words, one for each; none: the run is exact, to the last bit.
        new_episodes: the environments are others, so that episodes cannot be gone on with.
    """

    notes: tuple[str, ...]
    new_episodes: bool


def find_changes(
    state: Mapping[str, Any],
    facts: Mapping[str, Any],
    config: Mapping[str, Any],
    own_facts: Mapping[str, Any],
    harmless: Collection[str] = (),
) -> Changes:
    """Compares then and now.

    Args:
        state: the training state, with the configuration that it was written under.
        facts: its description.
        config: the present configuration, resolved.
        own_facts: of the description, what influences numbers, as it is now.
        harmless: further settings of the algorithm that have no influence.
    """
    ignored = {f"algorithm.{name}" for name in (*WITHOUT_INFLUENCE, *harmless)}
    before = carried_over(state["config"])
    then = _flat({name: before.get(name) for name in COMPARED})
    now = _flat({name: config.get(name) for name in COMPARED})
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key) and key not in ignored]
    notes = [f"{key} is {now.get(key)}, was {then.get(key)}" for key in keys]
    was = {"simulation": before["simulation"], **facts}  # which earlier versions do not tell
    others = [name for name, value in own_facts.items() if value != was.get(name)]
    notes += [f"{name} is {own_facts[name]}, was {was.get(name)}" for name in others]
    versions = facts.get("versions", {})
    for package in PACKAGES:
        if (version := installed_version(package)) != versions.get(package):
            notes.append(f"{package} is {version}, was {versions.get(package)}")
    rows = ("seed", "algorithm.num_envs")
    elsewhere = "simulation" in others or any(key.startswith("env.") or key in rows for key in keys)
    return Changes(tuple(notes), new_episodes=elsewhere)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by their dotted names."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
