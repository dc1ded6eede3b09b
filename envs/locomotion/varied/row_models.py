"""A model of its own for every row of a batch, edited in place between and within episodes.

Loading another compiled body of the same layout into a row copies the arrays in which such bodies differ.
That takes some ten microseconds, where copying a model takes a millisecond.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import mujoco.batch
import numpy as np
import torch

from ..bodies.morphology import Morphology

RIGID = 1e10
"""Rotor inertia (kg m^2) of a locked joint. Nothing accelerates it, and unlike a limit or dry friction it
needs no constraint that could give."""

_OF_BODIES_AND_GEOMS = ("body_mass", "body_inertia", "geom_friction")
_OF_JOINTS = ("jnt_actfrcrange", "jnt_limited", "dof_damping", "dof_armature")
_OF_ACTUATORS = ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")
_MUSCLE_FORCE, _MUSCLE_SCALE = 2, 3


class RowModels:
    """Models of the rows of a batch, at first the ``initial`` ones.

    ``sources`` are all that a row can be given, of the layout of ``body``.
    """

    def __init__(
        self,
        batch: mujoco.batch.Batch,
        body: Morphology,
        sources: Sequence[mujoco.MjModel],
        initial: Sequence[mujoco.MjModel],
    ) -> None:
        self._batch, self._qvel = batch, batch.bind("qvel")
        self.models, self._loaded = [copy.copy(model) for model in initial], list(initial)
        edited = (*_OF_BODIES_AND_GEOMS, *_OF_JOINTS, *_OF_ACTUATORS)
        self._fields = list(dict.fromkeys((*edited, *differing_arrays(sources))))
        self._data = mujoco.MjData(body.model)
        self._limb_of, self._n_limbs = _limb_indices(body), body.n_limbs
        self._forces = _force_columns(body.model)
        self._ground = np.flatnonzero(body.model.geom_bodyid == 0)
        self._edited = list(dict.fromkeys((*self._fields, *_derived(body.model, self._data))))
        self._edits: list[dict[str, Any] | None] = [None] * len(self.models)  # of rows, where found before
        self.commit()

    def snapshot(self) -> list[dict[str, Any]]:
        """Of each row, the arrays in which its model differs from the one that was loaded."""
        for row, (own, source) in enumerate(zip(self.models, self._loaded, strict=True)):
            if self._edits[row] is None:
                edits = {name: getattr(own, name) for name in self._edited}
                self._edits[row] = {
                    "meaninertia": own.stat.meaninertia,
                    "gravity": own.opt.gravity.tolist(),
                    **{
                        name: torch.from_numpy(array.copy())
                        for name, array in edits.items()
                        if not np.array_equal(array, getattr(source, name))
                    },
                }
        return list(self._edits)

    def restore(self, taken: Sequence[Mapping[str, Any]], sources: Sequence[mujoco.MjModel]) -> None:
        """Inverse of `snapshot`: loads ``sources`` and edits them again."""
        for row, (edits, source) in enumerate(zip(taken, sources, strict=True)):
            self.load(row, source)
            model = self.models[row]
            model.stat.meaninertia, model.opt.gravity[:] = edits["meaninertia"], edits["gravity"]
            for name in self._edited:
                getattr(model, name)[...] = edits[name].numpy() if name in edits else getattr(source, name)
        self.commit()

    def commit(self) -> None:
        """Tell the batch of edits (10 microseconds)."""
        self._batch.set_models(self.models)

    def _edit(self, row: int) -> mujoco.MjModel:
        self._edits[row] = None
        return self.models[row]

    def load(self, row: int, source: mujoco.MjModel) -> None:
        """Make a row's model equal to a source, whatever was done to it."""
        own, self._loaded[row] = self._edit(row), source
        for name in self._fields:
            getattr(own, name)[...] = getattr(source, name)
        own.stat.meaninertia, own.opt.gravity[:] = source.stat.meaninertia, source.opt.gravity

    def scale(self, row: int, factors: Mapping[str, np.ndarray]) -> None:
        """Multiply parameters in a row that was just loaded by factors (N,) of the limbs, by quantity."""
        own = self._edit(row)
        for name, limbs in factors.items():
            extended = np.append(limbs, 1.0)  # for what belongs to no limb
            of = {kind: extended[limb_of] for kind, limb_of in self._limb_of.items()}
            if name == "mass":
                own.body_mass[:] *= of["body"]
                own.body_inertia[:] *= of["body"][:, None]
            elif name == "gear":
                self._scale_forces(own, slice(None), of["actuator"])
                own.jnt_actfrcrange[:] *= of["joint"][:, None]
            elif name in ("damping", "armature"):
                array = getattr(own, f"dof_{name}")
                array *= of["dof"].reshape(-1, *[1] * (array.ndim - 1))
            elif name == "friction":
                self._scale_friction(own.geom_friction, of["geom"])
        if "mass" in factors or "armature" in factors:
            mujoco.mj_setConst(own, self._data)

    def _scale_friction(self, friction: np.ndarray, factors: np.ndarray) -> None:
        # The larger friction of two geoms holds. So limbs get the one that they have with the ground, and
        # the ground none, that a factor below 1 shows.
        ground = self._ground
        if len(ground):
            of_limbs = self._limb_of["geom"] < self._n_limbs
            friction[of_limbs] = np.maximum(friction[of_limbs], friction[ground].max(0))
            friction[ground] = 0.0
        friction *= factors[:, None]

    def scale_force(self, row: int, actuator: int, factor: float) -> None:
        """Multiply the force of an actuator, whatever it is; 0: it is dead."""
        self._scale_forces(self._edit(row), [actuator], np.array([factor]))

    def _scale_forces(self, own: mujoco.MjModel, actuators: slice | list[int], factors: np.ndarray) -> None:
        for name, columns in self._forces.items():
            getattr(own, name)[actuators] *= np.where(columns[actuators], factors[:, None], 1.0)
        own.actuator_forcerange[actuators] *= factors[:, None]

    def set_gravity(self, row: int, gravity: np.ndarray) -> None:
        """Gravity (3,) of a row."""
        self._edit(row).opt.gravity[:] = gravity

    def lock(self, row: int, joint: int) -> None:
        """Stop a hinge or slide joint for good, by the blow between its two sides that this takes."""
        model, data = self._edit(row), self._batch.get_data(row, self._data)
        dof = int(model.jnt_dofadr[joint])
        mujoco.mj_fwdPosition(model, data)
        unit, answer = np.zeros((2, 1, model.nv))
        unit[0, dof] = 1.0
        mujoco.mj_solveM(model, data, answer, unit)
        self._qvel[row] -= answer[0] * (self._qvel[row, dof] / answer[0, dof])
        self._qvel[row, dof] = 0.0
        model.dof_armature[dof] = RIGID
        model.jnt_limited[joint] = 0  # the limit would pull it back

    def mass(self, row: int) -> float:
        """Mass of all limbs of a row, kg."""
        return float(self.models[row].body_mass[self._limb_of["body"] < self._n_limbs].sum())


