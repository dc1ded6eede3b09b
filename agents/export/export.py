"""What ``somite-export`` does: the acting policy of a saved run as a file that other programs run."""

from __future__ import annotations

import json
import logging
import math
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from ...envs.errors import UserError, check_installed, nearest
from ...envs.locomotion.backends import frame_skip_of
from ...envs.locomotion.bodies.morphology import Morphology
from ...envs.locomotion.pictures.describe import describe
from ...envs.tokens import CONTRACT_VERSION, Feature
from ..agent import Agent
from ..bundled import is_bundled
from ..evaluation.runs import changed_environment, task_of
from ..policies.base import Policy
from ..storage.atomic import replace_files
from ..storage.policy import load_policy
from ..storage.policy_json import installed_version, policy_folder_of
from .check import STEPS, Check, Run, check, random_observation
from .graph import ActingGraph, Array, Sizes, fixed_sizes, free_axes

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

OPSET, IR = 18, 8  # versions of ONNX's operations and of its files; runtimes have both since early 2023
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-5
PROPERTY = "somite"  # of the model's metadata, which holds the description as JSON
TRACED = Sizes(3, 5, 2)  # the example that is traced: what is free is longer than 1, and all is different
BODY_KEYS = ("mask", "parent", "joint_mask", "action_mask")  # parts of an observation that a body tells
FORMAT_VERSION = 1  # raised when a key changes its meaning
NOMINAL = "nominal, in [-1, 1], without noise"
VERSIONS = ("somite", "torch", *PACKAGES)

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


def export(config: DictConfig) -> Path:
    """Exports what ``conf/export.yaml`` describes, logs what was written and returns the file.

    Raises:
        UserError: a run, body or file that is not there or invalid, packages that are missing, or a graph
            that does not act as the policy does.
    """
    check_installed("format=onnx", {name: name for name in PACKAGES}, "export")
    folder = policy_folder_of(str(config.run))
    file, body = _output(config.output, folder), None if config.body is None else str(config.body)
    agent = load_policy(folder)
    if body is not None:
        allowed = OmegaConf.to_container(config.env, resolve=True)
        agent.environment["config"] = changed_environment(agent, allowed)
    found = export_policy(agent, file, body, config.tolerance)
    sizes = ", ".join(f"{size.batch} x {size.tokens}" for size in found.sizes)
    said = "largest difference from torch: %.1e (tolerance %.1e), over %d actions of %s"
    log.info(said, found.difference, config.tolerance, found.compared, sizes)
    log.info("written to %s, and what it is to %s", file, described(file))
    return file


def export_policy(
    agent: Agent, file: str | Path, body: str | None = None, tolerance: float = TOLERANCE
) -> Check:
    """Writes the acting policy of an agent as an ONNX file, and what it is to ``<file>.json`` beside it.

    The graph is compared with ``Agent.act`` in onnxruntime before anything is written; files that are there
    are replaced only then.

    Args:
        agent: on the CPU.
        file: which ends in ``.onnx``; its folder is made.
        body: name of the only body that it is for: what it tells is then no input; None: any.
        tolerance: largest difference that is allowed, absolute below 1 and relative above.

    Raises:
        UserError: a body that is not there, or a graph that does not act as the policy does.
    """
    policy, name = agent.policy, type(agent.policy).__name__
    morphology, start, constants = None, None, None
    if body is not None:
        *morphology, start = _of_body(agent, body)
        constants = {key: torch.tensor(start[key]) for key in BODY_KEYS}
    sizes = TRACED._replace(**fixed_sizes(policy, constants))
    example = random_observation(policy, sizes, np.random.default_rng(0), constants)
    graph = ActingGraph(policy, {key: torch.from_numpy(value) for key, value in example.items()}, constants)
    free = ", ".join(free_axes(graph.inputs()))
    if graph.sizes:
        fixed = ", ".join(f"{axis}={size}" for axis, size in graph.sizes.items())
        why = f"those of {body}" if body else f"the slots of {name} have fixed meanings"
        log.warning("%s: any size of %s, fixed %s: %s", name, free, fixed, why)
    else:
        log.info("%s: any size of %s", name, free)
    model = to_onnx(graph, graph.arrays(example, policy.initial_memory(sizes.batch, sizes.tokens)))
    run = runner(model.SerializeToString())
    found = check(policy, graph, run)
    if not found.compared or found.difference > tolerance:
        more = "" if math.isinf(found.difference) else "; tolerance=<number> allows more"
        raise UserError(
            f"the exported {name} differs from torch by {found.difference:.1e}, allowed is "
            f"{tolerance:.1e}: no file was written{more}"
        )
    about = description(agent, graph, found, tolerance, morphology)
    if start is not None:
        about["example"] = example_of(graph, run, start)
    text = json.dumps(about, indent=1)
    model.metadata_props.add(key=PROPERTY, value=text)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    replace_files({described(file): (text + "\n").encode(), Path(file): model.SerializeToString()})
    return found


