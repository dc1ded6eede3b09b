"""The ``policy/`` folder: what a trained policy is shared as.

``policy.safetensors`` holds every parameter and buffer (the normaliser's too), ``policy.json`` all that is
needed to build the network and the environments it was trained in. Neither can carry code: the class is
chosen by name among the policies of this package and those that the user has imported himself, nothing is
unpickled, and no memory is taken before the shapes in the file are those that the description asks for.
"""

from __future__ import annotations

import hashlib
import json
import platform
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from torch import nn
from torch.overrides import TorchFunctionMode

from ...envs.errors import nearest, one_line
from ...envs.task_set import ALLOWANCES
from ...envs.tokens import CONTRACT_VERSION, TokenSpec
from ...envs.user_modules import imported_class, is_foreign
from .. import policies
from ..bundled import PREFIX
from ..device import resolve_device
from ..policies.base import Policy
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
from .untrusted import read_regular

if TYPE_CHECKING:
    from ..agent import Agent

__all__ = ["CheckpointError", "load_policy", "policy_folder_of", "read_policy_json", "save_policy"]

TARGET_PREFIX = "somite.agents.policies."
PACKAGES = ("somite", "torch", "mujoco", "gymnasium", "stable-baselines3")

MOST_BYTES = 256 * 2**20
"""Of ``policy.safetensors``: 64 million parameters."""

MOST_HEADER, MOST_TENSORS = 4 * 2**20, 10_000
"""Bytes of the part that names the tensors, and how many it may name."""

_KINDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

_Made = TypeVar("_Made")


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
        CheckpointError: The policy's class is not one that :func:`load_policy` could build.
    """
    network = describe_policy(policy)
    # Whatever it computes in (float32, bfloat16), it is written as what its class has, which is asked for.
    kinds = _shapes_only(lambda: described_policy(network, "the policy to save")).state_dict()
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
    """Loads what :func:`save_policy` wrote; runs no code from the files.

    Args:
        folder: A ``policy/`` folder, a run folder, whose ``policy/`` is then taken, or ``bundled/<name>``.
        device: Where the policy computes: ``cpu``, ``cuda``, ``cuda:1`` or ``auto``.

    Returns:
        An agent that acts on raw observations of one or many environments.

    Raises:
        CheckpointError: The folder is missing or damaged, made by a version that this one cannot read, or of
            a class of the user's own whose module is not imported.
    """
    from ..agent import Agent

    is_bundled = str(folder).startswith(PREFIX)
    found = policy_folder_of(str(folder)) if is_bundled else find_policy_folder(folder)
    description, data = _read(found)
    file = f"{folder}: {DESCRIPTION}"
    expected = _shapes_only(lambda: described_policy(description, file)).state_dict()
    try:
        _check_header(data, expected)
        tensors = _read_tensors(data)
    except _TensorError as error:
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
    target = f"{TARGET_PREFIX}{cls.__name__}" if is_exported else f"{cls.__module__}.{cls.__qualname__}"
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
        f"{file} asks for the policy class {target!r}; only policies of {TARGET_PREFIX[:-1]} are built: "
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


class _TensorError(ValueError):
    """A file of tensors that is damaged, or not of the network that it is said to be of."""


def _check_header(data: bytes, wanted: Mapping[str, torch.Tensor]) -> None:
    """Refuses a file whose tensors are not those of the network, by its header."""
    found = _header(data)
    problems = [f"{key} is missing" for key in wanted if key not in found]
    problems += [f"{key[:100]} is not part of the policy" for key in found if key not in wanted]
    for key, tensor in wanted.items():
        kind, shape = found.get(key, (_KINDS[tensor.dtype], tuple(tensor.shape)))
        if shape != tuple(tensor.shape):
            problems.append(f"{key} has shape {shape}, wanted {tuple(tensor.shape)}")
        elif kind != _KINDS[tensor.dtype]:
            problems.append(f"{key} has numbers of kind {str(kind)[:20]}, wanted {_KINDS[tensor.dtype]}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise _TensorError(f"does not fit the network: {'; '.join(problems[:3])}{more}")


def _header(data: bytes) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Name: kind of number and shape, as the file says."""
    if len(data) < 8:
        raise _TensorError(f"is damaged: it has {len(data)} bytes, which is no safetensors file")
    (size,) = struct.unpack("<Q", data[:8])
    if size > min(MOST_HEADER, len(data) - 8):
        raise _TensorError(
            f"is damaged: it says that its header has {size:,} bytes, in a file of {len(data):,}"
        )
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise _TensorError(f"is damaged: its header is not JSON ({error})") from error
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        raise _TensorError(f"is damaged: its header is no table of at most {MOST_TENSORS:,} tensors")
    header.pop("__metadata__", None)
    found = {}
    for name, told in header.items():
        shape = told.get("shape") if isinstance(told, dict) else None
        if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
            raise _TensorError(f"is damaged: {name[:100]!r} has no shape")
        found[name] = (told.get("dtype"), tuple(shape))
    return found


def _read_tensors(data: bytes) -> dict[str, torch.Tensor]:
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise _TensorError(f"is damaged: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise _TensorError(f"contains NaN or infinite numbers in {name}")
    return tensors


def _shapes_only(make: Callable[[], _Made]) -> _Made:
    """What a function makes, with modules whose tensors have shapes and no memory, whatever their size."""
    with torch.device("meta"), _NoInitialisation():
        return make()


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
            rows, columns = arguments[0].shape
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
