"""What differs between the episodes of a block's rows: body, damage, world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...snapshots import Kept, Misfit, put, take
from ..backends.mujoco import MujocoRows
from ..backends.warp import WarpRows
from ..layout import VARIED, Layout, make_layout
from ..limb_spec import joint_descriptor_slice, limb_descriptor_slice
from .damage import DEAD, LOCKED, Damage, DamagePlan
from .row_models import RowModels
from .variants import Variant
from .variation import DRAWS, BodyVariation
from .world import Ground, Pushes, World

STREAMS = len(DRAWS) + 2
"""Of every row, spawned from its own: one for each draw of the variation, damage, world."""

_DAMAGE, _WORLD = len(DRAWS), len(DRAWS) + 1
_MASS, _FRICTION = (limb_descriptor_slice(name).start for name in ("mass", "friction"))
_COLUMNS = {
    "gear": ("strength", "position_gain", "velocity_gain"),
    "damping": ("damping",),
    "armature": ("armature",),
}


@dataclass(frozen=True)
class Varied:
    """What is varied in an environment; None: nothing."""

    variation: BodyVariation | None = None
    damage: Damage | None = None
    world: World | None = None

    @classmethod
    def read(
        cls, variation: BodyVariation | None, damage: Damage | None, world: World | None
    ) -> Varied | None:
        """Of what was given, what varies anything; None if nothing does."""
        variation = variation if variation is not None and variation.varied else None
        damage = damage if damage is not None and damage.active else None
        world = world if world is not None and world.active else None
        return cls(variation, damage, world) if variation or damage or world else None

    def told(self, b: int, n: int, j: int) -> dict[str, Tensor]:
        """Of B rows for ``info``: factors (B, N), what is broken (B, N, J) and since when, slopes (B,)."""
        told: dict[str, Tensor] = {}
        if self.variation:
            told |= {f"factor_{name}": torch.zeros(b, n) for name in self.variation.varied}
        if self.damage:
            told |= {"damage": torch.zeros(b, n, j, dtype=torch.int8), "damaged_since": torch.full((b,), -1)}
        if self.world and self.world.slope is not None:
            told["slope"] = torch.zeros(b, dtype=torch.float64)
        return told

    def why_not_on_device(self) -> str | None:
        """Half a sentence, which of these cannot be simulated on a device; None: all of it can."""
        if self.damage is not None:
            return "parts break in its episodes (env.damage)"
        if self.world is not None and self.world.push is not None:
            return "it is pushed (env.world.push)"
        if self.world is not None and self.world.has_strips:
            return "its ground is uneven (env.world.step_height, friction)"
        return None


class Conditions(Kept):
    """Draws what varies at the start of episodes, and does in them what has been drawn.

    What is done by hand, a `push` that is still to come, is in no snapshot.

    Args:
        varied: what varies.
        block: n rows that are simulated together, on the CPU.
        pools: variants that each of the n rows is drawn from.
        layout, told: of these rows; kept true to the models that are simulated.
        ground: of all rows of the environment, where it is uneven.
    """

    def __init__(
        self,
        varied: Varied,
        block: MujocoRows,
        pools: Sequence[Sequence[Variant]],
        layout: Layout,
        told: Mapping[str, Tensor],
        ground: Ground | None,
    ) -> None:
        self._varied, self._block, self._pools, self._layout = varied, block, pools, layout
        self._ground = ground
        self._told = {name: values.numpy() for name, values in told.items()}
        self._age, self._slots = np.zeros(block.n, int), list(block.slots)
        self._variants = variants = list(dict.fromkeys(variant for pool in pools for variant in pool))
        n, j = layout.joint_mask.shape[1:]
        self._layouts = {own: make_layout([(own.body, block.slots, block.task)], n, j) for own in variants}
        self._variant_of = [pool[0] for pool in pools]
        sources = [variant.body.model for variant in variants]
        self._models = RowModels(
            block.batch, block.body, sources, [variant.body.model for variant in self._variant_of]
        )
        block.models = self._models.models
        damage, world = varied.damage, varied.world
        self._damage = DamagePlan(damage, block.body, block.n) if damage else None
        self._pushes = Pushes(world, block.n, block.dt) if world and world.push is not None else None
        self._forces = block.batch.bind("xfrc_applied") if self._pushes else None
        self._pushed: list[int] = []
        self._by_hand: list[tuple[int, np.ndarray]] = []  # rows, and how they are pushed in the next step
        self._on_joint = np.array([row.joint >= 0 for _, _, row, _ in block.joints])
        self._limb_slots, self._joint_slots = np.array([row[:2] for row in block.joints]).T
        self._limbs = np.array([self._slots.index(slot) for slot in self._limb_slots])
        self.kept = ("_age", "_pushed") + ("_damage",) * bool(damage) + ("_pushes",) * bool(self._pushes)

    def start(
        self, rows: np.ndarray, streams: Sequence[Sequence[np.random.Generator]], directions: np.ndarray
    ) -> None:
        """Draw and set up new episodes of ``rows`` (k,), in the task's ``directions`` (k, 2)."""
        for row, own, direction in zip(rows.tolist(), streams, directions, strict=True):
            self._start(row, own, direction)
        self._age[rows] = 0
        self._models.commit()

    def _start(self, row: int, streams: Sequence[np.random.Generator], direction: np.ndarray) -> None:
        variation, world, told = self._varied.variation, self._varied.world, self._told
        pool = self._pools[row]
        # The number is drawn of many, so that draws do not depend on how many variants there are.
        place = streams[variation.stream if variation else _WORLD].random()
        self._variant_of[row] = variant = pool[min(int(place * len(pool)), len(pool) - 1)]
        self._models.load(row, variant.body.model)
        if len(pool) > 1 or variation:
            for name in VARIED:
                getattr(self._layout, name)[row] = getattr(self._layouts[variant], name)[0]
            self._block.starts[row] = torch.from_numpy(variant.body.initial_qpos)
        if variation:
            factors = variation.draw_edits(streams[variation.stream], variant.body.n_limbs)
            self._models.scale(row, factors)
            self._rescale(row, variant, factors)
            for name in variation.varied:
                values = variant.lengths if name == "length" else factors[name]
                told[f"factor_{name}"][row, self._slots] = values
        if world and world.slope is not None:
            size = float(np.linalg.norm(variant.body.model.opt.gravity))
            gravity = world.draw_gravity(streams[_WORLD], size, direction)
            self._models.set_gravity(row, gravity)
            told["slope"][row] = np.degrees(np.arcsin(-(gravity[:2] @ direction) / size))
        if self._damage:
            self._damage.draw(row, streams[_DAMAGE])
            told["damage"][row], told["damaged_since"][row] = 0, -1
        if self._ground:
            self._ground.put(self._block.rows.start + row, variant.terrain)
        if self._pushes:
            self._pushes.start(row, streams[_WORLD])
        if self._forces is not None:
            self._forces[row] = 0.0
        self._by_hand = [(other, velocity) for other, velocity in self._by_hand if other != row]

    def _rescale(self, row: int, variant: Variant, factors: Mapping[str, np.ndarray]) -> None:
        """Bring the descriptors of a row to what its parameters have become."""
        layout, slots = self._layout, self._slots
        limbs, joints = layout.limb_descriptors[row].numpy(), layout.joint_descriptors[row].numpy()
        if "mass" in factors:
            limbs[slots, _MASS] *= factors["mass"].astype(np.float32)
        if "friction" in factors:
            model, own = variant.body.model, limbs[slots, _FRICTION]
            ground = model.geom_friction[model.geom_bodyid == 0, 0].max(initial=0.0)
            # A limb that touches nothing has none.
            limbs[slots, _FRICTION] = np.where(own > 0, np.maximum(own, ground) * factors["friction"], 0.0)
        for name, columns in _COLUMNS.items():
            if name in factors:
                factor = factors[name][self._limbs]
                if name != "gear":  # a tendon's own damping stays
                    factor = np.where(self._on_joint, factor, 1.0)
                for column in columns:
                    at = joint_descriptor_slice(column).start
                    joints[self._limb_slots, self._joint_slots, at] *= factor.astype(np.float32)

    def before_step(self) -> None:
        """Break and push what is due in the step that comes."""
        if self._forces is not None:
            self._forces[self._pushed] = 0.0
            self._pushed = []
            due = self._pushes.due(self._age) if self._pushes else []
            for row, velocity in due + self._by_hand:
                force = self._models.mass(row) * velocity / self._block.dt
                self._forces[row, self._block.root, :2] += force
                self._pushed.append(row)
            self._by_hand = []
        if self._damage:
            due = np.flatnonzero(self._damage.due == self._age).tolist()
            for row in due:
                for part, kind in self._damage.parts[row]:
                    self._break(row, part, kind)
            if due:
                self._models.commit()
        self._age += 1

    def push(self, row: int, velocity: np.ndarray) -> None:
        """Push a row in its next step so that this alone would change its velocity by (2,) m/s."""
        if self._forces is None:
            self._forces = self._block.batch.bind("xfrc_applied")
        self._by_hand.append((row, velocity))

    def damage(self, row: int, part: int, kind: int) -> None:
        """Break a joint row of a row now, ``DEAD`` or ``LOCKED``, until its episode ends."""
        self._break(row, part, kind)
        self._models.commit()

    def _break(self, row: int, part: int, kind: int) -> None:
        limb_slot, joint_slot, joint, _ = self._block.joints[part]
        if kind == DEAD:
            self._models.scale_force(row, joint.actuator, 0.0)
        elif kind == LOCKED:
            self._models.lock(row, joint.joint)
        if self._damage:
            self._told["damage"][row, limb_slot, joint_slot] = kind
            self._told["damaged_since"][row] = self._age[row]

    def snapshot(self) -> dict[str, Any]:  # noqa: D102
        return {
            **super().snapshot(),
            "variants": [self._variants.index(variant) for variant in self._variant_of],
            "models": self._models.snapshot(),
            "layout": take(self._layout, VARIED),
        }

    def restore(self, taken: Mapping[str, Any]) -> None:  # noqa: D102
        taken = dict(taken)
        numbers, models, layout = (taken.pop(name) for name in ("variants", "models", "layout"))
        if len(numbers) != self._block.n or max(numbers) >= len(self._variants):
            raise Misfit(f"{self._block.n} rows of {len(self._variants)} variants, not {len(numbers)}")
        super().restore(taken)
        put(self._layout, VARIED, layout)
        self._variant_of = [self._variants[number] for number in numbers]
        self._models.restore(models, [variant.body.model for variant in self._variant_of])


