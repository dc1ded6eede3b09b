"""Numbers that are not finite, noticed before they spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class NotFinite(FloatingPointError):
    """A loss, a gradient or a parameter is not a finite number.

    Args:
        what: the tensor, in words.
        step: environment steps made.
    """

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} is not finite at step {step:,}")
        self.what, self.step = what, step


class GradientGuard:
    """Looks at all gradients before each step of an optimiser; a bad one is never stepped along.

    Looking costs one reduction of each tensor and one transfer of a number.

    Args:
        module: whose parameters the optimiser changes; names the tensors.
        optimizer: guarded from now on.

    Attributes:
        step: environment steps made, for messages; set by the learner.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._module, self.step = module, 0
        optimizer.register_step_pre_hook(self._look)

    def _look(self, *_: Any) -> None:
        gradients = [p.grad for p in self._module.parameters() if p.grad is not None]
        if gradients and not torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum()):
            named = {name: p.grad for name, p in self._module.named_parameters() if p.grad is not None}
            # Norms overflow before their numbers do.
            bad = [name for name, gradient in named.items() if not torch.isfinite(gradient).all()]
            if bad:
                more = f" (and of {len(bad) - 1} more)" if len(bad) > 1 else ""
                raise NotFinite(f"the gradient of {bad[0]}{more}", self.step)

    def check_parameters(self) -> None:
        """Raises NotFinite: a parameter is not finite."""
        for name, parameter in self._module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise NotFinite(f"the parameter {name}", self.step)


def describe_tensors(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Shape, range and number of values that are not finite, of each tensor."""
    return {name: _described(value) for name, value in tensors.items()}


def _described(value: Tensor) -> dict[str, Any]:
    finite = value[torch.isfinite(value)]
    return {
        "shape": list(value.shape),
        "not_finite": value.numel() - finite.numel(),
        "smallest": float(finite.min()) if finite.numel() else None,
        "largest": float(finite.max()) if finite.numel() else None,
    }
