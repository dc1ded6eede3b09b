"""Rows of any compiled model on a device, stepped by MuJoCo Warp, in single precision."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import torch
from torch import Tensor

from ...errors import UserError
from ...in_place import clear, replace
from ...snapshots import Kept
from .capacities import Capacities
from .warp_models import WarpModels, warp_modules

_STATE = ("qpos", "qvel", "act", "ctrl", "qacc_warmstart", "time")


class WarpWorlds(Kept):
    """``n`` rows (Warp's worlds) of one model, or of several of one layout.

    Args:
        model: the compiled model.
        n: number of rows.
        frame_skip: substeps of a step.
        device: of all arrays; on a CPU Warp's kernels run there, one row after another.
        capacities: of contacts and constraints.
        name: of the model, for errors.
        models: every model that a row can be given, of the layout of ``model``; rows begin with the first.
            None: ``model`` is the only one.

    Attributes:
        models: of the rows.
        dt: s, of a step.

    Raises:
        UserError: Warp is not installed or cannot simulate this model.
    """

    _reads_transmissions = False
    """Whether `kinematics` tells of tendons and actuators, too."""

    def __init__(
        self,
        model: mujoco.MjModel,
        n: int,
        frame_skip: int,
        device: torch.device,
        capacities: Capacities,
        name: str,
        models: Sequence[mujoco.MjModel] | None = None,
    ) -> None:
        warp, self._mjw = warp_modules()
        self.n, self.device, self.name = n, device, name
        self.frame_skip, self.dt = frame_skip, model.opt.timestep * frame_skip
        self.models, self.capacities = WarpModels(models or [model], n, device, name), capacities
        with warp.ScopedDevice(str(device)):
            self._data = self._mjw.make_data(
                model, nworld=n, nconmax=capacities.contacts, njmax=capacities.constraints
            )
        self._state = {name: self.array(name) for name in _STATE}
        self._overflow = self.array("overflow")
        self._home = torch.zeros(model.na, device=device)

    @property
    def kept(self) -> tuple[str, ...]:  # type: ignore[override]
        """The state that is integrated; what each row's model is, is kept by who gave it."""
        return ("_state",)

    def array(self, name: str) -> Tensor:
        """(n, ...) an array of the data by MuJoCo's name, the same memory."""
        warp, _ = warp_modules()
        return warp.to_torch(getattr(self._data, name))

    def set_controls(self, controls: Tensor) -> None:
        """Physical controls (n, nu) of the substeps that follow."""
        self._state["ctrl"].copy_(controls)

    def substeps(self) -> None:
        """Advance all rows by ``frame_skip`` substeps. Launches kernels and waits for nothing."""
        for _ in range(self.frame_skip):
            self._mjw.step(self.models.model, self._data)

    def diverged(self) -> Tensor:
        """(n,) bool: rows whose state is no number, or beyond what MuJoCo allows."""
        positions, speeds = self._state["qpos"], self._state["qvel"]
        # No comparison is true of what is no number.
        fine = (positions.abs() < mujoco.mjMAXVAL).all(1) & (speeds.abs() < mujoco.mjMAXVAL).all(1)
        return ~fine

    def reset(self, rows: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Put rows into a state, with controls of zero; `kinematics` then tells where their bodies are.

        Args:
            rows: (n,) bool.
            qpos: (n, nq), of which those rows are taken; or (nq,) for all of them.
            qvel: (n, nv) or (nv,), the same.
        """
        state = self._state
        for name, value in (("qpos", qpos), ("qvel", qvel), ("act", self._home)):
            replace(state[name], rows, value)
        for name in ("ctrl", "qacc_warmstart", "time"):
            clear(state[name], rows)

    def kinematics(self) -> None:
        """Compute what is read of the bodies from the present state of all rows."""
        mjw, model, data = self._mjw, self.models.model, self._data
        mjw.kinematics(model, data)
        mjw.com_pos(model, data)
        if self._reads_transmissions:
            mjw.tendon(model, data)
            mjw.transmission(model, data)
            mjw.fwd_velocity(model, data)
        else:
            mjw.com_vel(model, data)

    def check(self) -> None:
        """Look whether a capacity was too small in any step so far, which waits for the device.

        Raises:
            UserError: it was.
        """
        found = 0
        for bits in self._overflow.unique().tolist():
            found |= bits
        kinds = self._mjw.OverflowType
        few_constraints = found & (kinds.NEFC | kinds.NJMAX_NNZ)
        few_contacts = found & (kinds.BROADPHASE | kinds.NARROWPHASE | kinds.CCD | kinds.HFIELD)
        if few_constraints:
            raise UserError(self._too_few("constraints", self.capacities.constraints))
        if few_contacts:
            raise UserError(self._too_few("contacts", self.capacities.contacts))

    def _too_few(self, what: str, now: int) -> str:
        return (
            f"{self.name!r} has had more {what} in a step than there is room for, and some were "
            f"left out: {now} for each simulation. Raise warp.{what}, for example to {2 * now}"
        )
