"""Looking inside a policy: what it attends to, and what its limbs tell each other, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...envs.errors import UserError
from ...envs.numbers import whole
from ...envs.task_set import TaskSet
from ...envs.token_env import TokenEnv
from .. import policies
from ..agent import Agent
from ..evaluation.episodes import watch_episode
from ..policies.base import Policy


@dataclass(frozen=True)
class Inside:
    """What went on inside a policy in one episode of T steps."""

    agent: str  # name of the policy's class
    body: str  # name of the body or of the task
    kind: str  # of the N tokens: ``sensors``, ``patches`` or ``limbs``
    names: tuple[str, ...]  # (N,) of limbs, or of sensors, copies and noise in the task's order
    parents: tuple[int, ...] | None  # (N,) limb that each limb hangs from, -1 for a root; None for sensors
    attention: np.ndarray | None  # (T, N) share of each sensor; (T, layers, N, N) of limbs, [reader, read]
    messages: dict[str, np.ndarray]  # ``up`` and ``down``, (T, N) each, as of `messages_of`
    rewards: np.ndarray  # (T,) of the step that followed
    shuffles: tuple[int, ...]  # steps before which the sensors were put into another order


@torch.inference_mode()
def attention_of(agent: Agent, observation: Mapping[str, Any]) -> np.ndarray | None:
    """What a policy attends to when it acts on this observation; the agent is left as it is.

    Call it right before ``agent.act``, with the same: a policy's memory is taken as the agent has it then.

    Returns:
        Of sensors and patches (B, N): the share of the attention that each slot gets. Of limbs
        (B, layers, N, N): what the limb of a row takes from each limb, the mean over heads. Rows sum to 1.
        None: the policy has no attention.

    Raises:
        ValueError: the observation does not fit the policy.
    """
    attention = agent.policy.attention(*agent.before_acting(observation))
    return None if attention is None else attention.double().cpu().numpy()


@torch.inference_mode()
def messages_of(agent: Agent, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What limbs tell each other when a policy acts on this observation; arguments as of `attention_of`.

    Returns:
        ``up`` and ``down``, those that are sent, each (B, N): the size of the messages between limb i and its
        parent, 0 of roots. It is the length of what a message adds to the hidden state that receives it.
    """
    sizes = agent.policy.message_sizes(agent.before_acting(observation)[0]) or {}
    return {name: size.double().cpu().numpy() for name, size in sizes.items()}


def shown_by_slots(env: TokenEnv) -> np.ndarray:
    """(N,) the channel that each slot of the first environment shows."""
    return np.asarray(env.slots.order[0]).copy()


def by_channel(of_slots: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Numbers of slots (N,) put back to the channels that the slots show, ``order`` (N,)."""
    of_channels = np.empty_like(of_slots)
    of_channels[order] = of_slots
    return of_channels


def record_inside(agent: Agent, task_set: TaskSet, body: str, seed: int = 0, steps: int = 1000) -> Inside:
    """Run one episode, that of `run_episodes` with the same seed, and keep what went on in so many steps.

    Raises:
        UserError: a policy with neither attention nor messages, an unknown body, or no number of steps.
    """
    whole(1).read("steps", steps)
    names = task_set.choose(body)
    if len(names) != 1:
        raise UserError(f"one body can be looked into at a time, but {body!r} means {len(names)}")
    if not looks_inside(agent.policy):
        raise UserError(_nothing_inside(agent.policy))
    env = task_set.make_env(names, 1, aligned=agent.policy.aligned_slots, threads=1, once=True)
    of_limbs, order, rewards = env.kind == "limbs", None, []
    attention, messages, shuffles = [], [], []
    with closing(env):
        for observation, rewards in watch_episode(agent, env, seed):
            if len(rewards) == steps:
                break
            # The channel that each slot shows; limbs are never moved.
            before, order = order, None if of_limbs else shown_by_slots(env)
            if before is not None and (order != before).any():
                shuffles.append(len(rewards))
            seen = attention_of(agent, observation)
            if seen is not None:
                attention.append(seen[0] if of_limbs else by_channel(seen[0], order))
            messages.append(messages_of(agent, observation))
        return Inside(
            agent=type(agent.policy).__name__,
            body=names[0],
            kind=env.kind,
            names=token_names(env),
            parents=tuple(limb.parent for limb in env.bodies[0].limbs) if of_limbs else None,
            attention=np.stack(attention) if attention else None,
            messages={way: np.concatenate([told[way] for told in messages]) for way in messages[0]},
            rewards=np.array(rewards),
            shuffles=tuple(shuffles),
        )


def looks_inside(policy: Policy | type[Policy]) -> bool:
    """Whether a policy has attention or messages."""
    if getattr(policy, "messages", None) == "none":
        return False
    kind = policy if isinstance(policy, type) else type(policy)
    return kind.attention is not Policy.attention or kind.message_sizes is not Policy.message_sizes


def _nothing_inside(policy: Policy) -> str:
    found = [getattr(policies, name) for name in policies.__all__]
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Policy)]
    able = [kind.__name__ for kind in kinds if kind.kind == policy.kind and looks_inside(kind)]
    name = type(policy).__name__
    if looks_inside(type(policy)):
        name += f" with agent.messages={policy.messages}"
    return (
        f"{name} has neither attention nor messages to look at; what has, of {policy.kind}: {', '.join(able)}"
    )


def token_names(env: TokenEnv) -> tuple[str, ...]:
    """Names of the limbs of the first environment, or of the channels: sensors, their copies, noise."""
    if env.kind == "limbs":
        return tuple(limb.name for limb in env.bodies[0].limbs)
    return channel_names(env.source.sensor_names, np.asarray(env.channels.sensor).tolist())


def channel_names(sensors: Sequence[str], shown: Sequence[int]) -> tuple[str, ...]:
    """Names of channels, of (S,) names of sensors and (C,) which of them each channel shows, S for noise."""
    names, met = [], Counter()
    for sensor in shown:
        met[sensor] += 1
        if sensor == len(sensors):
            names.append(f"noise {met[sensor]}")
        else:
            names.append(sensors[sensor] + (f" (copy {met[sensor] - 1})" if met[sensor] > 1 else ""))
    return tuple(names)
