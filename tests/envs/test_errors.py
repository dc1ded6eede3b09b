"""What is said of wrong input stays readable, whatever came."""

from __future__ import annotations

import pytest

from somite.envs.errors import LONGEST_MESSAGE, UserError
from somite.envs.locomotion import LocomotionTask


def test_a_message_is_cut_where_what_came_is_long():
    with pytest.raises(UserError, match="env.task.direction must be .*, got .*\\.\\.\\.$") as error:
        LocomotionTask(direction=[1.0] * 100_000)
    assert len(str(error.value)) <= 400
    assert len(str(UserError("long" * LONGEST_MESSAGE))) <= LONGEST_MESSAGE + 3
    assert str(UserError("short")) == "short"
