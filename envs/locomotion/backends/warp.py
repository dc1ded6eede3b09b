"""Rows on a device, stepped by MuJoCo Warp in single precision, and its kernels recorded as graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...in_place import clear, replace
from ...snapshots import Kept
from ..layout import Group
from ..varied.row_models import differing_arrays
from . import SimulatedRows, Simulation

Room = tuple[int | None, int | None]
"""Contacts and constraints of a simulation; None each: as many as its models need."""

_OF_NO_EFFECT = ("mesh_", "bvh_", "mat_", "tex_", "light_", "cam_", "geom_rgba")  # looks
_OF_NO_EFFECT += ("dof_length",)  # by which it is decided what sleeps
_STATE = ("qpos", "qvel", "act", "ctrl", "qacc_warmstart", "time")
_OUTPUTS = ("xpos", "xmat", "cvel", "xaxis", "subtree_com", "actuator_length", "actuator_velocity")

_MOST_OF_A_PAIR = 8
_OF_A_PAIR = {
    "plane sphere": 1,
    "plane capsule": 2,
    "plane ellipsoid": 1,
    "sphere sphere": 1,
    "sphere capsule": 1,
    "sphere box": 1,
    "capsule capsule": 2,
    "capsule box": 2,
}
_EQUALITIES, _MOST_OF_AN_EQUALITY = mujoco.mjtEq, 6
_OF_AN_EQUALITY = {
    int(_EQUALITIES.mjEQ_CONNECT): 3,
    int(_EQUALITIES.mjEQ_JOINT): 1,
    int(_EQUALITIES.mjEQ_TENDON): 1,
}
_SELF_CONTACTS_OF_A_GEOM = 4
"""Contacts of a body's own parts with each other that are thought to be there at a time."""


def warp_modules() -> tuple[Any, Any]:
    """The modules ``warp`` and ``mujoco_warp``, imported in seconds. Raises UserError: they are missing."""
    try:
        import warp

        warp.config.log_level = warp.LOG_WARNING  # it would tell of every kernel that it loads
        import mujoco_warp
    except ModuleNotFoundError as error:
        raise UserError(
            f"simulation=warp needs MuJoCo Warp, and {error.name} is not installed: pip install 'somite[gpu]'"
        ) from error
    return warp, mujoco_warp


class Capacities(NamedTuple):
    """Places in one world: of contacts, whose sum all worlds share, and of the solver's rows."""

    contacts: int
    constraints: int


def capacities(
    model: mujoco.MjModel, contacts: int | None = None, constraints: int | None = None
) -> Capacities:
    """What a body needs, where no number is given.

    Warp's arrays have a fixed size: too few places are found out in the midst of a run, and such as are never
    used cost memory and, of constraints, time. Every pair that the ground is of counts in full. Pairs of the
    body's own parts are too many to all touch: as many contacts as there are parts, times four, are thought
    to be enough, and that is checked in a run.
    """
    if contacts is None:
        grounded, own = _contacts(model)
        contacts = max(grounded + min(own, _SELF_CONTACTS_OF_A_GEOM * model.ngeom), 1)
    if constraints is None:
        constraints = max(_other_constraints(model) + contacts * _rows_of_a_contact(model), 1)
    return Capacities(contacts, constraints)


def _contacts(model: mujoco.MjModel) -> tuple[int, int]:
    """Contacts with what stands still, and of moving parts with each other, if all that can touch does."""
    one, other = np.triu_indices(model.ngeom, 1)
    named = {frozenset(pair) for pair in zip(model.pair_geom1, model.pair_geom2, strict=True)}
    touch = _may_touch(model, one, other)
    touch |= [frozenset(pair) in named for pair in zip(one, other, strict=True)]  # whatever else is said
    kinds = [mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower() for kind in model.geom_type]
    pairs = [
        " ".join(kinds[geom] for geom in sorted(pair, key=model.geom_type.__getitem__))
        for pair in zip(one[touch], other[touch], strict=True)
    ]
    counts = np.array([_OF_A_PAIR.get(pair, _MOST_OF_A_PAIR) for pair in pairs], int)
    still = model.body_weldid[model.geom_bodyid] == 0
    grounded = (still[one] | still[other])[touch]
    return int(counts[grounded].sum()), int(counts[~grounded].sum())


