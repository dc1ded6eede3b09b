"""What is read from the simulators after a step, for all rows of an environment in padded arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..snapshots import Kept
from .arrays import Array
from .bodies.morphology import Morphology
from .limb_reader import LimbReader
from .observation import Goal, LimbState, make_layout, observe, select_rows
from .places import Places
from .task import LocomotionTask
from .varied.world import Ground


class Simulated(Protocol):
    """What simulates some rows."""

    limbs: LimbReader


class Rows(Protocol):
    """Rows that are simulated together: what simulates them, their bodies and where their limbs go."""

    sim: Simulated
    rows: slice
    places: Places
    bodies: list[Morphology]


class Readings(Kept):
    """Tensors of B rows; what no reward and no observation needs is not read.

    Args:
        blocks: of the rows, in order.
        task: says what is needed.
        n_limbs, n_joints: N limbs and J joint slots that rows are padded to.
        uneven: the ground's height differs from limb to limb.
        device: of the simulators' tensors; None: they have NumPy's arrays.

    Attributes:
        layout: what never changes within an episode.
        state: of the limbs.
        root: (B, 3) m, where the roots are. progress: (B, 2) m, what the forward velocity is measured by.
        cos_tilt: (B,). largest: (B,), the largest position or velocity. raised: (B,) m, height of the ground
            below the root, above level.
    """

    kept = ("state", "root", "progress", "cos_tilt", "largest", "raised")

    def __init__(
        self,
        blocks: Sequence[Rows],
        task: LocomotionTask,
        n_limbs: int,
        n_joints: int,
        uneven: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self._blocks, self._task = blocks, task
        rows = [(body, block.places.slots) for block in blocks for body in block.bodies]
        b = len(rows)
        # What is simulated in double precision is read in it.
        kind = {"dtype": torch.float64 if device is None else torch.float32, "device": device or "cpu"}
        self.layout = make_layout(rows, n_limbs, n_joints).to(**kind)
        if uneven:
            ground = self.layout.ground.expand(-1, n_limbs).clone()
            self.layout = dataclasses.replace(self.layout, ground=ground)
        self.state = LimbState.empty(b, n_limbs, n_joints, **kind)
        self.root, self.progress = torch.zeros(b, 3, **kind), torch.zeros(b, 2, **kind)
        self.cos_tilt, self.largest = torch.ones(b, **kind), torch.zeros(b, **kind)
        self.raised = torch.zeros(b, **kind)
        self._every = torch.arange(b, device=kind["device"])
        # What simulators are copied to: as tensors, or as NumPy's arrays of the same memory, which is faster.
        names = ("root", "progress", "cos_tilt", "largest", "raised")
        written = vars(self.state) | {name: getattr(self, name) for name in names}
        self._written: dict[str, Array] = (
            {name: tensor.numpy() for name, tensor in written.items()} if device is None else written
        )

    def read(self, rows: np.ndarray | None = None) -> None:
        """Copy what the simulators hold of ``rows`` (k,), ascending; None: of all."""
        for block in self._blocks:
            if rows is None:
                self._read(block, slice(None), block.rows)
                continue
            first, last = np.searchsorted(rows, [block.rows.start, block.rows.stop])
            if first < last:
                own = rows[first:last]
                self._read(block, own - block.rows.start, own)
        own = slice(None) if rows is None else rows
        if self._task.progress == "position":
            self.progress[own] = self.root[own, :2]
        elif self._task.progress == "body":
            every = self._every[own]
            self.progress[own] = self.state.position[every, self.layout.root_slot[own], :2]

    def _read(self, block: Rows, places: slice | np.ndarray, own: slice | np.ndarray) -> None:
        """Rows ``own`` of the environment, which are ``places`` of the block."""
        written, limbs, task = self._written, block.sim.limbs, self._task
        block.places.write(limbs, written, places)
        conditions = getattr(block, "conditions", None)
        if conditions and conditions.ground:
            self._read_ground(block, conditions.ground)
        written["root"][own] = limbs.root_position()[places]
        if task.max_tilt is not None:
            written["cos_tilt"][own] = limbs.root_cos_tilt()[places]
        if task.max_state is not None:
            written["largest"][own] = limbs.largest_state()[places]
        if task.progress == "center":
            written["progress"][own] = limbs.root_center()[places, :2]

    def _read_ground(self, block: Rows, ground: Ground) -> None:
        """Height of the ground below every limb, and below the root."""
        own, level = block.rows, block.bodies[0].ground
        heights = ground.below(self._written["position"][own])
        self.layout.ground[own] = torch.from_numpy(heights + level)
        self.raised[own] = torch.from_numpy(heights[:, block.places.slots[0]])

    def observe(self, goal: Goal, rows: np.ndarray | None = None) -> dict[str, Tensor]:
        """The token sets of ``rows`` (k,), None: of all, whose goals are rows of ``goal``."""
        if rows is None:
            return observe(self.state, self.layout, goal)
        index = torch.from_numpy(rows)
        return observe(self.state.rows(index), select_rows(self.layout, index), goal.rows(index))

    def points(self, slots: Tensor, centers: Tensor) -> Tensor:
        """(B, 3) m, world: points ``centers`` (B, 3) in the frames of the limbs in ``slots`` (B,)."""
        rotation = self.state.rotation[self._every, slots].view(-1, 3, 3)
        position = self.state.position[self._every, slots]
        return position + (rotation @ centers[..., None])[..., 0]
