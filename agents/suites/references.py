"""What random actions and specialists return on a body: the scale that scores are normalised by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from .plan import AgentPlan
from .store import key_of

TABLE = "references.json"
"""In this package; ``somite-references`` makes it."""

OF_THE_TASK = ("family", "morphology", "frame_skip", "task")
"""Keys of an environment that a body's return depends on, its bodies aside."""


def signature(environment: Mapping[str, Any]) -> str:
    """A name for the task of a saved environment: specialists of another one are no measure."""
    return key_of({name: environment.get(name) for name in OF_THE_TASK})[:16]


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
