"""What ``somite-export`` does: the acting policy of a saved run as a file that other programs run."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from ...envs.errors import UserError, nearest
from ...envs.locomotion.simulation import frame_skip_of
from ...envs.numbers import is_number
from ..agent import Agent
from ..bundled import is_bundled
from ..evaluation.runs import changed_environment, task_of
from ..storage.policy import load_policy
from ..storage.policy_json import policy_folder_of
from .check import Check, check, random_observation
from .description import description, example_of
from .graph import ActingGraph, Sizes, fixed_sizes, free_axes
from .onnx_graph import OPSET, check_packages, runner, to_onnx

log = logging.getLogger(__name__)

FORMATS = ("onnx",)
TOLERANCE = 1e-5
PROPERTY = "somite"
"""Of the model's metadata, which holds the description as JSON."""

TRACED = Sizes(3, 5, 2)
"""Of the example that is traced: what is free is longer than 1, and all of it is different."""

BODY_KEYS = ("mask", "parent", "joint_mask", "action_mask")
"""Parts of an observation that a body's name tells."""


def export(config: DictConfig) -> Path:
    """Exports what ``conf/export.yaml`` describes and tells what was written.

    Returns:
        The file.

    Raises:
        UserError: a run, format, body or file that is not there or cannot be meant, packages that are
            missing, or a graph that does not act as the policy does.
    """
    if config.format not in FORMATS:
        raise UserError(f"format={config.format} is not known; {nearest(str(config.format), FORMATS)}")
    if not is_number(config.tolerance) or not 0 < config.tolerance < math.inf:
        raise UserError(f"tolerance must be a number above 0, got {config.tolerance!r}")
    check_packages()
    folder = policy_folder_of(str(config.run))
    file = _output(config.output, folder)
    agent = load_policy(folder)
    if config.body is not None:
        allowed = OmegaConf.to_container(config.env, resolve=True)
        agent.environment["config"] = changed_environment(agent, allowed)
    found = export_policy(agent, file, None if config.body is None else str(config.body), config.tolerance)
    log.info(
        "largest difference from torch: %.1e (tolerance %.1e), over %d actions of %s",
        found.difference,
        config.tolerance,
        found.compared,
        ", ".join(f"{size.batch} x {size.tokens}" for size in found.sizes),
    )
    log.info("written to %s, and what it is to %s", file, described(file))
    return file


def export_policy(
    agent: Agent, file: str | Path, body: str | None = None, tolerance: float = TOLERANCE
) -> Check:
    """Writes the acting policy of an agent as an ONNX file, and what it is to ``<file>.json`` beside it.

    The graph is compared with ``Agent.act`` in onnxruntime before anything is written; files that are there
    are replaced only then.

    Args:
        agent: with the policy, on the CPU.
        file: which ends in ``.onnx``; its folder is made.
        body: exports for this body alone, one of those that the policy was trained with or held out: what
            its name tells is then no input.
        tolerance: largest difference that is allowed, absolute below 1 and relative above.

    Returns:
        How far the graph is from the policy.

    Raises:
        UserError: a body that is not there, or a graph that does not act as the policy does.
    """
    policy, name = agent.policy, type(agent.policy).__name__
    morphology, start, constants = None, None, None
    if body is not None:
        morphology = _body(agent, body)
        start = _start(agent, morphology[0].name)
        constants = {key: torch.tensor(start[key]) for key in BODY_KEYS}
    sizes = TRACED._replace(**fixed_sizes(policy, constants))
    example = random_observation(policy, sizes, np.random.default_rng(0), constants)
    graph = ActingGraph(policy, {key: torch.from_numpy(value) for key, value in example.items()}, constants)
    _tell(graph, name, body)
    model = to_onnx(graph, graph.arrays(example, policy.initial_memory(sizes.batch, sizes.tokens)))
    run = runner(model.SerializeToString())
    found = check(policy, graph, run)
    if not found.compared or not found.difference <= tolerance:  # not a number is no difference allowed
        more = "" if math.isnan(found.difference) else "; tolerance=<number> allows more"
        raise UserError(
            f"the exported {name} differs from torch by {found.difference:.1e}, allowed is "
            f"{tolerance:.1e}: no file was written{more}"
        )
    about = description(agent, graph, found, tolerance, morphology, OPSET)
    if start is not None:
        about["example"] = example_of(graph, run, start)
    text = json.dumps(about, indent=1)
    model.metadata_props.add(key=PROPERTY, value=text)
    write_together({described(file): (text + "\n").encode(), Path(file): model.SerializeToString()})
    return found


def described(file: str | Path) -> Path:
    """Where the description of an exported file is: another name than that of ``policy.json`` beside it."""
    return Path(f"{file}.json")


def write_together(contents: dict[Path, bytes]) -> None:
    """Writes files, each of which holds the old or the new content at every moment, the last one last.

    Args:
        contents: of each file; folders are made.
    """
    written: list[tuple[str, Path]] = []
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".writing", dir=path.parent)
            written.append((beside, path))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o666 & ~_umask())  # mkstemp makes private files
        for beside, path in written:
            os.replace(beside, path)
    finally:
        for beside, _ in written:
            Path(beside).unlink(missing_ok=True)


def _umask() -> int:
    # Reading the mask is only possible by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _output(given: str | None, folder: Path) -> Path:
    """Where to: beside the policy's folder (of a bundled agent, here), after which it is called."""
    if given is None:
        return (Path() if is_bundled(folder) else folder.parent) / f"{folder.name}.onnx"
    file = Path(str(given))
    if file.suffix != ".onnx":
        raise UserError(f"output={given} is to be a file that ends in .onnx, such as {file.stem}.onnx")
    for path in (file, described(file)):
        if path.is_dir():
            raise UserError(f"output={given}: {path} is a folder; give the name of a file")
    return file


def _body(agent: Agent, name: str) -> tuple[Any, int]:
    """The body of that name and the substeps of a step."""
    if agent.policy.kind != "limbs":
        raise UserError(
            f"body={name}: {type(agent.policy).__name__} reads {agent.policy.kind}, which no body tells; "
            "leave body out"
        )
    bodies = task_of(agent)
    chosen = bodies.choose(name)
    if len(chosen) != 1:
        raise UserError(f"body={name} means {len(chosen)} bodies; {nearest(name, chosen)}")
    morphology = bodies.morphology(chosen[0])
    return morphology, bodies.frame_skip or frame_skip_of(morphology.model)


def _start(agent: Agent, name: str) -> dict[str, np.ndarray]:
    """What a body observes at the start of an episode, each part (1, ...)."""
    bodies = task_of(agent).for_evaluation()
    env = bodies.make_env([name], 1, aligned=agent.policy.aligned_slots, threads=1)
    with closing(env):
        observation = env.reset(0)
        return {key: np.array(value) for key, value in observation.items()}  # those are the simulation's own


def _tell(graph: ActingGraph, name: str, body: str | None) -> None:
    """Logs which axes are free and which are not."""
    free = ", ".join(free_axes(graph.inputs()))
    if not graph.sizes:
        log.info("%s: any size of %s", name, free)
        return
    fixed = ", ".join(f"{axis}={size}" for axis, size in graph.sizes.items())
    why = f"those of {body}" if body else f"the slots of {name} have fixed meanings"
    log.warning("%s: any size of %s, fixed %s: %s", name, free, fixed, why)