@dataclass(frozen=True)
class Prepared:
    """K variants of a body, drawn beforehand as models are compiled on the host; ``starts`` (K, nq)."""

    models: list[Any]
    starts: Tensor
    layout: Layout


class PreparedVariants(Kept):
    """Which of its pool of prepared variants each row is, on a device; keeps ``layout`` true to that."""

    kept = ("_number",)

    def __init__(self, block: WarpRows, pools: Sequence[Prepared], layout: Layout) -> None:
        self._block, self._own_layout, device = block, layout, block.starts.device
        distinct = list({id(pool): pool for pool in pools}.values())
        sizes = [len(pool.models) for pool in distinct]
        of_row = [next(k for k, pool in enumerate(distinct) if pool is own) for own in pools]
        ends = np.cumsum(sizes)
        self._first = torch.from_numpy((ends - sizes)[of_row]).to(device)
        self._count = torch.tensor(sizes)[of_row].to(device)
        self._varies = max(sizes) > 1
        self._number = self._first.clone()
        self._starts = torch.cat([pool.starts for pool in distinct]).to(block.starts)
        layouts = [pool.layout.to(layout.reference.dtype, device) for pool in distinct]
        self._layout = {name: torch.cat([getattr(own, name) for own in layouts]) for name in VARIED}
        self._adopt(torch.ones(block.n, dtype=torch.bool, device=device))

    def start(self, rows: Tensor, generator: torch.Generator) -> None:
        """Draw the variants of new episodes of ``rows`` (n,) bool."""
        if self._varies:
            place = torch.rand(len(rows), generator=generator, device=rows.device)
            drawn = self._first + (place * self._count).long().clamp_max(self._count - 1)
            self._number.copy_(torch.where(rows, drawn, self._number))
            self._adopt(rows)

    def restore(self, taken: Mapping[str, Any]) -> None:  # noqa: D102
        super().restore(taken)
        self._adopt(torch.ones_like(self._number, dtype=torch.bool))

    def _adopt(self, rows: Tensor) -> None:
        """Give rows the models of their numbers, and say so in the layout."""
        number = self._number
        self._block.worlds.give(rows, number)
        self._block.starts = self._starts[number]
        for name, values in self._layout.items():
            getattr(self._own_layout, name).copy_(values[number])
