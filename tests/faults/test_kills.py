"""SIGKILL at random moments, again and again in the same folders: what was saved always loads and goes on.

Fifty kills in five runs: while something is being saved (the disk is made slow, and the kill waits for a
folder that is half written), at a random time of learning, and before the run has begun. ``-s`` prints the
figures.
"""

from __future__ import annotations

import csv
import random
import signal
import time
from pathlib import Path

import pytest

from somite.agents import load_policy
from somite.agents.storage.run_folder import CHECKPOINTS, list_checkpoints, step_of
from somite.agents.storage.training_state import find_fault, read_facts, read_training_state

from .processes import LONG, ROLLOUT, TINY, Nursery, Started, only_run

KILLS = 10
SLOW = {"name": "slow_disk", "seconds": 0.02}


def half_written(folder: Path) -> bool:
    """Whether something of a run is being saved now."""
    return any(folder.glob("runs/*/.*.writing")) or any(folder.glob(f"runs/*/{CHECKPOINTS}/.*"))


def kill_somewhere(started: Started, folder: Path, chance: random.Random) -> str:
    """Kills a run; returns where: before it had begun, while learning, or while saving."""
    kind = chance.random()
    if kind < 0.45:
        started.until(lambda: half_written(folder))
        time.sleep(chance.uniform(0.0, 0.1))
    elif kind < 0.9:
        started.until(lambda: "run folder:" in started.printed)
        time.sleep(chance.uniform(0.0, 3.0))
    else:
        time.sleep(chance.uniform(0.1, 4.0))
    assert started.runs, started.printed
    started.kill()
    assert started.wait() == -signal.SIGKILL
    if half_written(folder):
        return "saving"
    return "learning" if "run folder:" in started.printed else "beginning"


def newest(run: Path) -> int:
    """The step of a run's last checkpoint, after every file of it has been checked; 0 if there is none."""
    checkpoints = list_checkpoints(run)
    for checkpoint in checkpoints:
        assert find_fault(checkpoint) is None
    if not checkpoints:
        return 0
    state = read_training_state(checkpoints[-1])
    assert state["steps"] == step_of(checkpoints[-1]) == read_facts(checkpoints[-1])["steps"]
    load_policy(checkpoints[-1] / "policy")
    if (run / "policy").is_dir():
        assert load_policy(run).description["training"]["steps"] <= step_of(checkpoints[-1])
    return step_of(checkpoints[-1])


def lost(run: Path) -> float:
    """How many intervals of saving lie between the last logged row and the last checkpoint."""
    path, checkpoints = run / "metrics.csv", list_checkpoints(run)
    if not path.exists():
        return 0.0
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["step"] and row["time/fps"]]
    evolved = bool(rows) and "cma/generation" in rows[0]
    made = max((float(row["cma/generation" if evolved else "step"]) for row in rows), default=0.0)
    kept = read_facts(checkpoints[-1])["done"] if checkpoints else 0
    return (made - kept) / (2 if evolved else ROLLOUT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "seed"), [("ppo", 0), ("cma_es", 1), ("clone", 2), ("ppo", 3), ("cma_es", 4)]
)
def test_a_run_that_is_killed_again_and_again(
    nursery: Nursery, tmp_path: Path, algorithm: str, seed: int
) -> None:
    chance, folder = random.Random(seed), tmp_path / "w"
    where, steps, losses = [], [0], []
    for _ in range(KILLS):
        begun = steps[-1] > 0
        arguments = (
            [f"resume={only_run(folder).name}"]
            if begun
            else [*TINY[algorithm], LONG[algorithm], f"seed={seed}"]
        )
        if not begun and (folder / "runs").is_dir() and any((folder / "runs").iterdir()):
            arguments.append(f"hydra.run.dir='{only_run(folder)}'")  # killed before its first checkpoint
        started = nursery.start(folder, *arguments, mishaps=[SLOW])
        where.append(kill_somewhere(started, folder, chance))
        if not (folder / "runs").is_dir() or not any((folder / "runs").iterdir()):
            continue
        run = only_run(folder)
        step = newest(run)
        assert step >= steps[-1], "nothing that had been saved is lost"
        losses.append(lost(run))
        steps.append(step)
    # One more time, to an end in order.
    run = only_run(folder)
    resumed = nursery.start(folder, f"resume={run.name}")
    resumed.until(lambda: newest_step(run) > steps[-1])
    resumed.send(signal.SIGTERM)
    assert resumed.wait() == 143, resumed.printed
    assert newest(run) > steps[-1] and not half_written(folder), "leftovers are put in order"
    assert max(losses) <= 1.0, "at most the last interval"
    print(f"\n{algorithm}: {KILLS} kills ({', '.join(where)}), steps {steps}, intervals lost {losses}")


def newest_step(run: Path) -> int:
    checkpoints = list_checkpoints(run)
    return step_of(checkpoints[-1]) if checkpoints else 0
