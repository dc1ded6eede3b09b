"""``diagnosis/<step>/``: what a run leaves behind when its numbers stop being finite."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ..algorithms.finite import NotFinite, describe_tensors
from ..storage.atomic import replace_folder
from ..storage.paths import command
from ..storage.run_folder import list_checkpoints
from .faults import RunFault

log = logging.getLogger(__name__)

LARGEST = 256 * 2**20
"""Bytes of tensors that are written; what is beyond is described only."""


def stop_for(
    error: NotFinite, run: Path, module: nn.Module, learnt_from: Mapping[str, np.ndarray | Tensor]
) -> RunFault:
    """Writes what led to numbers that are not finite; returns what to raise.

    Args:
        error: what was noticed.
        run: folder of the run.
        module: whose parameters and gradients are written.
        learnt_from: the rollout, by name.
    """
    tensors = {f"parameter/{name}": p.detach() for name, p in module.named_parameters()}
    tensors |= {f"gradient/{name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    tensors |= {f"rollout/{name}": torch.as_tensor(value) for name, value in learnt_from.items()}
    folder = run / "diagnosis" / str(error.step)
    said = {"what": str(error), "step": error.step, "tensors": describe_tensors(tensors)}
    kept, size = {}, 0
    for name, value in tensors.items():
        size += value.numel() * value.element_size()
        if size <= LARGEST:
            kept[name] = value.cpu().contiguous().clone()
    try:
        with replace_folder(folder) as writing:
            (writing / "what.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
            (writing / "tensors.safetensors").write_bytes(safetensors.torch.save(kept))
    except OSError as failure:  # the fault matters more than that it could not be written down
        log.error("%s could not be written: %s", folder, failure)
    bad = [name for name, found in said["tensors"].items() if found["not_finite"]]
    checkpoints = list_checkpoints(run)
    last = f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
    return RunFault(
        f"{error}; nothing of this update was saved. Not finite are {', '.join(bad[:4]) or 'none now'}"
        f"{' and more' if len(bad) > 4 else ''}: see {folder}. {last}; go on from there with other settings, "
        f"such as a smaller learning rate: {command('somite-train', resume=run)} algorithm.learning_rate=..."
    )
