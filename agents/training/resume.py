"""What a run begins or goes on with: another's policy, its random streams, and what differs from before."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from ...envs.errors import UserError
from ...envs.task_set import TaskSet
from ..algorithms.base import Algorithm
from ..algorithms.clone import teachers_of
from ..evaluation.runs import identities_of
from ..policies.base import Policy
from ..storage.policy import load_policy
from ..storage.policy_json import installed_version, policy_folder_of
from ..storage.training_state import PACKAGES

log = logging.getLogger(__name__)

COMPARED = ("env", "agent", "algorithm", "seed", "precision")
"""Of the configuration, what a training state keeps to be compared."""

WITHOUT_INFLUENCE = frozenset(Algorithm.__dataclass_fields__) - {"max_diverged"}
"""Settings of every algorithm that decide what is saved and shown, and nothing that is learnt."""


@dataclass(frozen=True)
class Changes:
    """What differs from when a training state was written, in words; none: the run is exact, to the last bit.

    If ``new_episodes``, the environments have changed, so that their episodes cannot be resumed.
    """

    notes: tuple[str, ...] = ()
    new_episodes: bool = False


def find_changes(
    state: Mapping[str, Any],
    facts: Mapping[str, Any],
    config: Mapping[str, Any],
    own_facts: Mapping[str, Any],
    harmless: Collection[str] = (),
) -> Changes:
    """Compares a training state, its description and the resolved configuration with what they are now.

    ``own_facts`` are those of the description that influence numbers; ``harmless`` further settings of the
    algorithm that do not.
    """
    ignored = {f"algorithm.{name}" for name in (*WITHOUT_INFLUENCE, *harmless)}
    then, now = ({n: held.get(n) for n in COMPARED} for held in (state["config"], config))
    then, now = leaves(then), leaves(now)
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key) and key not in ignored]
    notes = [f"{key} is {now.get(key)}, was {then.get(key)}" for key in keys]
    others = [name for name, value in own_facts.items() if value != facts.get(name)]
    notes += [f"{name} is {own_facts[name]}, was {facts.get(name)}" for name in others]
    versions = facts.get("versions", {})
    now = {package: installed_version(package) for package in PACKAGES}
    notes += [f"{n} is {v}, was {versions.get(n)}" for n, v in now.items() if v != versions.get(n)]
    of_envs = ("seed", "algorithm.num_envs")
    elsewhere = any(key.startswith("env.") or key in of_envs for key in keys)
    elsewhere = elsewhere or not {"simulation", "layouts"}.isdisjoint(others)
    return Changes(tuple(notes), new_episodes=elsewhere)


def leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    """Values that are no mappings, by their dotted names."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def take_random_states(device: torch.device) -> dict[str, Any]:
    """Where the process's streams are: torch's (a GPU has its own), NumPy's global one and Python's."""
    numpy = np.random.get_state(legacy=False)
    states = {
        "torch": torch.get_rng_state(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "python": [list(random.getstate()[1]), random.getstate()[2]],
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def put_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Inverse of `take_random_states`; a GPU's stream stays where it is if none was kept."""
    torch.set_rng_state(states["torch"])
    numpy = states["numpy"]
    key = np.array(numpy["state"]["key"], np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    numbers, gauss = states["python"]
    random.setstate((random.getstate()[0], tuple(numbers), gauss))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def seen_before(config: DictConfig, task: TaskSet, resumes: bool = False) -> dict[str, str]:
    """Identities, by name, of the bodies that whom a run starts from, or who teaches it, was trained on.

    A run that ``resumes`` has a start no more, but perhaps other teachers than before.
    """
    start, teacher = None if resumes else config.get("start_from"), config.algorithm.get("teacher")
    agents = [load_policy(policy_folder_of(start))] if start else []
    agents += [agent for agent, _ in teachers_of(teacher, task)] if teacher else []
    return {name: identity for agent in agents for name, identity in identities_of(agent).items()}


def take_over(policy: Policy, start_from: str) -> None:
    """Give a policy what another run has learnt: what acts, the normaliser and, where they fit, the rest.

    The critic goes along if the new one is built alike, and the exploration scale if the new policy is to
    begin with the same ``initial_log_std``: another value asks for that one. Of a run that learnt neither,
    a clone or a search, both are as new.

    Raises:
        UserError: there is no such run, or its agent is another one.
    """
    folder = policy_folder_of(start_from)
    other = load_policy(folder).policy
    theirs, own = ({"agent": type(one).__name__} for one in (other, policy))
    if type(other) is type(policy):  # another agent has other keys
        theirs, own = (one.architecture() | {"features": _reads(one)} for one in (other, policy))
    names = [name for name in {**theirs, **own} if own.get(name) != theirs.get(name)]
    names = [name for name in names if not of_learning(policy, name, theirs.get(name))]
    if names:
        held, asked = (", ".join(f"{n}={found.get(n)}" for n in names) for found in (theirs, own))
        raise UserError(f"start_from={start_from} holds {held}; the configuration asks for {asked}")
    policy.normalizer.load_state_dict(other.normalizer.state_dict())
    acting, learnt = policy.acting_parameters(), dict(other.named_parameters())
    critic = {n: p for n, p in policy.named_parameters() if n not in acting and n != "log_std"}
    fits = all(name in learnt and learnt[name].shape == p.shape for name, p in critic.items())
    taken = {**acting, **(critic if fits else {})}
    if policy.initial_log_std == other.initial_log_std:
        taken["log_std"] = policy.log_std
    with torch.no_grad():
        for name, parameter in taken.items():
            parameter.copy_(learnt[name])
    anew = ["the critic"] * (not fits) + ["exploration"] * ("log_std" not in taken)
    log.info("starting with what %s has learnt; new: %s", folder, " and ".join(anew) or "nothing")


def _reads(policy: Policy) -> dict[str, int]:
    return {f.name: f.size for f in (*policy.spec.token, *policy.spec.joint, *policy.spec.trace)}


def of_learning(policy: Policy, name: str, value: Any) -> bool:
    """Whether an argument of a policy has another value without influence on what acts.

    So it is where the states of the two differ in modules that only training uses, and in no others.
    """
    # What a critic reads of the task has a scale in the normaliser, which is taken over whole.
    if name in ("initial_log_std", "identify", *set(policy.training_sizes) - {"n_privileged"}):
        return True
    if name not in policy.architecture():
        return False
    try:
        with torch.random.fork_rng(devices=[]):
            other = type(policy)(spec=policy.spec, **{**policy.architecture(), name: value})
    except UserError:  # this value does not go with the others
        return False
    one, two = ({n: tuple(v.shape) for n, v in p.state_dict().items()} for p in (policy, other))
    changed = {n.partition(".")[0] for n in {**one, **two} if one.get(n) != two.get(n)}
    return bool(changed) and changed <= set(policy.training_modules)
