"""What a worker does: one shard at a time, with a simulator that it keeps from shard to shard."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...envs.errors import UserError
from ...envs.saved import task_set_of
from ...envs.tokens import TokenSpec
from ...envs.user_modules import inherit, modules_to_inherit
from ..device import processor
from ..policies.base import Policy
from ..storage.policy import describe_policy, described_policy
from ..storage.policy_json import installed_version
from .candidates import Recipe, Sent, received
from .population import Scores, Simulator

PACKAGES = ("somite", "torch", "numpy", "mujoco", "gymnasium")

_kept: dict[str, Any] = {}
"""Of this process: the simulator of one run, and the recipe of one generation, under their keys."""


def setup_of(
    policy: Policy, environment: Mapping[str, Any], hashes: Mapping[str, str], episodes: int
) -> dict[str, Any]:
    """What a worker makes a simulator of: plain values and arrays, no objects of ours.

    Args:
        policy: whose acting parameters candidates are.
        environment: configuration of the task.
        hashes: of its bodies.
        episodes: E, of each body.
    """
    return {
        **describe_policy(policy),
        "tensors": {name: value.detach().cpu().numpy() for name, value in policy.state_dict().items()},
        "environment": dict(environment),
        "modules": modules_to_inherit(),
        "hashes": dict(hashes),
        "episodes": episodes,
    }


def simulator_of(setup: Mapping[str, Any]) -> Simulator:
    """Inverse of `setup_of`. Raises UserError: a body is another one here than where the run was begun."""
    inherit(setup["modules"])
    task_set = task_set_of(setup["environment"])
    own = task_set.hashes()
    for name, wanted in setup["hashes"].items():
        if own.get(name) != wanted:
            raise UserError(
                f"the body {name} is another one on {socket.gethostname()} than where the run was begun: its "
                f"file or this package differs (hash {own.get(name)}, wanted {wanted})"
            )
    policy = described_policy(setup, "the policy that was sent")
    policy.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in setup["tensors"].items()})
    assert isinstance(policy.spec, TokenSpec)
    return Simulator(policy, task_set, setup["episodes"])


def simulate(simulator: Simulator, sent: Sent, recipe: Recipe | None, starts: Sequence[Any]) -> Scores:
    """Scores of one shard."""
    scores = simulator.run(received(sent, recipe), starts, lambda: False)
    assert scores is not None
    return scores


def kept(kind: str, key: str, make: Any) -> Any:
    """What this process keeps under a key; what it kept of the same kind under another is let go."""
    if _kept.get(kind, (None, None))[0] != key:
        before = _kept.pop(kind, (None, None))[1]
        if isinstance(before, Simulator):
            before.close()
        _kept[kind] = key, make()
    return _kept[kind][1]


def machine() -> dict[str, str | None]:
    """What numbers depend on."""
    versions = {name: installed_version(name) for name in PACKAGES}
    return {"processor": processor(), "python": platform.python_version(), **versions}


def evaluate_shard(
    key: str, setup: Sequence[Any], generation: str, recipe: Sequence[Any], sent: Sent, starts: Sequence[Any]
) -> tuple[Scores, dict[str, Any]]:
    """A Ray task: a shard's scores, and about who computed them.

    Args:
        key: of the run.
        setup: a reference to what `setup_of` gave, in a list, so that it is fetched once for a process only.
        generation: key of the generation.
        recipe: likewise a reference, or nothing.
        sent: the shard.
        starts: E seeds.
    """
    import ray

    begun = time.perf_counter()
    torch.set_num_threads(1)
    simulator = kept("simulator", key, lambda: simulator_of(ray.get(setup[0])))
    shared = kept("recipe", generation, lambda: ray.get(recipe[0])) if recipe else None
    scores = simulate(simulator, sent, shared, starts)
    about = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "machine": machine(),
        "seconds": time.perf_counter() - begun,
    }
    return scores, about
