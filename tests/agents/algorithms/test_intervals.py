"""What happens once in so many steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from somite.agents.training.loop import Interval


@given(
    every=st.integers(1, 50),
    before=st.integers(0, 200),
    strides=st.lists(st.integers(1, 70), min_size=1, max_size=30),
)
def test_it_is_reached_once_for_each_multiple_that_a_stride_passes(
    every: int, before: int, strides: list[int]
) -> None:
    interval, done = Interval(every, before), before
    for stride in strides:
        passes = (done + stride) // every > done // every
        done += stride
        assert interval.reached(done) == passes
        assert not interval.reached(done), "not again before the next one"


def test_zero_means_never() -> None:
    interval = Interval(0, 0)
    assert not any(interval.reached(done) for done in (0, 1, 10**9))