def _may_touch(model: mujoco.MjModel, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which pairs (k,) of geoms MuJoCo lets touch each other, (k,) bool."""
    kinds, affinities = model.geom_contype, model.geom_conaffinity
    masks = (kinds[one] & affinities[other]) | (kinds[other] & affinities[one])
    bodies = np.sort(model.geom_bodyid[[one, other]], 0)
    excluded = np.isin((bodies[0] << 16) + bodies[1], model.exclude_signature)
    a, b = welds = model.body_weldid[bodies]
    above_a, above_b = model.body_weldid[model.body_parentid[welds]]
    # A part does not touch the one that it hangs from, unless that is the world.
    hangs = ((a != 0) & (above_b == a)) | ((b != 0) & (above_a == b))
    if int(model.opt.disableflags) & int(mujoco.mjtDisableBit.mjDSBL_FILTERPARENT):
        hangs[:] = False
    return (masks != 0) & ~excluded & (a != b) & ~hangs


def _rows_of_a_contact(model: mujoco.MjModel) -> int:
    largest = max((int(d) for d in (*model.geom_condim, *model.pair_dim)), default=1)
    if largest == 1 or int(model.opt.cone) == int(mujoco.mjtCone.mjCONE_ELLIPTIC):
        return largest
    return 2 * (largest - 1)


def _other_constraints(model: mujoco.MjModel) -> int:
    equalities = sum(_OF_AN_EQUALITY.get(int(kind), _MOST_OF_AN_EQUALITY) for kind in model.eq_type)
    dry = np.count_nonzero(model.dof_frictionloss) + np.count_nonzero(model.tendon_frictionloss)
    # A joint is at one of its limits at a time, but for margins so wide that it is at both.
    limits = 2 * (np.count_nonzero(model.jnt_limited) + np.count_nonzero(model.tendon_limited))
    return int(equalities + dry + limits)


class WarpWorlds(Kept):
    """``n`` worlds of Warp, each of one of several models of one layout.

    Args:
        models: every compiled model that a world can be given; all begin with the first.
        n: worlds.
        frame_skip: substeps of a step.
        device: of all arrays; on a CPU Warp's kernels run there, one world after another.
        name: of the models, for errors.
        room: for contacts and constraints.

    Attributes:
        fields: what differs between ``models``: (n, ...) by name, the memory that is simulated.
        reads_transmissions: whether `kinematics` tells of tendons and actuators, too.
        home: (na,) states of actuators after a reset.

    Raises:
        UserError: Warp is not installed, or cannot simulate such a model, or such models beside each other.
    """

    kept = ("_state",)  # which is integrated; what each world's model is, is kept by who gave it
    reads_transmissions = False

    def __init__(
        self,
        models: Sequence[mujoco.MjModel],
        n: int,
        frame_skip: int,
        device: torch.device,
        name: str,
        room: Room = (None, None),
    ) -> None:
        warp, self._mjw = warp_modules()
        self.models, self._frame_skip, self._name = list(models), frame_skip, name
        self._room = Capacities(*map(max, zip(*(capacities(model, *room) for model in models), strict=True)))
        each_world = {
            field.name
            for field in dataclasses.fields(self._mjw.Model)
            if getattr(field.type, "shape", None) and field.type.shape[0] == "*"
        }
        batched = [field for field in differing_arrays(models) if field in each_world]
        with warp.ScopedDevice(str(device)):
            try:
                self._model = self._mjw.put_model(models[0], batch_sizes=dict.fromkeys(batched, n))
            except (NotImplementedError, ValueError) as error:
                raise UserError(f"MuJoCo Warp cannot simulate {name!r}: {error}") from error
            self._check_what_is_shared(set(batched))
            self._data = self._mjw.make_data(
                models[0], nworld=n, nconmax=self._room.contacts, njmax=self._room.constraints
            )
        # Kernels print when a capacity is too small; here that is looked at, see `check`.
        self._model.opt.warn_overflow = 0
        values = {field: [getattr(model, field) for model in models] for field in batched}
        self.fields = {field: warp.to_torch(getattr(self._model, field)) for field in batched}
        gravities = [model.opt.gravity for model in models]
        if any(not np.array_equal(gravity, gravities[0]) for gravity in gravities):
            values["gravity"], self.fields["gravity"] = gravities, torch.zeros(n, 3, device=device)
            self._model.opt.gravity = warp.from_torch(self.fields["gravity"], dtype=warp.vec3)
        self._values = {
            field: torch.from_numpy(np.array(values[field])).to(own).reshape(len(models), *own.shape[1:])
            for field, own in self.fields.items()
        }
        self.give(torch.ones(n, dtype=torch.bool, device=device), torch.zeros(n, dtype=int, device=device))
        self._state = {name: self.array(name) for name in _STATE}
        self._overflow = self.array("overflow")
        self.home = torch.zeros(models[0].na, device=device)

    def _check_what_is_shared(self, batched: set[str]) -> None:
        """What Warp holds once for all worlds must be equal in all models.

        What it makes of the models is looked at in one other, as that takes time.
        """
        own = _shared_values(self._model, batched)
        differing = [field for field in differing_arrays(self.models) if field in own]
        for other in self.models[1:2]:
            found = _shared_values(self._mjw.put_model(other), batched)
            differing += [
                field
                for field, value in own.items()
                if not np.array_equal(value, found[field], equal_nan=value.dtype.kind == "f")
            ]
        if differing:
            raise UserError(
                f"MuJoCo Warp cannot simulate {self._name!r} beside others of its layout: they differ in "
                f"{differing[0]}, which it has once for all. Use simulation=cpu"
            )

    def give(self, worlds: Tensor, numbers: Tensor) -> None:
        """Give ``worlds`` (n,) bool the models of these ``numbers`` (n,)."""
        for field, own in self.fields.items():
            replace(own, worlds, self._values[field][numbers])

    def array(self, name: str) -> Tensor:
        """(n, ...) an array of the data by MuJoCo's name, the same memory."""
        warp, _ = warp_modules()
        return warp.to_torch(getattr(self._data, name))

    def substeps(self) -> None:
        """Advance all worlds by a step. Launches kernels and waits for nothing."""
        for _ in range(self._frame_skip):
            self._mjw.step(self._model, self._data)

    def diverged(self) -> Tensor:
        """(n,) bool: worlds whose state is not finite, or beyond what MuJoCo allows."""
        positions, speeds = self._state["qpos"], self._state["qvel"]
        # No comparison is true of NaN.
        fine = (positions.abs() < mujoco.mjMAXVAL).all(1) & (speeds.abs() < mujoco.mjMAXVAL).all(1)
        return ~fine

    def reset(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Put ``worlds`` (n,) bool into states, with controls of zero; `kinematics` then has to be computed.

        States are (n, nq) and (n, nv), of which those worlds are taken, or (nq,) and (nv,) for all of them.
        """
        state = self._state
        for name, value in (("qpos", qpos), ("qvel", qvel), ("act", self.home)):
            replace(state[name], worlds, value)
        for name in ("ctrl", "qacc_warmstart", "time"):
            clear(state[name], worlds)

    def kinematics(self) -> None:
        """Compute what is read of the bodies from the present state of all worlds."""
        mjw, model, data = self._mjw, self._model, self._data
        mjw.kinematics(model, data)
        mjw.com_pos(model, data)
        if self.reads_transmissions:
            mjw.tendon(model, data)
            mjw.transmission(model, data)
            mjw.fwd_velocity(model, data)
        else:
            mjw.com_vel(model, data)

    def check(self) -> None:
        """Raises UserError: a capacity was too small in any step so far. Waits for the device."""
        found = 0
        for bits in self._overflow.unique().tolist():
            found |= bits
        kinds = self._mjw.OverflowType
        of_contacts = kinds.BROADPHASE | kinds.NARROWPHASE | kinds.CCD | kinds.HFIELD
        of_constraints = kinds.NEFC | kinds.NJMAX_NNZ
        for what, bits in (("constraints", of_constraints), ("contacts", of_contacts)):
            if found & bits:
                now = getattr(self._room, what)
                raise UserError(
                    f"{self._name!r} has had more {what} in a step than there is room for, and some were "
                    f"left out: {now} for each simulation. Raise warp.{what}, for example to {2 * now}"
                )


def _shared_values(model: Any, batched: set[str]) -> dict[str, np.ndarray]:
    """Numbers of a model of Warp that all its worlds share, but for what no dynamics depend on."""
    found = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if field.name in batched or field.name.startswith(_OF_NO_EFFECT):
            continue
        if field.name.startswith("body_fluid") and not model.has_fluid:
            continue
        if isinstance(value, (bool, int, float)):
            found[field.name] = np.asarray(value)
        elif hasattr(value, "numpy") and hasattr(value, "shape"):
            found[field.name] = value.numpy()
    return {name: value for name, value in found.items() if value.dtype.names is None}


class Launcher:
    """Launches what all simulations of an environment have to do.

    The kernels of each simulation are recorded once as a graph, which is then launched: from Python their
    launches take many times as long as what they compute, on a CPU with four ants forty times. On a GPU every
    graph has a stream of its own, so that small batches of different bodies are computed beside each other;
    torch's stream waits for them on the device, and the host for nothing.
    """

    def __init__(self, simulations: Sequence[WarpWorlds], device: torch.device) -> None:
        self._simulations, self._device = list(simulations), device
        self._graphs: dict[str, list[Any]] = {}
        self._streams: list[Any] = []

    def launch(self) -> None:
        """Advance all worlds by a step."""
        self._run("substeps", WarpWorlds.substeps)

    def kinematics(self) -> None:
        """Compute what is read of the bodies from the present state of all worlds."""
        self._run("kinematics", WarpWorlds.kinematics)

    def _run(self, name: str, work: Callable[[WarpWorlds], None]) -> None:
        warp, _ = warp_modules()
        if name not in self._graphs:
            self._graphs[name] = [self._record(simulation, work) for simulation in self._simulations]
        if self._device.type == "cpu":
            for graph in self._graphs[name]:
                warp.capture_launch(graph)
            return
        if not self._streams:
            device = warp.get_device(str(self._device))
            self._streams = [warp.Stream(device) for _ in self._simulations]
        torch_stream = warp.stream_from_torch(torch.cuda.current_stream(self._device))
        begun = torch_stream.record_event()
        for graph, stream in zip(self._graphs[name], self._streams, strict=True):
            stream.wait_event(begun)
            warp.capture_launch(graph, stream=stream)
            torch_stream.wait_event(stream.record_event())

    def _record(self, simulation: WarpWorlds, work: Callable[[WarpWorlds], None]) -> Any:
        """A graph of a simulation's work; its state stays what it is."""
        warp, _ = warp_modules()
        name = str(self._device)
        if self._device.type != "cpu":
            torch.cuda.synchronize(self._device)  # Warp has a stream of its own here
        # Kernels are compiled and loaded beforehand, which a recording does not allow; the state is put back.
        state = simulation.snapshot()
        with warp.ScopedDevice(name):
            work(simulation)
            warp.synchronize_device(name)
            simulation.restore(state)
            if self._device.type != "cpu":
                torch.cuda.synchronize(self._device)
            with warp.ScopedCapture(name) as capture:
                work(simulation)
        return capture.graph

    def close(self) -> None:
        """Let the graphs and simulations go."""
        self._graphs, self._simulations, self._streams = {}, [], []


class WarpRows(SimulatedRows):
    """Rows as ``worlds``, each given one of ``models``, of the group's layout."""

    kept = ("worlds", "starts")

    def __init__(
        self,
        group: Group,
        device: torch.device,
        models: Sequence[mujoco.MjModel],
        room: Room,
    ) -> None:
        super().__init__(group, {"dtype": torch.float32, "device": device})
        body = self.body
        if body.bare is not body:  # ghosts need no room
            needs = [capacities(own.bare.model, *room) for own in dict.fromkeys(self.bodies)]
            room = Capacities(*map(max, zip(*needs, strict=True)))
        self.worlds = WarpWorlds(models, self.n, self.frame_skip, device, body.name, room)
        self.worlds.reads_transmissions = self.acts_remotely
        if body.home_activation is not None:
            self.worlds.home = torch.from_numpy(body.home_activation).to(device, torch.float32)
        self.controls = self.array("ctrl")
        self.memory = [self.array(name).view(-1) for name in ("qpos", "qvel", "act", *_OUTPUTS)]

    def array(self, name: str) -> Tensor:  # noqa: D102
        return self.worlds.array(name)

    def reset(self, rows: Tensor, qpos: Tensor, qvel: Tensor) -> None:  # noqa: D102
        self.worlds.reset(rows, qpos, qvel)


class WarpSimulation(Simulation):
    """A simulation for each group, of all ``models`` that one of its rows can be given."""

    def __init__(
        self,
        groups: Sequence[Group],
        device: torch.device,
        models: Sequence[Sequence[mujoco.MjModel]],
        room: Room,
    ) -> None:
        self.blocks = [WarpRows(group, device, own, room) for group, own in zip(groups, models, strict=True)]
        self.launcher = Launcher([block.worlds for block in self.blocks], device)

    def step(self) -> None:  # noqa: D102
        self.launcher.launch()
        self.diverged = torch.cat([block.worlds.diverged() for block in self.blocks])

    def kinematics(self) -> None:  # noqa: D102
        self.launcher.kinematics()

    def check(self) -> None:  # noqa: D102
        for block in self.blocks:
            block.worlds.check()

    def close(self) -> None:  # noqa: D102
        self.launcher.close()
        self.blocks = []
