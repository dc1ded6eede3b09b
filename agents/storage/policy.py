"""The ``policy/`` folder: what a trained policy is shared as.

``policy.safetensors`` holds every parameter and buffer (the normaliser's too), ``policy.json`` all that is
needed to build the network and the environments it was trained in. Neither can carry code: the class is
chosen by name among the policies of this package and those that the user has imported himself, nothing is
unpickled, and the network is built without memory first, to be compared with what the file holds.
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
from safetensors import SafetensorError
from torch import nn
from torch.overrides import TorchFunctionMode

from ...envs.errors import UserError, nearest, one_line
from ...envs.files import read_regular
from ...envs.task_set import ALLOWANCES
from ...envs.tokens import CONTRACT_VERSION, TokenSpec
from ...envs.user_modules import imported_class, is_foreign
from .. import policies
from ..device import resolve_device
from ..policies.base import Policy
from .atomic import replace_folder
from .paths import found_from_run, run_of
from .policy_json import (
    DESCRIPTION,
    FORMAT_VERSION,
    TENSORS,
    CheckpointError,
    installed_version,
    policy_folder_of,
    read_description,
)

if TYPE_CHECKING:
    from ..agent import Agent

__all__ = ["CheckpointError", "load_policy", "save_policy"]

PACKAGES = ("somite", "torch", "mujoco", "gymnasium", "stable-baselines3")

MOST_BYTES, MOST_HEADER = 256 * 2**20, 4 * 2**20
"""Of ``policy.safetensors``, which is 64 million parameters, and of its part that names the tensors."""


def save_policy(
    folder: str | Path, policy: nn.Module, *, environment: Mapping[str, Any], training: Mapping[str, Any]
) -> None:
    """Writes a policy so that the folder holds the old or the new one at every moment, never half.

    Args:
        folder: Where to; replaced if there.
        policy: A policy of ``somite.agents.policies``, or one of the user's own modules.
        environment: The whole configuration of its environments, with training bodies and split.
        training: How it was trained: the algorithm's configuration, steps so far, seed.

    Raises:
        CheckpointError: The policy's class is not one that `load_policy` could build.
    """
    network = describe_policy(policy)
    # Whatever it computes in (float32, bfloat16), it is written as what its class has, which is asked for.
    kinds = _without_memory(network, "the policy to save")
    # safetensors takes neither views that are not contiguous nor tensors that share memory.
    tensors = {
        key: value.detach().cpu().to(kinds[key].dtype).contiguous().clone()
        for key, value in policy.state_dict().items()
    }
    data = safetensors.torch.save(tensors)
    versions = {name: installed_version(name) for name in PACKAGES}
    description = {
        "format": FORMAT_VERSION,
        "contract": CONTRACT_VERSION,
        **network,
        "environment": environment,
        "training": training,
        "versions": versions | {"python": platform.python_version()},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(description, indent=2, default=_plain)
    with replace_folder(folder) as writing:
        (writing / TENSORS).write_bytes(data)
        (writing / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def load_policy(folder: str | Path, device: str | torch.device = "cpu") -> Agent:
    """Loads what `save_policy` wrote; runs no code from the files.

    Args:
        folder: A ``policy/`` folder, a run folder, whose ``policy/`` is then taken, or ``bundled/<name>``.
        device: Where the policy computes: ``cpu``, ``cuda``, ``cuda:1`` or ``auto``.

    Returns:
        An agent that acts on raw observations of one or many environments.

    Raises:
        CheckpointError: The folder is missing, with the nearest names, or damaged, made by a version that
            this one cannot read, or of a class of the user's own whose module is not imported.
    """
    from ..agent import Agent

    try:
        found = policy_folder_of(folder)
    except UserError as error:
        raise CheckpointError(str(error)) from error
    description, data = _read(found)
    file = f"{folder}: {DESCRIPTION}"
    wanted = _without_memory(description, file)
    try:
        tensors = _read_tensors(data, wanted)
    except (SafetensorError, RuntimeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        said = one_line(str(error))[:300]
        raise CheckpointError(f"{folder}: {TENSORS} is damaged: {type(error).__name__}: {said}.") from error
    except _Misfit as error:
        raise CheckpointError(f"{folder}: {TENSORS} {error}.") from error
    with _NoInitialisation():
        policy = described_policy(description, file)
    policy.load_state_dict(tensors)
    policy.to(resolve_device(device)).eval()
    # What its maker allowed (files, modules) does not count here: the user says that.
    environment = dict(description["environment"])
    if "config" in environment:
        config = {key: value for key, value in environment["config"].items() if key not in ALLOWANCES}
        environment["config"] = found_from_run({"env": config}, run_of(found))["env"]
    return Agent(policy, environment=environment, description=description)


def describe_policy(policy: nn.Module) -> dict[str, Any]:
    """What `described_policy` builds a policy of: its class, its arguments and what its tokens mean.

    Raises:
        CheckpointError: It could not build this class.
    """
    cls = type(policy)
    is_exported = getattr(policies, cls.__name__, None) is cls
    target = f"{policies.__name__ if is_exported else cls.__module__}.{cls.__qualname__}"
    if _named(target, "the policy to save") is not cls:
        raise CheckpointError(f"{cls} is not what {target} names.")
    return {"policy": {"_target_": target, **policy.architecture()}, "spec": policy.spec.to_dict()}


def described_policy(description: Mapping[str, Any], file: str | Path) -> Policy:
    """The untrained policy that the content of a ``policy.json`` describes, with random parameters.

    The random state of the process is left as it was. ``file`` is where it was read, for messages.

    Raises:
        CheckpointError: The class or its arguments are not valid.
    """
    arguments = dict(description["policy"])
    cls = _named(arguments.pop("_target_", None), file)
    try:
        spec = TokenSpec.from_dict(description["spec"])
        with torch.random.fork_rng(devices=[]):
            return cls(spec=spec, **arguments)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{file}: {cls.__name__} cannot be built from this description: {type(error).__name__}: "
            f"{one_line(str(error))[:300]}"
        ) from error


def _named(target: Any, file: str | Path) -> type[Policy]:
    """The class that a ``_target_`` names: a policy of ours, or of a module that the user has imported.

    A module is imported for it if it is one of ours, so that a stranger's file runs no code.
    """
    target = target if isinstance(target, str) else repr(target)
    found = imported_class(target, Policy, policies.__name__)
    if found is not None:
        return found
    if is_foreign(target):
        raise CheckpointError(
            f"{file} asks for the policy class {target!r}, which is not of this package: if you trust it, "
            f"say agent._target_={target} on the command line, or import its module first"
        )
    exported = [name for name, value in vars(policies).items() if isinstance(value, type)]
    raise CheckpointError(
        f"{file} asks for the policy class {target!r}; only policies of {policies.__name__} are built: "
        f"{nearest(target.rpartition('.')[2], exported)}"
    )


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
        digest = hashlib.sha256(data).hexdigest()
        if digest == description["sha256"]:
            return description, data
    raise CheckpointError(
        f"{folder / TENSORS} is damaged: its {len(data)} bytes are not those that {DESCRIPTION} was written "
        f"for (sha256 {digest[:12]}, wanted {description['sha256'][:12]}). "
        "Copy the folder again, or use an earlier one of checkpoints/."
    )


class _Misfit(Exception):
    """Tensors that are damaged, or not of the network that they are said to be of."""


def _read_tensors(data: bytes, wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a file, which takes its own size of memory, if they are those of the network."""
    header = int.from_bytes(data[:8], "little")
    if header > min(MOST_HEADER, len(data) - 8):
        raise _Misfit(f"is damaged: it says that its header has {header:,} bytes, of {len(data):,} in all")
    tensors = safetensors.torch.load(data)
    problems = [f"{key} is missing" for key in wanted if key not in tensors]
    problems += [f"{key[:100]} is not part of the policy" for key in tensors if key not in wanted]
    for key in (key for key in wanted if key in tensors):
        both = tensors[key], wanted[key]
        shapes = [tuple(tensor.shape) for tensor in both]
        dtypes = [str(tensor.dtype).removeprefix("torch.") for tensor in both]
        for what, (found, meant) in (("shape", shapes), ("dtype", dtypes)):
            if found != meant:
                problems.append(f"{key} has {what} {found}, wanted {meant}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise _Misfit(f"does not fit the network: {'; '.join(problems[:3])}{more}")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise _Misfit(f"contains NaN or infinite numbers in {name}")
    return tensors


def _without_memory(description: Mapping[str, Any], file: str | Path) -> dict[str, torch.Tensor]:
    """Shapes and dtypes of the policy's tensors, whatever its size."""
    with torch.device("meta"), _NoInitialisation():
        return described_policy(description, file).state_dict()


class _NoInitialisation(TorchFunctionMode):
    """Leaves parameters as they are: to draw orthogonal ones of a large network takes minutes."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return arguments[0] if arguments else keywords["tensor"]
        if function is torch.linalg.qr:
            # What nn.init.orthogonal_ asks for: factors of the shapes that it expects.
            columns = arguments[0].shape[1]
            return arguments[0][:, :columns], arguments[0][:columns]
        return function(*arguments, **keywords)


def _plain(value: Any) -> Any:
    """What JSON has no word for but configurations contain."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot be written to {DESCRIPTION}")
