"""An acting graph as an ONNX model."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...envs.errors import UserError
from ..storage.policy_json import installed_version
from .graph import ActingGraph, axis_names

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR = 18, 8
"""Versions of ONNX's operations and of its files; runtimes have both since early 2023."""

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CHATTY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
"""Loggers of warnings about what is no concern of ours, such as packages that are not installed."""


def check_packages() -> None:
    """Raises UserError: packages that the export needs are not installed."""
    missing = []
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            missing.append(name)
    if missing:
        raise UserError(f"format=onnx needs {', '.join(missing)}: pip install 'somite[export]'")


def to_onnx(graph: ActingGraph, example: tuple[torch.Tensor, ...]) -> ModelProto:
    """The graph as an ONNX model with named inputs, outputs and axes, and nothing of this machine in it.

    Args:
        graph: to be translated.
        example: arguments of its `forward`, every free axis longer than 1.
    """
    inputs, outputs = graph.inputs(), graph.outputs()
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            example,
            input_names=[array.name for array in inputs],
            output_names=[array.name for array in outputs],
            dynamic_shapes=(axis_names(inputs),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    model.producer_name, model.producer_version = "somite", installed_version("somite") or ""
    model.ir_version = IR
    _name_axes(model, graph)
    _without_traces(model)
    return model


def _name_axes(model: ModelProto, graph: ActingGraph) -> None:
    """Writes the shapes that are declared over those that were traced; the check that follows tries them."""
    declared = {array.name: array.shape for array in (*graph.inputs(), *graph.outputs())}
    for value in (*model.graph.input, *model.graph.output):
        for axis, size in zip(value.type.tensor_type.shape.dim, declared[value.name], strict=True):
            axis.Clear()
            if isinstance(size, str):
                axis.dim_param = size
            else:
                axis.dim_value = size
    del model.graph.value_info[:]  # of what lies between, with names of axes of the tracer


def _without_traces(model: ModelProto) -> None:
    """Removes what the exporter tells of the code it read, with paths of files, from all parts of a model."""
    for part in (model, model.graph, *_parts(model.graph), *model.functions):
        part.doc_string = ""
        if "metadata_props" in part.DESCRIPTOR.fields_by_name:
            del part.metadata_props[:]


def _parts(graph: Any) -> Iterator[Any]:
    """Nodes, weights and declarations of a graph, and those of the graphs within (loops)."""
    yield from (*graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for within in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield within
                yield from _parts(within)


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
    """Without warnings of the exporter; errors come as ever."""
    loggers = [logging.getLogger(name) for name in CHATTY]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
