"""The ``policy/`` folder: what a trained policy is shared as.

``policy.safetensors`` holds every parameter and buffer (the normaliser's too), ``policy.json`` all that is
needed to build the network and the environments it was trained in. Neither can carry code: the class is
chosen by name among the policies of this package, nothing is unpickled, and no memory is taken before the
shapes in the file are those that the description asks for.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from omegaconf import OmegaConf
from torch import nn

from ...envs.errors import nearest, one_line
from ...envs.saved import ALLOWANCES
from ...envs.tokens import CONTRACT_VERSION, TokenSpec
from .. import policies
from ..bundled import PREFIX
from ..device import resolve_device
from .atomic import replace_folder
from .paths import found_from_run, run_of
from .policy_json import (
    DESCRIPTION,
    FORMAT_VERSION,
    TENSORS,
    CheckpointError,
    find_policy_folder,
    installed_version,
    policy_folder_of,
    read_description,
    read_policy_json,
)
from .tensors import MOST_BYTES, TensorError, read_tensors, shapes_only, unset
from .untrusted import read_regular

if TYPE_CHECKING:
    from ..agent import Agent

__all__ = ["CheckpointError", "load_policy", "policy_folder_of", "read_policy_json", "save_policy"]

TARGET_PREFIX = "somite.agents.policies."
PACKAGES = ("somite", "torch", "mujoco", "gymnasium", "stable-baselines3")


def save_policy(
    folder: str | Path, policy: nn.Module, *, environment: Mapping[str, Any], training: Mapping[str, Any]
) -> None:
    """Writes a policy so that the folder holds the old or the new one at every moment, never half.

    Args:
        folder: Where to; replaced if there.
        policy: A policy of ``somite.agents.policies``.
        environment: The whole configuration of its environments, with training bodies and split.
        training: How it was trained: the algorithm's configuration, steps so far, seed.

    Raises:
        CheckpointError: If the policy's class is not one that :func:`load_policy` could build.
    """
    target = TARGET_PREFIX + type(policy).__name__
    if policy_class(target, "the policy to save") is not type(policy):
        raise CheckpointError(f"{type(policy)} is not the class exported as {target}.")
    arguments = {"policy": {"_target_": target, **policy.architecture()}, "spec": policy.spec.to_dict()}
    # Whatever it computes in (float32, bfloat16), it is written as what its class has, which is asked for.
    kinds = shapes_only(lambda: build_policy(arguments, "the policy to save")).state_dict()
    # safetensors takes neither views that are not contiguous nor tensors that share memory.
    tensors = {
        key: value.detach().cpu().to(kinds[key].dtype).contiguous().clone()
        for key, value in policy.state_dict().items()
    }
    data = safetensors.torch.save(tensors)
    description = {
        "format": FORMAT_VERSION,
        "contract": CONTRACT_VERSION,
        **arguments,
        "environment": environment,
        "training": training,
        "versions": {name: installed_version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(description, indent=2, default=_plain)
    with replace_folder(folder) as writing:
        (writing / TENSORS).write_bytes(data)
        (writing / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def load_policy(folder: str | Path, device: str | torch.device = "cpu") -> Agent:
    """Loads what :func:`save_policy` wrote; runs no code from the files.

    Args:
        folder: A ``policy/`` folder, a run folder, whose ``policy/`` is then taken, or ``bundled/<name>``.
        device: Where the policy computes: ``cpu``, ``cuda``, ``cuda:1`` or ``auto``.

    Returns:
        An agent that acts on raw observations of one or many environments.

    Raises:
        CheckpointError: If the folder is missing or damaged, or made by a version that this one cannot read.
    """
    from ..agent import Agent

    is_bundled = str(folder).startswith(PREFIX)
    found = policy_folder_of(str(folder)) if is_bundled else find_policy_folder(folder)
    description, data = _read(found)
    file = f"{folder}: {DESCRIPTION}"
    expected = shapes_only(lambda: build_policy(description, file)).state_dict()
    try:
        tensors = read_tensors(data, expected)
    except TensorError as error:
        raise CheckpointError(f"{folder}: {TENSORS} {error}.") from error
    policy = unset(lambda: build_policy(description, file))
    policy.load_state_dict(tensors)
    policy.to(resolve_device(device)).eval()
    environment = without_allowances(description["environment"])
    if "config" in environment:
        environment["config"] = found_from_run({"env": environment["config"]}, run_of(found))["env"]
    return Agent(policy, environment=environment, description=description)


def policy_class(target: Any, file: str | Path) -> type[nn.Module]:
    """Finds the class that a ``_target_`` names, without importing anything.

    Args:
        target: ``somite.agents.policies.`` and the name of a policy exported there.
        file: Where the name was read, for the message.

    Returns:
        The class.

    Raises:
        CheckpointError: If it names anything else.
    """
    exported = {
        name: value
        for name, value in vars(policies).items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and not name.startswith("_")
        and value.__module__.startswith(policies.__name__)
    }
    name = str(target).removeprefix(TARGET_PREFIX)
    if not isinstance(target, str) or not target.startswith(TARGET_PREFIX) or name not in exported:
        raise CheckpointError(
            f"{file} asks for the policy class {target!r}; only policies of {TARGET_PREFIX[:-1]} are built: "
            f"{nearest(name, exported)}"
        )
    return exported[name]


def build_policy(description: Mapping[str, Any], file: str | Path) -> nn.Module:
    """Builds the untrained network that a description names.

    Args:
        description: The content of a ``policy.json``.
        file: Where it was read, for the message.

    Returns:
        The policy, with random parameters. The random state of the process is left as it was.

    Raises:
        CheckpointError: If the class or its arguments are not valid.
    """
    arguments = dict(description["policy"])
    cls = policy_class(arguments.pop("_target_", None), file)
    try:
        spec = TokenSpec.from_dict(description["spec"])
        with torch.random.fork_rng(devices=[]):
            return cls(spec=spec, **arguments)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{file}: {cls.__name__} cannot be built from this description: {type(error).__name__}: "
            f"{one_line(str(error))[:300]}"
        ) from error


def without_allowances(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What a policy was trained in, without what its maker allowed (files, modules): the user says that.

    Args:
        environment: of a ``policy.json``.
    """
    config = environment.get("config", {})
    kept = {key: value for key, value in config.items() if key not in ALLOWANCES}
    return {**environment, "config": kept} if "config" in environment else dict(environment)


def _read(folder: Path, attempts: int = 3) -> tuple[dict[str, Any], bytes]:
    """Description and tensors that belong together, also while a training run replaces the folder."""
    for attempt in range(attempts):
        description = read_description(folder / DESCRIPTION)
        try:
            data = read_regular(folder / TENSORS, MOST_BYTES, CheckpointError)
        except OSError as error:
            if attempt == attempts - 1:
                raise CheckpointError(f"{folder / TENSORS} cannot be read: {error.strerror}.") from error
            continue
        if hashlib.sha256(data).hexdigest() == description["sha256"]:
            return description, data
    raise CheckpointError(
        f"{folder / TENSORS} is damaged: its {len(data)} bytes are not those that {DESCRIPTION} was written "
        f"for (sha256 {hashlib.sha256(data).hexdigest()[:12]}, wanted {str(description['sha256'])[:12]}). "
        "Copy the folder again, or use an earlier one of checkpoints/."
    )


def _plain(value: Any) -> Any:
    """What JSON has no word for but configurations contain."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot be written to {DESCRIPTION}")