def described(file: str | Path) -> Path:
    """Where the description of an exported file is: another name than that of ``policy.json`` beside it."""
    return Path(f"{file}.json")


def _output(given: str | None, folder: Path) -> Path:
    """Where to: beside the policy's folder (of a bundled agent, here), after which it is called."""
    if given is None:
        return (Path() if is_bundled(folder) else folder.parent) / f"{folder.name}.onnx"
    file = Path(str(given))
    if file.suffix != ".onnx":
        raise UserError(f"output={given} must be a file that ends in .onnx, such as {file.stem}.onnx")
    for path in (file, described(file)):
        if path.is_dir():
            raise UserError(f"output={given}: {path} is a folder; give the name of a file")
    return file


def _of_body(agent: Agent, name: str) -> tuple[Morphology, int, dict[str, np.ndarray]]:
    """The body of that name, substeps of a step, and what it observes at the start, each part (1, ...)."""
    policy = agent.policy
    if policy.kind != "limbs":
        raise UserError(
            f"body={name}: {type(policy).__name__} reads {policy.kind}, which no body tells; leave body out"
        )
    task = task_of(agent)
    chosen = task.choose(name)
    if len(chosen) != 1:
        raise UserError(f"body={name} means {len(chosen)} bodies; {nearest(name, chosen)}")
    body, calm = task.morphology(chosen[0]), task.for_evaluation()
    with closing(calm.make_env(chosen, 1, aligned=policy.aligned_slots, threads=1)) as env:
        # Copies: the tensors are the simulation's own.
        start = {key: value.numpy().copy() for key, value in env.reset(0).items()}
    return body, task.set_of(body).frame_skip or frame_skip_of(body.model), start


def to_onnx(graph: ActingGraph, example: tuple[torch.Tensor, ...]) -> ModelProto:
    """The graph as an ONNX model with named inputs, outputs and axes, and nothing of this machine in it.

    Of the example, arguments of `forward`, every free axis is longer than 1.
    """
    inputs, outputs = graph.inputs(), graph.outputs()
    free = tuple({i: axis for i, axis in enumerate(a.shape) if isinstance(axis, str)} for a in inputs)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            example,
            input_names=[array.name for array in inputs],
            output_names=[array.name for array in outputs],
            dynamic_shapes=(free,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    model.producer_name, model.producer_version = "somite", installed_version("somite") or ""
    model.ir_version = IR
    # The shapes that are declared over those that were traced; the check that follows tries them.
    declared = {array.name: array.shape for array in (*inputs, *outputs)}
    for value in (*model.graph.input, *model.graph.output):
        for axis, size in zip(value.type.tensor_type.shape.dim, declared[value.name], strict=True):
            axis.Clear()
            if isinstance(size, str):
                axis.dim_param = size
            else:
                axis.dim_value = size
    del model.graph.value_info[:]  # of what lies between, with names of axes of the tracer
    _clear_traces(model)
    return model


def _clear_traces(message: Any) -> None:
    """Removes what the exporter tells of the code it read, with paths of files, from all parts of a model."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _clear_traces(part)


def runner(model: bytes) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """The model in onnxruntime on the CPU: from inputs to outputs, by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings, which are of what is no concern of ours, such as packages; errors come as ever."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def description(
    agent: Agent,
    graph: ActingGraph,
    found: Check,
    tolerance: float,
    body: tuple[Morphology, int] | None,
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
        "memory": {key: _beginning(policy, key) for key in graph.memory_keys},
        "features": {part: _columns(getattr(spec, part)) for part in ("token", "joint", "trace")},
        "body": None if body is None else _slots(*body, policy.aligned_slots),
        "bodies": {side: list(environment.get(side, ())) for side in ("seen", "unseen")},
        "environment": environment.get("config"),
        "sha256": saved.get("sha256"),
        "steps": saved.get("training", {}).get("steps"),
        "opset": OPSET,
        "versions": versions | {"python": platform.python_version()},
        "trained_with": saved.get("versions"),
        "check": {
            "against": "torch",
            "in": "onnxruntime, CPU",
            "tolerance": tolerance,
            "largest_difference": found.difference,
            "sizes": [size._asdict() for size in found.sizes],
            "steps": STEPS,
            "actions_compared": found.compared,
            "share_within_bounds": found.within,
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


def _beginning(policy: Policy, key: str) -> dict[str, Any]:
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


def _slots(body: Morphology, frame_skip: int, aligned: bool) -> dict[str, Any]:
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
