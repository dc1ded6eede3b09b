"""Compiled bodies as models of MuJoCo Warp, with fields of their own for every world where bodies differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...in_place import replace
from ..varied.row_models import differing_arrays

GRAVITY = "gravity"
_LOOKS = ("mesh_", "bvh_", "mat_", "tex_", "light_", "cam_", "geom_rgba")


def warp_modules() -> tuple[Any, Any]:
    """The modules ``warp`` and ``mujoco_warp``, which take seconds to import.

    Raises:
        UserError: they are not installed.
    """
    try:
        import warp

        warp.config.log_level = warp.LOG_WARNING  # it would tell of every kernel that it loads
        import mujoco_warp
    except ModuleNotFoundError as error:
        raise UserError(
            f"simulation=warp needs MuJoCo Warp, and {error.name} is not installed: pip install 'somite[gpu]'"
        ) from error
    return warp, mujoco_warp


class WarpModels:
    """The model of n worlds.

    Args:
        models: every compiled body that a world can be given, of one layout. The worlds begin with the first.
        n: worlds.
        device: of the arrays.
        name: of the body, for errors.

    Attributes:
        model: of ``mujoco_warp``.
        fields: what differs between ``models``: (n, ...) by name, the memory of ``model``.
        values: the same of each of ``models``, (len(models), ...).

    Raises:
        UserError: Warp cannot simulate such a body, or such bodies beside each other.
    """

    def __init__(self, models: Sequence[mujoco.MjModel], n: int, device: torch.device, name: str) -> None:
        warp, mujoco_warp = warp_modules()
        first, self._name = models[0], name
        each_world = _fields_of_each_world(mujoco_warp)
        batched = [field for field in differing_arrays(models) if field in each_world]
        with warp.ScopedDevice(str(device)):
            try:
                self.model = mujoco_warp.put_model(first, batch_sizes=dict.fromkeys(batched, n))
            except (NotImplementedError, ValueError) as error:
                raise UserError(f"MuJoCo Warp cannot simulate {name!r}: {error}") from error
            self._check_what_is_shared(mujoco_warp, models, set(batched))
        # Kernels print when a capacity is too small; here that is looked at, see `WarpWorlds.check`.
        self.model.opt.warn_overflow = 0
        self.fields: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}
        for field in batched:
            own = warp.to_torch(getattr(self.model, field))
            self._keep(field, own, [getattr(model, field) for model in models])
        gravities = [model.opt.gravity for model in models]
        if any(not np.array_equal(gravity, gravities[0]) for gravity in gravities):
            wide = torch.zeros(n, 3, device=device)
            self.model.opt.gravity = warp.from_torch(wide, dtype=warp.vec3)
            self._keep(GRAVITY, wide, gravities)

    def _keep(self, field: str, own: Tensor, values: Sequence[np.ndarray]) -> None:
        stacked = torch.from_numpy(np.array(values)).to(own.device, own.dtype)
        self.values[field] = stacked.reshape(len(values), *own.shape[1:])
        own.copy_(self.values[field][:1].expand_as(own))
        self.fields[field] = own

    def _check_what_is_shared(
        self, mujoco_warp: Any, models: Sequence[mujoco.MjModel], batched: set[str]
    ) -> None:
        """What Warp holds once for all worlds must be equal in all bodies."""
        for other in models[1:2]:
            found = _shared_values(mujoco_warp.put_model(other), batched)
            for field, value in _shared_values(self.model, batched).items():
                if not np.array_equal(value, found[field], equal_nan=value.dtype.kind == "f"):
                    raise UserError(
                        f"MuJoCo Warp cannot simulate variants of {self._name!r} beside each other: they "
                        f"differ in {field}, which it has once for all. Use simulation=cpu"
                    )

    def give(self, worlds: Tensor, numbers: Tensor) -> None:
        """Give worlds other models.

        Args:
            worlds: (n,) bool.
            numbers: (n,) which of the models.
        """
        for field, own in self.fields.items():
            replace(own, worlds, self.values[field][numbers])


def _fields_of_each_world(mujoco_warp: Any) -> set[str]:
    """Names of arrays that Warp can hold for every world."""
    return {
        field.name
        for field in dataclasses.fields(mujoco_warp.Model)
        if getattr(field.type, "shape", None) and field.type.shape[0] == "*"
    }


def _shared_values(model: Any, batched: set[str]) -> dict[str, np.ndarray]:
    """Numbers of a model of Warp that all its worlds share, but for what no dynamics depend on."""
    found = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if field.name in batched or field.name.startswith(_LOOKS):
            continue
        if isinstance(value, (bool, int, float)):
            found[field.name] = np.asarray(value)
        elif hasattr(value, "numpy") and hasattr(value, "shape"):
            found[field.name] = value.numpy()
    return {name: value for name, value in found.items() if value.dtype.names is None}
