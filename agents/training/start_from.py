"""``start_from=<run>``: a new run begins with what another one has learnt."""

from __future__ import annotations

import logging
from typing import Any

import torch

from ...envs.errors import UserError
from ..policies.base import Policy
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folder_of

log = logging.getLogger(__name__)


def take_over(policy: Policy, start_from: str) -> None:
    """Give a policy what another run has learnt: what acts, the normaliser and, where they fit, the rest.

    The critic goes along if the new one is built alike, and the exploration scale if the new policy is to
    begin with the same ``initial_log_std``: another value asks for that one. Of a run that learnt neither,
    a clone or a search, both are as new.

    Args:
        policy: of the new run.
        start_from: the other run.

    Raises:
        UserError: there is no such run, or its agent is another one.
    """
    folder = policy_folder_of(start_from)
    other = load_policy(folder).policy
    own, theirs = (_acting_architecture(policy) for policy in (policy, other))
    names = [name for name in {**theirs, **own} if own.get(name) != theirs.get(name)]
    if names:
        names = ["agent"] if "agent" in names else names  # another agent has other keys
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


def _acting_architecture(policy: Policy) -> dict[str, Any]:
    """What acts, and what it reads: without what only learning needs."""
    of_learning = ("critic", "initial_log_std", "identify", "n_sensors", "grid")
    found = {name: value for name, value in policy.architecture().items() if name not in of_learning}
    reads = {f.name: f.size for f in (*policy.spec.token, *policy.spec.joint, *policy.spec.trace)}
    return {"agent": type(policy).__name__, **found, "features": reads}
