"""Parameters as one row of numbers, as they are published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...envs.errors import UserError
from .base import Policy


def set_flat(policy: Policy, values: Sequence[float]) -> None:
    """Give a policy its acting parameters, one after the other in the order of `acting_parameters`.

    Raises:
        UserError: as many numbers as do not fit this architecture.
    """
    parameters = list(policy.acting_parameters().values())
    sizes = [parameter.numel() for parameter in parameters]
    flat = torch.as_tensor(np.asarray(values, np.float32))
    if flat.shape != (sum(sizes),):
        name = type(policy).__name__
        raise UserError(f"{tuple(flat.shape)} parameters given; this {name} has {sum(sizes)}")
    with torch.no_grad():
        for parameter, part in zip(parameters, flat.split(sizes), strict=True):
            parameter.copy_(part.view_as(parameter))
