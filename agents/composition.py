"""Puts a policy and an environment together, and says at once where they do not fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib import resources
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from ..envs.cores import check_memory
from ..envs.errors import UserError
from ..envs.locomotion.bodies.families import get_family
from ..envs.locomotion.body_set import OF_SETTINGS
from ..envs.task_set import TaskSet
from ..envs.token_env import TokenEnv
from . import policies
from .policies.base import Policy, check_policy

LARGE = 1000
"""A number of an agent beyond which it may not fit into the memory."""

_ORDINARY = {"limbs": policies.MLP, "sensors": policies.SensorMLP}
"""The control of each kind of token: ``agent=mlp`` means the one that fits."""


def family_settings(name: str) -> dict[str, Any]:
    """Settings of a family for a `FamilySet`, of its file in ``conf/env``. Raises UserError: it has none."""
    file = resources.files("somite.conf").joinpath("env", f"{get_family(name).name}.yaml")
    if not file.is_file():
        raise UserError(f"there is no env={name}, from whose file the task of {name} could be read")
    node = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8")))
    return {key: node[key] for key in OF_SETTINGS}


def make_task(config: DictConfig) -> TaskSet:
    """The task of a configuration's ``env``, where only what it uses is left. Raises UserError."""
    kind = hydra.utils.get_class(config.env._target_)
    config.env = kind.used(OmegaConf.to_container(config.env))
    return hydra.utils.instantiate(config.env, _convert_="all")


def policy_class(config: DictConfig, kind: str, by_gradient: bool = False) -> type[Policy]:
    """The class that a node of ``conf/agent`` means for tokens of a kind, or for training by its gradient.

    Raises:
        UserError: it reads tokens of another kind, or has no gradient.
    """
    cls = hydra.utils.get_class(config._target_)
    if cls is policies.MLP:
        cls = _ORDINARY.get(kind, cls)
    if cls.kind != kind:
        fitting = []
        for file in resources.files("somite.conf").joinpath("agent").iterdir():
            other = hydra.utils.get_class(OmegaConf.create(file.read_text(encoding="utf-8"))._target_)
            if other.kind == kind and (other.has_gradient or not by_gradient):
                fitting.append(file.name.removesuffix(".yaml"))
        raise UserError(
            f"{cls.__name__} reads {cls.kind}, but this environment's tokens are {kind}; what fits: "
            f"agent={' or '.join(sorted(fitting))}"
        )
    if by_gradient and not cls.has_gradient:
        raise UserError(
            f"{cls.__name__} picks the patches that it looks at, and a choice has no gradient: train it with "
            "algorithm=cma_es, or take agent=patch_transformer"
        )
    return cls


def build_policy(config: DictConfig, env: TokenEnv) -> Policy:
    """The policy of a node of ``conf/agent`` for an environment, with those of its sizes that it asks for.

    Raises:
        UserError: a policy of another kind, or that does not keep its contract, an invalid value, or too many
            parameters for the memory.
    """
    cls = policy_class(config, env.kind)
    asked, sizes = inspect.signature(cls).parameters, sizes_for(cls, env)
    given = {str(key): value for key, value in config.items() if key != "_target_"}

    def typed(keys: Iterable[str]) -> str:
        return ", ".join(f"agent.{key}" for key in keys)

    unknown, twice = [key for key in given if key not in asked], [key for key in given if key in sizes]
    if unknown:
        known = [key for key in asked if key != "spec" and key not in sizes]
        raise UserError(f"{cls.__name__} has no {typed(unknown)}; it has {typed(known)}")
    if twice:
        raise UserError(f"{typed(twice)} of {cls.__name__} comes from the environment; leave it out")
    # What takes no memory takes seconds instead, which small networks need not wait for.
    if any(isinstance(value, int) and value > LARGE for value in (*given.values(), *sizes.values())):
        with torch.device("meta"):
            n = sum(p.numel() for p in cls(spec=env.spec_of_tokens, **sizes, **given).parameters())
        # The parameters, of four bytes, and their gradient at least.
        what, advice = f"{cls.__name__} with {n:,} parameters", "make it smaller (agent.width, ...)"
        check_memory(4 * n * 2, what, advice)
    policy = cls(spec=env.spec_of_tokens, **sizes, **given)
    # Two observations of zeros, of tokens that all exist and of limbs that are all roots.
    values = {"parent": -1, "mask": 1, "joint_mask": 1, "action_mask": 1}
    blank = {
        key: torch.from_numpy(np.full((2, *part.shape), values.get(key, 0), part.dtype))
        for key, part in env.single_observation_space.items()
    }
    check_policy(policy, blank)
    return policy


def sizes_for(cls: type[Policy], env: TokenEnv) -> dict[str, Any]:
    """Those of the environment's sizes that a policy of this class is built with."""
    asked = inspect.signature(cls).parameters
    return {name: value for name, value in env.sizes.items() if name in asked}


def check_fit(policy: Policy, env: TokenEnv) -> None:
    """Refuses an environment that a trained policy cannot act in.

    Raises:
        UserError: other tokens, features, slots or actions, with what is there and what is wanted.
    """
    name = type(policy).__name__
    if policy.kind != env.kind:
        raise UserError(f"{name} reads {policy.kind}, but this environment's tokens are {env.kind}")
    spec = env.spec_of_tokens
    for what in ("token_size", "joint_size", "trace_size"):
        if getattr(policy.spec, what) != getattr(spec, what):
            keys = "env.senses.history, env.senses.traces"
            keys += ", env.senses.neighbors, env.patch_size, env.grey" if env.kind == "patches" else ""
            raise UserError(
                f"{name} was trained with {getattr(policy.spec, what)} features of a {what[:-5]}, this "
                f"environment gives {getattr(spec, what)}: {keys} must be that of training"
            )
    pairs = zip(policy.spec.token + policy.spec.trace, spec.token + spec.trace, strict=False)
    for own, here in pairs:
        if own.name == here.name and own.name in ("trace", "match") and own.meaning != here.meaning:
            what = "traces" if own.name == "trace" else "matches of neighbours"
            raise UserError(f"{name} was trained with {what} {own.meaning}; here they are {here.meaning}")
    for size, value in env.sizes.items():
        trained = getattr(policy, size, value)
        if size not in policy.training_sizes and trained != value:
            advice = "; its slots have fixed meanings: an invariant policy takes any number"
            advice = advice if size == "n_tokens" else ""
            raise UserError(f"{name} was built for {size}={trained}, here it is {value}{advice}")
