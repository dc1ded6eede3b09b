"""Rows of one morphology on a device, stepped by MuJoCo Warp, in single precision."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import torch
from torch import Tensor

from ...errors import UserError
from ...snapshots import Kept
from ..arrays import NAMES
from ..bodies.morphology import Morphology
from ..controls import Actuated
from ..limb_reader import LimbReader
from ..simulation import frame_skip_of
from .capacities import Capacities
from .warp_models import WarpModels, warp_modules

_STATE = ("qpos", "qvel", "act", "ctrl", "qacc_warmstart", "time")


class WarpSimulation(Kept):
    """``n`` rows (Warp's worlds) of one morphology, or of several of one layout.

    Args:
        morphology: the body.
        models: every compiled body that a row can be given, of its layout; rows begin with the first.
        n: number of rows.
        frame_skip: substeps of a step; None: as many as take about 0.02 s.
        device: of all arrays; on a CPU Warp's kernels run there, one row after another.
        capacities: of contacts and constraints.

    Attributes:
        limbs: reads the rows.
        models: of the rows.

    Raises:
        UserError: Warp is not installed or cannot simulate this body.
    """

    def __init__(
        self,
        morphology: Morphology,
        models: Sequence[mujoco.MjModel],
        n: int,
        frame_skip: int | None,
        device: torch.device,
        capacities: Capacities,
    ) -> None:
        warp, self._mjw = warp_modules()
        self.morphology, self.n, self.device = morphology, n, device
        model = morphology.model
        self.frame_skip = frame_skip_of(model) if frame_skip is None else frame_skip
        self.dt = model.opt.timestep * self.frame_skip
        self.models, self.capacities = WarpModels(models, n, device, morphology.name), capacities
        with warp.ScopedDevice(str(device)):
            self._data = self._mjw.make_data(
                model, nworld=n, nconmax=capacities.contacts, njmax=capacities.constraints
            )
        arrays = {name: self._tensor(name) for name in NAMES}
        arrays["xmat"] = arrays["xmat"].flatten(2)  # (n, bodies, 9), the same memory
        self._state = {name: self._tensor(name) for name in _STATE}
        self._overflow = self._tensor("overflow")
        self.limbs, self.controls = LimbReader(morphology, arrays), Actuated(morphology, n)
        self._actuators = torch.tensor(self.controls.actuators, dtype=torch.int64, device=device)
        self._has_remote = any(slot.joint < 0 for limb in morphology.limbs for slot in limb.slots)
        self._home = torch.zeros(model.na, device=device)
        if morphology.home_activation is not None:
            self._home = torch.from_numpy(morphology.home_activation).to(device, torch.float32)

    @property
    def kept(self) -> tuple[str, ...]:  # type: ignore[override]
        """The state that is integrated; what each row's model is, is kept by who gave it."""
        return ("_state",)

    def _tensor(self, name: str) -> Tensor:
        """An array of the data, the same memory."""
        warp, _ = warp_modules()
        return warp.to_torch(getattr(self._data, name))

    def set_controls(self, controls: Tensor) -> None:
        """Physical controls (n, actuated) of the substeps that follow."""
        self._state["ctrl"][:, self._actuators] = controls

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
        """Put rows into a state, with controls of zero; `kinematics` then tells where their limbs are.

        Args:
            rows: (n,) bool.
            qpos: (n, nq), of which those rows are taken.
            qvel: (n, nv), the same.
        """
        state, chosen = self._state, rows[:, None]
        for name, value in (("qpos", qpos), ("qvel", qvel), ("act", self._home)):
            state[name].copy_(torch.where(chosen, value, state[name]))
        for name in ("ctrl", "qacc_warmstart"):
            state[name].masked_fill_(chosen, 0.0)
        state["time"].masked_fill_(rows, 0.0)

    def kinematics(self) -> None:
        """Compute what is read of the limbs from the present state of all rows."""
        mjw, model, data = self._mjw, self.models.model, self._data
        mjw.kinematics(model, data)
        mjw.com_pos(model, data)
        if self._has_remote:
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
            f"{self.morphology.name!r} has had more {what} in a step than there is room for, and some were "
            f"left out: {now} for each simulation. Raise warp.{what}, for example to {2 * now}"
        )
