"""What was otherwise in the training of one run than in that of another: such runs are not two seeds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .conditions import UNDISTURBED, VARIED
from .plan import AgentPlan

_ASIDE = ("variants", "seed", "draw", "extrapolation")
"""Keys that say how something is drawn, not what varies."""
LIKE_BUDGETS = 1.25
"""Most that the training steps of two seeds of one agent differ by, as a factor."""


def told_apart(plans: Sequence[AgentPlan]) -> list[AgentPlan]:
    """The plans, with what some runs of an agent were trained under, and others not, in its name.

    A report takes runs of one name for training seeds of one agent, and its intervals go over them. Runs that
    were trained for longer, under other shuffles, or on varied bodies, are another experiment.

    Args:
        plans: of all runs.
    """
    groups: dict[str, list[AgentPlan]] = {}
    for plan in plans:
        groups.setdefault(plan.agent, []).append(plan)
    return [replace(plan, agent=" ".join([plan.agent, *_told(plan, groups[plan.agent])])) for plan in plans]


def _told(plan: AgentPlan, alike: Sequence[AgentPlan]) -> list[str]:
    others = [_disturbances(other.description) for other in alike]
    own = _disturbances(plan.description)
    told = [f"{key}={value}" for key, value in own.items() if any(d.get(key) != value for d in others)]
    budgets = [_budget(other.description) for other in alike]
    steps, started = zip(*budgets, strict=True)
    if max(steps) > LIKE_BUDGETS * min(steps) > 0 or len(set(started)) > 1:
        own_steps, goes_on = _budget(plan.description)
        told.append(f"{own_steps / 1e6:.2g} M {'more ' if goes_on else ''}steps")
    return told


def _budget(description: Mapping[str, Any]) -> tuple[int, bool]:
    """Training steps, and whether they come after those of a run that this one started from."""
    training = description.get("training", {})
    goes_on = any(str(argument).startswith("start_from=") for argument in training.get("command", []))
    return training.get("steps") or 0, goes_on


def _disturbances(description: Mapping[str, Any]) -> dict[str, Any]:
    """What the training did beside the task itself, as ``variation.mass`` and its value."""
    config = description["environment"]["config"]
    found = {}
    for node, plain in UNDISTURBED.items():
        given = config.get(node) or {}
        found |= {f"{node}.{key}": given[key] for key in plain if key in given and given[key] != plain[key]}
    for node, kind in VARIED.items():
        defaults = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
        told = defaults.keys() - set(_ASIDE)
        given = {key: value for key, value in (config.get(node) or {}).items() if key in told}
        found |= {f"{node}.{key}": v for key, v in given.items() if _listed(v) != _listed(defaults[key])}
    return found


def _listed(value: Any) -> Any:
    """A file has lists where the code has tuples."""
    return list(value) if isinstance(value, tuple) else value
