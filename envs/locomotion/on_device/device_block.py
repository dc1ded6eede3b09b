"""Rows of a device that are simulated together, and the variants that their episodes are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...snapshots import Kept
from ..bodies.morphology import Morphology
from ..controls import Actuated
from ..judge import Judge
from ..limb_reader import own_coordinates
from ..observation import LimbLayout
from ..places import Places
from .capacities import Capacities, capacities
from .prepared import VARIED, Prepared
from .warp_simulation import WarpSimulation

_CONTROLS = Actuated.kept


class DeviceBlock(Kept):
    """Rows of one body, or of several of one layout.

    Args:
        bodies: the body of every row.
        variants: what the episodes of every row are drawn from.
        rows: of the environment.
        frame_skip: substeps of a step; None: the body's own.
        aligned: limbs are placed as in the full body.
        device: of all tensors.
        room: contacts and constraints of a simulation; None each: as many as the body needs.

    Attributes:
        sim: the simulation. places: where limbs stand in the environment's arrays.
    """

    kept = ("sim", "_number")

    def __init__(
        self,
        bodies: Sequence[Morphology],
        variants: Sequence[Prepared],
        rows: slice,
        frame_skip: int | None,
        aligned: bool,
        device: torch.device,
        room: tuple[int | None, int | None],
    ) -> None:
        self.bodies, self.rows, n = list(bodies), rows, len(bodies)
        body = bodies[0]
        pools = list({id(pool): pool for pool in variants}.values())
        firsts = np.cumsum([0, *(len(pool.models) for pool in pools)])
        index = {id(pool): number for number, pool in enumerate(pools)}
        of_row = [index[id(pool)] for pool in variants]
        self._pools = pools
        models = [model for pool in pools for model in pool.models]
        needed = [capacities(pool.models[0], *room) for pool in pools]
        largest = Capacities(max(c.contacts for c in needed), max(c.constraints for c in needed))
        self.sim = WarpSimulation(body, models, n, frame_skip, device, largest)
        self.places = Places(body, rows, self.sim.controls.slots, aligned, device)

        def tensor(values: Any, kind: torch.dtype = torch.float32) -> Tensor:
            return torch.from_numpy(np.asarray(values)).to(device, kind)

        # Which of all models a row has now; the first of those it may have, and how many there are.
        self._first = tensor(firsts[of_row], torch.int64)
        self._count = tensor([len(pool.models) for pool in pools], torch.int64)[tensor(of_row, torch.int64)]
        self._number = self._first.clone()
        self._all_starts = tensor(np.concatenate([pool.starts for pool in pools]))
        controls = [pool.controls() for pool in pools]
        self._all_controls = {
            name: tensor(np.concatenate([getattr(own, name) for own in controls])) for name in _CONTROLS
        }
        self._varies = any(len(pool.models) > 1 for pool in pools)
        own_positions, own_speeds = own_coordinates(body.model, body.limbs)
        self._own_positions, self._own_speeds = tensor(own_positions), tensor(own_speeds)
        self._variants: dict[str, Tensor] = {}
        self._take_numbers()

    def adopt(self, layout: LimbLayout, judge: Judge) -> None:
        """Make the models, descriptors and limits of all rows those of their numbers.

        Args:
            layout: of the environment.
            judge: the same.
        """
        rows = range(self.rows.start, self.rows.stop)
        if not self._varies:
            for row, body in zip(rows, self.bodies, strict=True):
                judge.adopt(row, body, self.places.slots)
        elif not self._variants:
            self._describe(layout, judge)
        every = torch.ones(len(self.bodies), dtype=torch.bool, device=self._number.device)
        self._adopt(every, layout, judge)

    def _describe(self, layout: LimbLayout, judge: Judge) -> None:
        """Descriptors and limits of all variants, in the environment's slots."""
        device, slots = layout.mask.device, torch.tensor(self.places.slots, device=layout.mask.device)
        count = sum(len(pool.models) for pool in self._pools)
        for name in VARIED:
            own = getattr(layout, name)
            padding = torch.inf if name == "half_range" else 0.0
            wide = torch.full((count, *own.shape[1:]), padding, dtype=own.dtype, device=device)
            packed = torch.cat([getattr(pool.layout, name) for pool in self._pools]).to(device, own.dtype)
            if own.ndim > 2 and name != "limb_descriptors":
                wide[:, slots, : packed.shape[2]] = packed
            else:
                wide[:, slots] = packed
            self._variants[name] = wide
        bodies = [body for pool in self._pools for body in pool.bodies]
        limits = [judge.limits_of(body) for body in bodies]
        for position, name in enumerate(("height_limits", "tip_centers")):
            values = np.array([limit[position] for limit in limits])
            self._variants[name] = torch.from_numpy(values).to(device, layout.ground.dtype)
        for row, body in zip(range(self.rows.start, self.rows.stop), self.bodies, strict=True):
            judge.adopt(row, body, self.places.slots)  # the slot of the tip, which does not vary

    def _take_numbers(self) -> None:
        number = self._number
        self._starts = self._all_starts[number]
        self._center, self._half, self._low, self._high = (self._all_controls[n][number] for n in _CONTROLS)

    def vary(self, rows: Tensor, generator: torch.Generator, layout: LimbLayout, judge: Judge) -> None:
        """Draw the variants of new episodes.

        Args:
            rows: (n,) bool, of this block.
            generator: of the device.
            layout: of the environment, which is told.
            judge: the same.
        """
        if not self._varies:
            return
        place = torch.rand(len(rows), generator=generator, device=rows.device)
        drawn = self._first + (place * self._count).long().clamp_max(self._count - 1)
        self._number.copy_(torch.where(rows, drawn, self._number))
        self._adopt(rows, layout, judge)

    def _adopt(self, rows: Tensor, layout: LimbLayout, judge: Judge) -> None:
        number = self._number
        self.sim.models.give(rows, number)
        self._take_numbers()
        for name, values in self._variants.items():
            own = getattr(judge, name) if hasattr(judge, name) else getattr(layout, name)
            own[self.rows] = values[number]

    def act(self, actions: Tensor) -> Tensor:
        """Set the controls of nominal actions (B, N, J); their cost before its weight, (n,)."""
        chosen = self.places.actions(actions).clamp(-1.0, 1.0)  # (n, actuated)
        self._undefined = chosen.isnan().any(1)
        controls = self._center + self._half * chosen
        self.sim.set_controls(torch.minimum(torch.maximum(controls, self._low), self._high))
        return chosen.square().sum(1).nan_to_num(0.0)  # an action may be no number

    def diverged(self) -> Tensor:
        """(n,) bool: rows whose state is none any more, or whose last action was no number."""
        return self._undefined | self.sim.diverged()

    def start(self, rows: Tensor, moves: Tensor, speeds: Tensor) -> None:
        """Put ``rows`` (n,) bool at their starts, ``moves`` (n, nq) away, with ``speeds`` (n, nv)."""
        self.sim.reset(rows, self._starts + moves * self._own_positions, speeds * self._own_speeds)
