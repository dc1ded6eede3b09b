"""What is read from the simulators after a step, for all rows of an environment in padded arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from ..snapshots import Kept
from .block import Block
from .observation import Goal, LimbState, make_layout, observe, select_rows
from .task import LocomotionTask
from .varied.world import Ground


class Readings(Kept):
    """Arrays of B rows; what no reward and no observation needs is not read.

    Args:
        blocks: of the rows, in order.
        task: says what is needed.
        n_limbs, n_joints: N limbs and J joint slots that rows are padded to.
        uneven: the ground's height differs from limb to limb.

    Attributes:
        layout: what never changes within an episode.
        state: of the limbs.
        root: (B, 3) m, where the roots are. progress: (B, 2) m, what the forward velocity is measured by.
        cos_tilt: (B,). largest: (B,), the largest position or velocity. raised: (B,) m, height of the ground
            below the root, above level.
    """

    kept = ("_arrays", "root", "progress", "cos_tilt", "largest", "raised")

    def __init__(
        self, blocks: Sequence[Block], task: LocomotionTask, n_limbs: int, n_joints: int, uneven: bool
    ) -> None:
        self._blocks, self._task = blocks, task
        rows = [(body, block.slots) for block in blocks for body in block.bodies]
        b = len(rows)
        self.layout = make_layout(rows, n_limbs, n_joints)
        if uneven:
            ground = self.layout.ground.expand(-1, n_limbs).clone()
            self.layout = dataclasses.replace(self.layout, ground=ground)
        self.state = LimbState.empty(b, n_limbs, n_joints)
        self._arrays = {name: value.numpy() for name, value in vars(self.state).items()}  # shared memory
        self.root, self.progress = np.zeros((b, 3)), np.zeros((b, 2))
        self.cos_tilt, self.largest, self.raised = np.ones(b), np.zeros(b), np.zeros(b)
        self._every = np.arange(b)

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
            index = self._every[own]
            self.progress[own] = self._arrays["position"][index, self.layout.root_slot.numpy()[own], :2]

    def _read(self, block: Block, places: slice | np.ndarray, own: slice | np.ndarray) -> None:
        """Rows ``own`` of the environment, which are ``places`` of the block."""
        block.write(self._arrays, places)
        sim, task = block.sim, self._task
        if block.conditions and block.conditions.ground:
            self._read_ground(block, block.conditions.ground)
        self.root[own] = sim.root_position()[places]
        if task.max_tilt is not None:
            self.cos_tilt[own] = sim.root_cos_tilt()[places]
        if task.max_state is not None:
            self.largest[own] = sim.largest_state()[places]
        if task.progress == "center":
            self.progress[own] = sim.root_center()[places, :2]

    def _read_ground(self, block: Block, ground: Ground) -> None:
        """Height of the ground below every limb, and below the root."""
        own, level = block.rows, block.sim.morphology.ground
        heights = ground.below(self._arrays["position"][own])
        self.layout.ground[own] = torch.from_numpy(heights + level)
        self.raised[own] = heights[:, block.slots[0]]

    def observe(self, goal: Goal, rows: np.ndarray | None = None) -> dict[str, torch.Tensor]:
        """The token sets of ``rows`` (k,), None: of all, whose goals are rows of ``goal``."""
        if rows is None:
            return observe(self.state, self.layout, goal)
        index = torch.from_numpy(rows)
        return observe(self.state.rows(index), select_rows(self.layout, index), goal.rows(index))

    def points(self, slots: np.ndarray, centers: np.ndarray) -> np.ndarray:
        """(B, 3) m, world: points ``centers`` (B, 3) in the frames of the limbs in ``slots`` (B,)."""
        rotation = self._arrays["rotation"][self._every, slots].reshape(-1, 3, 3)
        position = self._arrays["position"][self._every, slots]
        return position + (rotation @ centers[..., None])[..., 0]