def _derived(model: mujoco.MjModel, data: mujoco.MjData) -> list[str]:
    """Names of the arrays that ``mj_setConst`` computes from masses, inertias and armatures."""
    model = copy.copy(model)
    mujoco.mj_setConst(model, data)  # a compiled model may differ by rounding
    edited = copy.copy(model)
    # Parts by factors of their own: some of what is derived depends on ratios only.
    edited.body_mass[:] *= np.linspace(1.5, 2.5, model.nbody)
    edited.body_inertia[:] *= np.linspace(1.5, 2.5, model.nbody)[:, None]
    edited.dof_armature[:] += 0.1
    mujoco.mj_setConst(edited, data)
    return differing_arrays([model, edited])


def differing_arrays(sources: Sequence[mujoco.MjModel]) -> list[str]:
    """Names of the arrays in which models of one layout differ."""
    first, *others = sources
    names = [name for name in dir(first) if others and not name.startswith("_")]
    arrays = {name: array for name in names if isinstance(array := getattr(first, name), np.ndarray)}
    return [
        name
        for name, array in arrays.items()
        if any(not np.array_equal(array, getattr(other, name)) for other in others)
    ]


def _force_columns(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Which parameters of each actuator its force is proportional to: bool, of the arrays' shapes."""
    columns = {}
    for name, kinds, muscle in (
        ("actuator_gainprm", model.actuator_gaintype, mujoco.mjtGain.mjGAIN_MUSCLE),
        ("actuator_biasprm", model.actuator_biastype, mujoco.mjtBias.mjBIAS_MUSCLE),
    ):
        parameters = getattr(model, name)
        columns[name] = chosen = np.zeros(parameters.shape, bool)
        for actuator, kind in enumerate(kinds):
            if int(kind) != int(muscle):
                chosen[actuator, :3] = True
            else:  # a muscle without a force of its own has one that is scaled from what it moves
                own = parameters[actuator, _MUSCLE_FORCE] >= 0
                chosen[actuator, _MUSCLE_FORCE if own else _MUSCLE_SCALE] = True
    return columns


def _limb_indices(body: Morphology) -> dict[str, np.ndarray]:
    """For bodies, joints, dofs, geoms and actuators the limb that they belong to; N for none.

    Joints that place the root in the world, and their dofs, belong to none.
    """
    model, none = body.model, body.n_limbs
    sizes = {"body": model.nbody, "joint": model.njnt, "dof": model.nv, "actuator": model.nu}
    found = {kind: np.full(size, none) for kind, size in sizes.items()}
    for index, limb in enumerate(body.limbs):
        found["body"][list(limb.bodies)] = index
        for slot in limb.slots:
            if slot.joint >= 0:
                found["joint"][slot.joint] = index
                found["dof"][int(model.jnt_dofadr[slot.joint]) + slot.axis] = index
            if slot.actuator >= 0:
                found["actuator"][slot.actuator] = index
    return found | {"geom": found["body"][model.geom_bodyid]}
