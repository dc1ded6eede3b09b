"""Signals sent to runs in processes of their own, at moments that matter: it saves and says how to go on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from somite.agents import load_policy
from somite.agents.storage.run_folder import last_checkpoint, list_checkpoints, step_of
from somite.agents.storage.training_state import find_fault

from .processes import LONG, ROLLOUT, TINY, Nursery, only_run

FIRST = {
    "ppo": "somite.agents.algorithms.on_policy:OnPolicyLearner._step",
    "cma_es": "somite.agents.algorithms.evolution:EvolutionLearner._starts",
    "clone": "somite.agents.algorithms.on_policy:OnPolicyLearner._step",
}
"""Something of each algorithm that happens before its first rollout or generation is complete."""
SAVING = "somite.agents.training.loop:write_training_state"
SLOW = pytest.mark.slow
VALIDATING = "somite.agents.training.loop:Run.score"


def stopped(nursery: Nursery, folder: Path, algorithm: str, *mishaps: dict, code: int) -> Path:
    """The run that a signal stopped, after all that must be so."""
    started = nursery.start(folder, *TINY[algorithm], LONG[algorithm], mishaps=mishaps)
    assert started.wait() == code, started.printed
    assert "Traceback" not in started.printed
    run = only_run(folder)
    checkpoint = last_checkpoint(run)
    assert find_fault(checkpoint) is None
    name = signal.Signals(code - 128).name
    (line,) = [line for line in started.printed.splitlines() if "go on with" in line]
    assert f"stopped by {name} at step {step_of(checkpoint):,}; " in line and f"resume={run}" in line
    assert not list(run.rglob("*.writing")), "nothing half written"
    load_policy(run)
    return run


@pytest.mark.parametrize("algorithm", list(TINY))
def test_before_the_first_rollout_has_ended(nursery: Nursery, tmp_path: Path, algorithm: str) -> None:
    mishap = {"name": "send", "what": FIRST[algorithm], "number": signal.SIGTERM}
    run = stopped(nursery, tmp_path / "w", algorithm, mishap, code=143)
    assert step_of(last_checkpoint(run)) <= ROLLOUT


@pytest.mark.parametrize(
    "algorithm", ["ppo", *(pytest.param(name, marks=SLOW) for name in ("cma_es", "clone"))]
)
def test_while_saving(nursery: Nursery, tmp_path: Path, algorithm: str) -> None:
    mishap = {"name": "send", "what": SAVING, "number": signal.SIGTERM, "call": 2}
    run = stopped(nursery, tmp_path / "w", algorithm, mishap, code=143)
    assert len(list_checkpoints(run)) == 2, "the one that was being saved is there, too"


@pytest.mark.parametrize(
    "algorithm", ["cma_es", *(pytest.param(name, marks=SLOW) for name in ("ppo", "clone"))]
)
def test_while_validating(nursery: Nursery, tmp_path: Path, algorithm: str) -> None:
    mishap = {"name": "send", "what": VALIDATING, "number": signal.SIGINT}
    stopped(nursery, tmp_path / "w", algorithm, mishap, code=130)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGHUP, marks=SLOW), signal.SIGUSR1])
def test_a_terminal_that_closes_and_slurms_warning(nursery: Nursery, tmp_path: Path, number: int) -> None:
    mishap = {"name": "send", "what": FIRST["ppo"], "number": number, "call": 20}
    stopped(nursery, tmp_path / "w", "ppo", mishap, code=128 + number)


def test_a_second_sigterm_does_not_disturb_saving(nursery: Nursery, tmp_path: Path) -> None:
    mishap = {"name": "send", "what": SAVING, "number": signal.SIGTERM, "call": 2, "again_after": 1.2}
    stopped(nursery, tmp_path / "w", "ppo", mishap, code=143)


@SLOW
def test_a_second_ctrl_c_interrupts_and_leaves_what_was_saved(nursery: Nursery, tmp_path: Path) -> None:
    mishap = {"name": "send", "what": SAVING, "number": signal.SIGINT, "call": 2, "again_after": 1.2}
    started = nursery.start(tmp_path / "w", *TINY["ppo"], LONG["ppo"], mishaps=[mishap])
    assert started.wait() == 130, started.printed
    assert "Traceback" not in started.printed and "interrupted" in started.printed
    run = only_run(tmp_path / "w")
    (checkpoint,) = list_checkpoints(run)
    assert find_fault(checkpoint) is None and not list(run.rglob("*.writing"))


@SLOW
def test_nohup_stays_in_force(nursery: Nursery, tmp_path: Path) -> None:
    mishap = {"name": "send", "what": FIRST["ppo"], "number": signal.SIGHUP, "call": 3}
    started = nursery.start(
        tmp_path / "w",
        *TINY["ppo"],
        f"algorithm.total_steps={ROLLOUT}",
        mishaps=[mishap],
        ignored=[signal.SIGHUP],
    )
    assert started.wait() == 0, started.printed


def test_before_there_is_a_run_a_sentence_is_all(nursery: Nursery, tmp_path: Path) -> None:
    mishap = {
        "name": "send",
        "what": "somite.scripts.cli.command_line:check_names",
        "number": signal.SIGTERM,
    }
    started = nursery.start(tmp_path / "w", *TINY["ppo"], mishaps=[mishap])
    assert started.wait() == 143
    assert started.printed.startswith("stopped by SIGTERM before there was anything to save")
    assert len(started.printed.splitlines()) == 1 and not list((tmp_path / "w").iterdir())


@SLOW
@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("ppo", "total_steps=512"), ("cma_es", "generations=6"), ("clone", "total_steps=512")],
)
def test_a_stopped_run_goes_on(nursery: Nursery, tmp_path: Path, algorithm: str, key: str) -> None:
    folder = tmp_path / "w"
    mishap = {"name": "send", "what": SAVING, "number": signal.SIGTERM}
    run = stopped(nursery, folder, algorithm, mishap, code=143)
    resumed = nursery.start(folder, f"resume={run.name}", f"algorithm.{key}")
    assert resumed.wait() == 0, resumed.printed
    assert "going on from" in resumed.printed and "done; evaluate with" in resumed.printed
