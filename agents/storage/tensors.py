"""``policy.safetensors``: compared with what the description asks for before anything is made of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.overrides import TorchFunctionMode

MOST_BYTES = 256 * 2**20
"""Of the file: 64 million parameters."""

MOST_HEADER, MOST_TENSORS = 4 * 2**20, 10_000
"""Bytes of the part that names the tensors, and how many it may name."""

_NAMES = {
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

Tensors = dict[str, torch.Tensor]
_Made = TypeVar("_Made")


class TensorError(ValueError):
    """A file of tensors that is damaged, or not of the network that it is said to be of."""


def read_tensors(data: bytes, wanted: Mapping[str, torch.Tensor]) -> Tensors:
    """The tensors of a file.

    Args:
        data: its content.
        wanted: tensors of the same names, shapes and kinds of number; what they hold is not read.

    Raises:
        TensorError: the file is damaged, has other tensors, or numbers that are none.
    """
    _compare(_header(data), wanted)
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise TensorError(f"is damaged: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TensorError(f"has numbers that are none (NaN or infinite) in {name}")
    return tensors


def shapes_only(make: Callable[[], _Made]) -> _Made:
    """What a function makes, with modules whose tensors have shapes and no memory, whatever their size."""
    with torch.device("meta"), _NoInitialisation():
        return make()


def unset(make: Callable[[], _Made]) -> _Made:
    """What a function makes, with modules whose parameters are not drawn but left to be loaded."""
    with _NoInitialisation():
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


def _header(data: bytes) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Name: kind of number and shape, as the file says."""
    if len(data) < 8:
        raise TensorError(f"is damaged: it has {len(data)} bytes, which is no safetensors file")
    (size,) = struct.unpack("<Q", data[:8])
    if size > min(MOST_HEADER, len(data) - 8):
        raise TensorError(
            f"is damaged: it says that its header has {size:,} bytes, in a file of {len(data):,}"
        )
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise TensorError(f"is damaged: its header is not JSON ({error})") from error
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        raise TensorError(f"is damaged: its header is no table of at most {MOST_TENSORS:,} tensors")
    header.pop("__metadata__", None)
    found = {}
    for name, told in header.items():
        shape = told.get("shape") if isinstance(told, dict) else None
        if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
            raise TensorError(f"is damaged: {name[:100]!r} has no shape")
        found[name] = (told.get("dtype"), tuple(shape))
    return found


def _compare(found: Mapping[str, tuple[Any, tuple[int, ...]]], wanted: Mapping[str, torch.Tensor]) -> None:
    problems = [f"{key} is missing" for key in wanted if key not in found]
    problems += [f"{key[:100]} is not part of the policy" for key in found if key not in wanted]
    for key, tensor in wanted.items():
        kind, shape = found.get(key, (_NAMES[tensor.dtype], tuple(tensor.shape)))
        if shape != tuple(tensor.shape):
            problems.append(f"{key} has shape {shape}, wanted {tuple(tensor.shape)}")
        elif kind != _NAMES[tensor.dtype]:
            problems.append(f"{key} has numbers of kind {str(kind)[:20]}, wanted {_NAMES[tensor.dtype]}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise TensorError(f"does not fit the network: {'; '.join(problems[:3])}{more}")
