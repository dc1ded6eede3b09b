"""A policy says itself what only its value uses; one that does not is refused before it is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from somite.agents.policies import SensorPolicy
from somite.agents.policies.base import check_policy
from somite.envs.errors import UserError
from somite.envs.sensors import Senses
from tests.observations import random_observation

from .helpers import POLICIES

TASK = {"n_actions": 2, "n_recent": 1, "n_privileged": 5}
OBSERVATION = {
    "tokens": torch.zeros(3, 4, 1),
    "mask": torch.ones(3, 4, dtype=torch.int8),
    "recent_actions": torch.zeros(3, 1, 2),
    "privileged": torch.zeros(3, 5),
}


class Undeclared(SensorPolicy):
    """The mean of all sensors; its critic has a name that no policy of ours has."""

    def __init__(self, spec: Any, width: int = 3, **task: Any) -> None:
        super().__init__(spec, width, **task)
        self.width = width
        self.sensor = nn.Linear(spec.token_size, width)
        self.action = nn.Linear(width, self.n_actions)
        self.judge = nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 1))

    def encode(self, observation: Any, memory: Any) -> tuple[Tensor, Any]:
        return self.sensor(observation["tokens"]).mean(-2), memory

    def value(self, features: Tensor, observation: Any) -> Tensor:
        return self.judge(features).squeeze(-1)


class Declared(Undeclared):
    training_modules = (*SensorPolicy.training_modules, "judge")


def made(cls: type[SensorPolicy], **changes: Any) -> SensorPolicy:
    """The policy, with other methods or attributes."""
    return type(cls.__name__, (cls,), changes)(Senses().spec(), **TASK)


def test_a_critic_of_any_name_is_not_evolved() -> None:
    policy = made(Declared)
    check_policy(policy, OBSERVATION)
    assert {name.partition(".")[0] for name in policy.acting_parameters()} == {"sensor", "action"}
    assert (
        policy.architecture()
        == {"width": 3, "discrete": False, "critic": "privileged", "initial_log_std": -0.5} | TASK
    )


@pytest.mark.parametrize("name", POLICIES)
def test_our_policies_declare_theirs(name: str) -> None:
    check_policy(POLICIES[name](), random_observation(0))


def forget(self: Undeclared, observation: Any, memory: Any) -> tuple[Tensor, Any]:
    return self.sensor(observation["tokens"]).mean(-2), {}


REFUSED = {
    "undeclared": (
        Undeclared,
        {},
        r"Undeclared.value uses judge, which act does not: .*training_modules = \('value_head', 'judge'\)",
    ),
    "too_much": (
        Declared,
        {"training_modules": ("judge", "sensor")},
        r"Declared.training_modules names sensor, which Declared.act uses; leave it out",
    ),
    "actions": (
        Declared,
        {"act": lambda self, features, observation: features},
        r"Declared: act gives \(3, 3\), expected \(3, 2\) for 3 observations",
    ),
    "values": (
        Declared,
        {"value": lambda self, features, observation: self.judge(features)},
        r"Declared: value gives \(3, 1\), expected \(3,\)",
    ),
    "memory": (
        Declared,
        {"initial_memory": lambda self, batch, n: {"seen": torch.zeros(batch, n, 1)}, "encode": forget},
        r"encode's memory gives \{\}, expected \{'seen': \(3, 4, 1\)\}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_policy_that_breaks_its_contract_is_refused(name: str) -> None:
    cls, changes, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        check_policy(made(cls, **changes), OBSERVATION)
