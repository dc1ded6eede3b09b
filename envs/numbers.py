"""Numbers that a user has given."""

from __future__ import annotations

import math
from typing import Any

from .errors import UserError


def is_number(value: Any) -> bool:
    """Whether it is a finite number, which True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def whole_number(name: str, value: Any, least: int) -> int:
    """The value of the key ``name``. Raises UserError if it is no whole number of ``least`` or more."""
    if not is_number(value) or value != int(value) or value < least:
        raise UserError(f"{name} must be a whole number of {least} or more, got {value!r}")
    return int(value)
