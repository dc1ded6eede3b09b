"""Numbers that a user has given."""

from __future__ import annotations

import math
from typing import Any

from .errors import UserError


def is_number(value: Any) -> bool:
    """Whether it is a finite number, which True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def whole_number(value: Any, name: str, minimum: int = 0) -> int:
    """A count, which may have been written as ``5e6``: Hydra gives that as a float.

    Args:
        value: An int, a float without a fraction, or a string of either.
        name: What the number is called, for the message.
        minimum: The smallest valid value.

    Raises:
        UserError: It is not a whole number, or below ``minimum``.
    """
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    if not is_number(number) or number != int(number) or number < minimum:
        raise UserError(f"{name} must be a whole number of {minimum} or more, got {value!r}")
    return int(number)


def check_share(value: Any, name: str) -> None:
    """Raises UserError: ``value`` is no number from 0 to 1; ``name`` is what it is called."""
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f"{name} is a share and must be from 0 to 1, got {value!r}")
