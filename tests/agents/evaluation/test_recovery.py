"""How long a reward takes to come back."""

from __future__ import annotations

import numpy as np
import pytest

from somite.agents.evaluation.episodes import BEFORE, NEVER, WINDOW, recovery_steps

AT = 200


def rewards(*, down: int, after: float = 1.0, level: float = 1.0, steps: int = 400) -> np.ndarray:
    """One episode of ``level`` that is 0 for ``down`` steps from ``AT`` on, and then ``after``."""
    values = np.full((1, steps), level)
    values[0, AT : AT + down] = 0.0
    values[0, AT + down :] = after
    return values


def steps_of(values: np.ndarray, length: int | None = None, until: int = 400) -> float:
    return float(recovery_steps(values, np.array([length or values.shape[1]]), AT, until)[0])


def test_nothing_lost_is_no_time() -> None:
    assert steps_of(rewards(down=0)) == 0


def test_recovery_is_when_the_next_steps_are_as_before() -> None:
    # A window may hold a tenth less, two of 25 steps.
    assert steps_of(rewards(down=60)) == 60 - int(0.1 * WINDOW)


def test_what_stays_down_never_recovers() -> None:
    assert steps_of(rewards(down=0, after=0.5)) == NEVER


def test_a_recovery_after_the_next_disturbance_does_not_count() -> None:
    assert steps_of(rewards(down=60), until=AT + 2 * WINDOW) == NEVER


def test_falling_is_no_recovery() -> None:
    values = rewards(down=30)
    values[0, AT + 40 :] = 0.0
    assert steps_of(values, length=AT + 40) == NEVER


def test_an_episode_that_ended_before_does_not_count() -> None:
    values = rewards(down=0)
    values[0, AT - 10 :] = 0.0
    assert np.isnan(steps_of(values, length=AT - 10))


def test_costs_come_back_as_well() -> None:
    assert steps_of(rewards(down=0, level=-1.0, after=-1.05)) == 0
    assert steps_of(rewards(down=0, level=-1.0, after=-1.5)) == NEVER


@pytest.mark.parametrize(("at", "until"), [(BEFORE - 1, 400), (AT, AT + WINDOW)])
def test_without_a_before_or_an_after_there_is_nothing_to_say(at: int, until: int) -> None:
    assert np.isnan(recovery_steps(rewards(down=0), np.array([400]), at, until)).all()
