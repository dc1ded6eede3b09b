"""What ends a run that cannot go on, and what it leaves behind: ``diagnosis/<step>/``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..storage.atomic import replace_folder
from ..storage.paths import command
from ..storage.run_folder import list_checkpoints

if TYPE_CHECKING:  # torch takes seconds, and every command line knows RunFault
    import numpy as np
    from torch import Tensor, nn

log = logging.getLogger(__name__)

LARGEST = 256 * 2**20
"""Bytes of tensors that are written; what is beyond is described only."""


class RunFault(RuntimeError):
    """Training cannot go on, though nothing is wrong with what the user asked for."""


class NotFinite(FloatingPointError):
    """A gradient or a parameter, told in words, is not finite after so many environment steps."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} is not finite at step {step:,}")
        self.what, self.step = what, step


def refuse_not_finite(tensors: Mapping[str, Tensor], what: str, step: int) -> None:
    """Raises NotFinite: one of the tensors, which are ``what`` of these names, has such a number."""
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        more = f" (and of {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise NotFinite(f"the {what} {bad[0]}{more}", step)


def diagnose(
    error: NotFinite, run: Path, module: nn.Module, learnt_from: Mapping[str, np.ndarray | Tensor]
) -> RunFault:
    """Writes what led to numbers that are not finite into a run's folder; returns what to raise."""
    import safetensors.torch
    import torch

    tensors = {f"parameter/{name}": p.detach() for name, p in module.named_parameters()}
    tensors |= {f"gradient/{name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    tensors |= {f"rollout/{name}": torch.as_tensor(value) for name, value in learnt_from.items()}
    folder = run / "diagnosis" / str(error.step)
    described = {name: _described(value) for name, value in tensors.items()}
    kept, size = {}, 0
    for name, value in tensors.items():
        size += value.nbytes
        if size <= LARGEST:
            kept[name] = value.cpu().contiguous().clone()
    try:
        with replace_folder(folder) as writing:
            text = json.dumps({"what": str(error), "step": error.step, "tensors": described}, indent=2)
            (writing / "what.json").write_text(text + "\n", encoding="utf-8")
            (writing / "tensors.safetensors").write_bytes(safetensors.torch.save(kept))
    except OSError as failure:  # the fault matters more than that it could not be written down
        log.error("%s could not be written: %s", folder, failure)
    bad = [name for name, found in described.items() if found["not_finite"]]
    checkpoints = list_checkpoints(run)
    last = f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
    return RunFault(
        f"{error}; nothing of this update was saved. Not finite are {', '.join(bad[:4]) or 'none now'}"
        f"{' and more' if len(bad) > 4 else ''}: see {folder}. {last}; go on from there with other settings, "
        f"such as a smaller learning rate: {command('somite-train', resume=run)} algorithm.learning_rate=..."
    )


def _described(value: Tensor) -> dict[str, object]:
    finite = value[value.isfinite()]
    return {
        "shape": list(value.shape),
        "not_finite": value.numel() - finite.numel(),
        "smallest": float(finite.min()) if finite.numel() else None,
        "largest": float(finite.max()) if finite.numel() else None,
    }
