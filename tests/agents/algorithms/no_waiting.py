"""Notices what would make the host wait for a device, on a machine that has none."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

OPERATIONS = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::item",
    "aten::equal",
)
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
READINGS = ("cpu", "numpy", "item", "tolist", "nonzero", "__bool__", "__int__", "__float__", "__index__")
UPLOADS = ("tensor", "as_tensor", "asarray")


class Waits(AssertionError):
    """An operation that needs a number of the device, or copies from or to the host."""


class Operations(TorchDispatchMode):
    """Refuses what reads within torch: numbers, and shapes that depend on them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket._qualified_op_name
        if name in OPERATIONS:
            raise Waits(name)
        if name in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1]):
            raise Waits(f"{name} by a mask")
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Refuses, or counts, what reads in Python or makes tensors of the host's numbers."""

    def __init__(self, refuses: bool = True) -> None:
        super().__init__()
        self.refuses, self.count = refuses, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        sends = name in UPLOADS and not isinstance(args[0], torch.Tensor)
        if name in READINGS or sends:
            self.count += 1
            if self.refuses:
                raise Waits(name)
        return func(*args, **(kwargs or {}))
