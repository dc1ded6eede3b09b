"""Counts as people write them."""

from __future__ import annotations

import math
from typing import Any

from ..envs.errors import UserError


def whole_number(value: Any, name: str, minimum: int = 0) -> int:
    """Reads a count that may have been written as ``5e6``, which Hydra gives as a float.

    Args:
        value: An int, a float without a fraction, or a string of either.
        name: What the number is called, for the message.
        minimum: The smallest valid value.

    Returns:
        The value as an int.

    Raises:
        UserError: If it is not a whole number, or below ``minimum``.
    """
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    if isinstance(number, bool) or not isinstance(number, (int, float)) or number != number // 1:
        raise UserError(f"{name} must be a whole number such as 5000 or 5e6, not {value!r}.")
    if number < minimum:
        raise UserError(f"{name} must be at least {minimum}, not {value!r}.")
    return int(number)
