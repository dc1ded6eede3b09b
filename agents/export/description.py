"""What an exported policy says about itself: all that the author of a controller has to know, as JSON."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...envs.locomotion.bodies.morphology import Morphology
from ...envs.locomotion.pictures.describe import describe
from ...envs.tokens import CONTRACT_VERSION, Feature
from ..agent import Agent
from ..policies.base import Policy
from ..storage.policy_json import installed_version
from .check import STEPS, Check, Run
from .graph import ActingGraph, Array, free_axes

FORMAT_VERSION = 1  # raised when a key changes its meaning
NOMINAL = "nominal, in [-1, 1], without noise"
VERSIONS = ("somite", "torch", "onnx", "onnxscript", "onnxruntime")

MEANINGS = {
    "tokens": "features of each sensor, patch or limb, raw: the normaliser is inside",
    "mask": "1 where the token exists, 0 where it is padding or missing",
    "parent": "index of the limb that this one hangs from, -1 for a root; trees only, which nothing checks",
    "joints": "features of each joint slot of each limb, raw: the normaliser is inside",
    "joint_mask": "1 where the joint slot exists",
    "action_mask": "1 where the joint slot is actuated",
    "recent_actions": "the last actions as applied, newest last, 0 before the first; one-hot where discrete",
    "traces": "what the running statistics of each slot tell, raw: the normaliser is inside",
    "neighbors": "slots that seem to lie to the right, to the left, below and above; itself for none",
}


def description(
    agent: Agent,
    graph: ActingGraph,
    check: Check,
    tolerance: float,
    body: tuple[Morphology, int] | None,
    opset: int,
) -> dict[str, Any]:
    """Everything about an exported policy, its check and its body (None: any), as plain JSON values."""
    policy, spec, saved, environment = agent.policy, agent.policy.spec, agent.description, agent.environment
    versions = {name: installed_version(name) for name in VERSIONS}
    return {
        "format": FORMAT_VERSION,
        "contract": CONTRACT_VERSION,
        "policy": type(policy).__name__,
        "architecture": policy.architecture(),
        "reads": policy.kind,
        "inputs": [_told(array, MEANINGS.get(array.name)) for array in graph.inputs()],
        "outputs": [_told(array, _meaning(policy, array.name)) for array in graph.outputs()],
        "free_axes": list(free_axes(graph.inputs())),
        "fixed_axes": dict(graph.sizes),
        "memory": {key: _start(policy, key) for key in graph.memory_keys},
        "features": {part: _columns(getattr(spec, part)) for part in ("token", "joint", "trace")},
        "body": None if body is None else _body(*body, policy.aligned_slots),
        "bodies": {side: list(environment.get(side, ())) for side in ("seen", "unseen")},
        "environment": environment.get("config"),
        "sha256": saved.get("sha256"),
        "steps": saved.get("training", {}).get("steps"),
        "opset": opset,
        "versions": versions | {"python": platform.python_version()},
        "trained_with": saved.get("versions"),
        "check": {
            "against": "torch",
            "in": "onnxruntime, CPU",
            "tolerance": tolerance,
            "largest_difference": check.difference,
            "sizes": [size._asdict() for size in check.sizes],
            "steps": STEPS,
            "actions_compared": check.compared,
            "share_within_bounds": check.within,
        },
    }


def example_of(graph: ActingGraph, run: Run, observation: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Inputs and outputs to try a controller with, of an observation (1, ...) of an episode's start."""
    memory = graph.policy.initial_memory(1, observation["mask"].shape[1])
    inputs = {key: observation[key] for key in graph.keys}
    inputs |= {f"memory.{key}": value.numpy() for key, value in memory.items()}
    rounded = np.vectorize(lambda value: float(f"{value:.7g}"), otypes=[float])  # digits that float32 has
    parts = {"inputs": inputs, "outputs": run(inputs)}
    return {
        side: {k: rounded(values).tolist() for k, values in arrays.items()} for side, arrays in parts.items()
    }


def _told(array: Array, meaning: str | None) -> dict[str, Any]:
    told = {"name": array.name, "dtype": array.dtype, "shape": list(array.shape)}
    return told | ({"meaning": meaning} if meaning else {})


def _meaning(policy: Policy, name: str) -> str:
    several = isinstance(policy.discrete, list | tuple)
    if name == "choice":
        of = f" of each decision, whose choices are {policy.discrete}" if several else ""
        return f"number of the choice with the largest logit{of}"
    if name != "action":
        return "memory for the next step"
    if policy.discrete:
        return "logits of the choices" + (", those of each decision side by side" if several else "")
    if policy.kind == "limbs":
        control = "control = centre + half * action, within the actuator's range"
        return f"of each joint slot of each limb, {NOMINAL}; 0 where action_mask is 0; {control}"
    return f"of each actuator, {NOMINAL}; affine to its range: -1 its lowest, 1 its highest"


def _start(policy: Policy, key: str) -> dict[str, Any]:
    """With what value every number of a part of the memory begins an episode.

    Raises:
        ValueError: they begin with several.
    """
    values = policy.initial_memory(2, 3)[key].unique().tolist()
    if len(values) != 1:
        raise ValueError(f"memory {key} of {type(policy).__name__} begins with {values}, expected one number")
    return {"input": f"memory.{key}", "output": f"memory.{key}.next", "start": values[0]}


def _columns(features: Sequence[Feature]) -> list[dict[str, Any]]:
    """Each feature with its columns, first and behind the last."""
    ends = np.cumsum([feature.size for feature in features]).tolist()
    return [{"columns": [end - f.size, end], **vars(f)} for f, end in zip(features, ends, strict=True)]


def _body(body: Morphology, frame_skip: int, aligned: bool) -> dict[str, Any]:
    """Which limb, joint and actuator each slot is."""
    told, controls = describe(body, frame_skip), body.controls
    slots = body.aligned_slots if aligned else range(body.n_limbs)
    limbs = []
    for limb, row, slot in zip(body.limbs, told.limbs, slots, strict=True):
        joints = []
        for number, (place, joint) in enumerate(zip(limb.slots, row.joints, strict=True)):
            actuator = joint.actuator and {
                "name": joint.actuator.name,
                "kind": joint.actuator.kind,
                "centre": float(controls.center[place.actuator]),
                "half": float(controls.half[place.actuator]),
                "range": joint.actuator.control,
                "unit": joint.actuator.control_unit,
            }
            told_of_joint = {name: getattr(joint, name) for name in ("name", "kind", "limits", "unit")}
            joints.append({"slot": number, **told_of_joint, "actuator": actuator})
        limbs.append({"slot": int(slot), "name": row.name, "parent": row.parent or None, "joints": joints})
    seconds = told.timestep * frame_skip
    return {"name": body.name, "hash": body.hash, "step_seconds": seconds, "limbs": limbs}
