"""Runs that were trained otherwise are not two seeds of one agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from somite.agents.evaluation.plan import AgentPlan, told_apart

VARIATION = {"_target_": "somite.envs.locomotion.BodyVariation", "length": None, "mass": None, "variants": 16}
SENSES = {"_target_": "somite.envs.sensors.Senses", "shuffle": "never", "history": 3}


def plan(agent: str = "SMP", steps: int | None = 3_000_000, command: Any = (), **config: Any) -> AgentPlan:
    training = {} if steps is None else {"steps": steps, "command": list(command)}
    description = {"environment": {"config": config}, "training": training}
    return AgentPlan(Path("run"), "run", agent, "limbs", frozenset(), description, (), ())


def names(*plans: AgentPlan) -> list[str]:
    return [named.agent for named in told_apart(plans)]


def test_seeds_are_one_agent() -> None:
    damage = {"_target_": "somite.envs.locomotion.Damage", "probability": 0.5, "step": [50, 60]}
    assert names(*[plan(variation=VARIATION, damage=damage)] * 3) == ["SMP"] * 3
    assert names(plan(), plan(variation=VARIATION)) == ["SMP", "SMP"], "an older file says less"
    assert names(plan(steps=None), plan(steps=None)) == ["SMP", "SMP"]
    assert names(plan(), plan(bodies=["cheetah_3_front"])) == ["SMP"] * 2


def test_varied_bodies_are_another_training() -> None:
    varied = plan(variation=VARIATION | {"length": [0.5, 1.5], "variants": 64})
    assert names(plan(variation=VARIATION), varied) == ["SMP", "SMP variation.length=[0.5, 1.5]"]
    assert names(varied, plan("MLP")) == ["SMP", "MLP"], "nobody it could be mistaken for"


def test_only_what_differs_is_told() -> None:
    both = VARIATION | {"mass": [0.5, 2]}
    assert names(plan(variation=both), plan(variation=both | {"length": [0.9, 1.1]})) == [
        "SMP",
        "SMP variation.length=[0.9, 1.1]",
    ]


def test_disturbed_senses_are_another_training() -> None:
    shuffled = plan(senses=SENSES | {"shuffle": "episode"})
    assert names(plan(senses=SENSES), shuffled) == ["SMP", "SMP senses.shuffle=episode"]


def test_another_budget_is_another_training() -> None:
    assert names(plan(steps=3_004_416), plan(steps=3_502_080)) == ["SMP", "SMP"]
    assert names(plan(steps=3_004_416), plan(steps=6_002_688)) == ["SMP 3 M steps", "SMP 6 M steps"]


def test_a_run_that_goes_on_from_another_is_another_training() -> None:
    first, second = plan(), plan(command=["env=cheetah", "start_from=runs/a"])
    assert names(first, second) == ["SMP 3 M steps", "SMP 3 M more steps"]
    assert names(second, plan(command=["start_from=runs/b"])) == ["SMP", "SMP"]
