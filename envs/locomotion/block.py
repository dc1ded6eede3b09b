"""The rows of a vector environment that one batch simulates."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from ..snapshots import Kept
from .bodies.model import body_joints
from .bodies.morphology import Morphology
from .limb_reader import own_coordinates
from .places import Places
from .simulation import Simulation
from .varied.conditions import Conditions


class Block(Kept):
    """Rows of one body, or of several of one layout: what simulates them, and where their limbs go.

    Args:
        bodies: the body of every row.
        rows: of the environment.
        frame_skip: substeps of a step; None: the body's own.
        threads: of the simulation.
        aligned: limbs are placed as in the full body.

    Attributes:
        starts: (n, nq) start position of every row.
        conditions: what varies between episodes; None: nothing.
    """

    def __init__(
        self, bodies: Sequence[Morphology], rows: slice, frame_skip: int | None, threads: int, aligned: bool
    ) -> None:
        body, self.rows = bodies[0], rows
        self.sim = Simulation(body, rows.stop - rows.start, frame_skip, threads)
        if any(other is not body for other in bodies):
            self.sim.set_bodies(bodies)
        self.bodies = list(bodies)
        self.starts = np.array([other.initial_qpos for other in bodies])
        self.own_positions, self.own_speeds = own_coordinates(body.model, body.limbs)
        self.conditions: Conditions | None = None
        self.places = Places(body, rows, self.sim.controls.slots, aligned)

    @property
    def kept(self) -> tuple[str, ...]:  # type: ignore[override]
        """States of the simulations, and what was drawn for their episodes."""
        return ("sim", "starts", "conditions") if self.conditions else ("sim",)


_STRUCTURE = (
    "body_parentid",
    "jnt_type",
    "jnt_bodyid",
    "jnt_qposadr",
    "dof_bodyid",
    "geom_bodyid",
    "actuator_trntype",
    "actuator_trnid",
    "actuator_dyntype",
)
_NO_SIZES = ("nname", "npath", "ntext", "nmat", "nnumeric", "nkey", "nmesh", "ntex")


def adjacent_rows(bodies: Sequence[Morphology]) -> list[slice]:
    """Rows, given by their bodies, in runs that one batch can simulate."""
    starts = [0]
    for row in range(1, len(bodies)):
        if not share_layout(bodies[starts[-1]], bodies[row]):
            starts.append(row)
    return [slice(first, last) for first, last in zip(starts, [*starts[1:], len(bodies)], strict=True)]


def share_layout(one: Morphology, other: Morphology) -> bool:
    """Whether two bodies differ only in what a batch holds for every row.

    What `Simulation` reads of its first body only must be equal: the structure, the joints that place the
    root, the time step. Lengths, masses, joints' places and all descriptors may differ.
    """
    if one is other:
        return True
    a, b = one.model, other.model
    return (
        one.n_limbs == other.n_limbs
        and _sizes(a) == _sizes(b)
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in _STRUCTURE)
        and a.opt.timestep == b.opt.timestep
        and [(x.bodies, x.parent, x.slots) for x in one.limbs]
        == [(x.bodies, x.parent, x.slots) for x in other.limbs]
        and all(slot.joint >= 0 for limb in one.limbs for slot in limb.slots)
        and one.aligned_slots == other.aligned_slots
        and np.array_equal(_activation(one), _activation(other))
        and all(np.array_equal(x, y) for x, y in zip(_root(one), _root(other), strict=True))
    )


def _sizes(model: mujoco.MjModel) -> dict[str, int]:
    names = [name for name in dir(model) if name.startswith("n") and not name.startswith(_NO_SIZES)]
    return {name: size for name in names if isinstance(size := getattr(model, name), int)}


def _activation(body: Morphology) -> np.ndarray:
    return np.zeros(0) if body.home_activation is None else body.home_activation


def _root(body: Morphology) -> list[np.ndarray]:
    """Where the root is as a function of its joints' positions."""
    model, root = body.model, body.root
    joints = list(body_joints(model, root))
    free = [int(kind) for kind in model.jnt_type[joints]] == [int(mujoco.mjtJoint.mjJNT_FREE)]
    place = [] if free else [model.body_pos[root], model.jnt_pos[joints], model.jnt_axis[joints], model.qpos0]
    return [model.body_quat[root], body.start_rotation, *place]
