"""What random actions and specialists return on a body: the scale that scores are normalised by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from ...envs.saved import task_set_of
from .plan import AgentPlan
from .store import key_of

TABLE = "references.json"
"""In this package; ``somite-references`` makes it."""

OF_REACHING = ("goal", "reach_weight")
"""Of the task, without meaning for bodies that travel."""


def task_of(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What a body's return depends on, its own parameters aside: family, length of a step, reward, ends.

    Args:
        environment: saved configuration; keys that it lacks have their defaults.
    """
    bodies = task_set_of(environment)
    task = asdict(bodies.task)
    if task["goal"] != "reach":
        task = {name: value for name, value in task.items() if name not in OF_REACHING}
    names = {name: environment.get(name) for name in ("family", "morphology")}
    return json.loads(json.dumps({**names, "frame_skip": bodies.frame_skip, "task": task}))


def signature(environment: Mapping[str, Any]) -> str:
    """A name for the task of a saved environment: specialists of another one are no measure."""
    return key_of(task_of(environment))[:16]


def read_table() -> dict[str, Any]:
    """The kept returns: for each signature ``family`` and ``bodies``, by name."""
    return json.loads(resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Specialists:
    """Mean returns of specialists for each run and body; NaN where there is none."""

    returns: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def for_plans(cls, plans: list[AgentPlan]) -> Specialists:
        """Those of the tasks that these agents are tried in."""
        table, found = read_table(), {}
        for plan in plans:
            if plan.kind != "limbs":
                continue
            kept = table.get(signature(plan.trials[0].environment), {}).get("bodies", {})
            for body, entry in kept.items():
                if entry.get("specialists"):
                    values = [specialist["return"] for specialist in entry["specialists"]]
                    found[plan.run, body] = float(np.mean(values))
        return cls(found)

    def of(self, run: str, body: str) -> float:
        """Mean return on a body, NaN where it is not known."""
        return self.returns.get((run, body), np.nan)
