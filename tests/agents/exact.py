"""Runs that are compared to the last bit."""

from __future__ import annotations

import math
from pathlib import Path

import safetensors.torch
import torch

from .runs import read_metrics


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    """Of the run's last policy, the normaliser's buffers among them."""
    return safetensors.torch.load_file(folder / "policy" / "policy.safetensors")


def records(folder: Path) -> list[dict[str, float]]:
    """Rows of ``metrics.csv`` without what depends on the clock."""
    return [
        {name: float(value) for name, value in row.items() if value and not name.startswith("time/")}
        for row in read_metrics(folder)
    ]


def differences(one: Path, other: Path) -> list[str]:
    """Names of parameters and scalars in which two runs differ."""
    first, second = parameters(one), parameters(other)
    found = [name for name in {**first, **second} if not _same(first.get(name), second.get(name))]
    rows, others = records(one), records(other)
    if len(rows) != len(others):
        found.append(f"rows: {[r['step'] for r in rows]}, {[r['step'] for r in others]}")
    for row, other_row in zip(rows, others, strict=False):
        for name in {**row, **other_row}:
            a, b = row.get(name, math.nan), other_row.get(name, math.nan)
            if a != b:
                found.append(f"{name} at {row['step']:.0f}: {a} and {b}")
    return found


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)
