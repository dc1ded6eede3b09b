"""Cloning that is stopped and gone on with learns what it would have learnt otherwise, to the last bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.agents.exact import differences

from .test_clone_run import clone_bodies, make_clone, teacher, teachers  # noqa: F401 - fixtures

DISTURBED = ("env.senses.shuffle=7", "env.senses.noise_channels=2", "env.senses.missing=0.2")
CASES = {
    "without memory": (*DISTURBED, "agent=sensor_transformer", "env.senses.traces=[5,20]"),
    "with memory": (*DISTURBED, "agent=deep_set", "agent.recurrent=true", "algorithm.sequence_length=8"),
    "bodies": (),
}
COMMON = ("algorithm.handover_steps=3000", "algorithm.noise=0.1", "algorithm.total_steps=4096")


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_stopped_twice_is_the_run_that_was_not(
    case: str,
    tmp_path: Path,
    teacher: Path,  # noqa: F811
    teachers: Path,  # noqa: F811
) -> None:
    make, whom = (clone_bodies, teachers) if case == "bodies" else (make_clone, teacher)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    make(whole, whom, *COMMON, *CASES[case]).learn()
    for rollouts in (2, 1):
        run = make(stopped, whom, *COMMON, *CASES[case])
        begin, left = run.learner.env.begin, [16 * rollouts + 5]

        def counted(actions, begin=begin, left=left):
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(signal.SIGTERM)
            begin(actions)

        run.learner.env.begin = counted
        with pytest.raises(SystemExit) as told:
            run.learn()
        assert told.value.code == 128 + signal.SIGTERM
    last = make(stopped, whom, *COMMON, *CASES[case])
    assert last.steps == 3 * 1024 and not last.changes.notes
    last.learn()
    assert differences(whole, stopped) == []
