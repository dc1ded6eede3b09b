"""Sweeps that other programs launch: what is composed for Slurm, and a sweep that is run without it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from somite.scripts import train

pytestmark = pytest.mark.slow  # each process imports torch
needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins") is None
    or importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None,
    reason="needs Hydra's launcher: pip install '.[submitit]'",
)
RUN = (
    "env=cartpole_swingup", "env.max_episode_steps=20", "agent=attention_neuron", "algorithm=cma_es",
    "algorithm.generations=2", "algorithm.population=4", "algorithm.episodes=2", "algorithm.validate_every=0",
    "threads=1", "device=cpu",
)  # fmt: skip


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, train.__file__, *arguments, *RUN]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@needs_submitit
def test_what_slurm_is_told(tmp_path: Path) -> None:
    """As `docs/scaling.md` has it; no Slurm is needed to compose it."""
    done = run(
        tmp_path, "--cfg", "hydra", "-p", "hydra.launcher",
        "hydra/launcher=submitit_slurm", "hydra.launcher.partition=long",
        "hydra.launcher.timeout_min=240", "hydra.launcher.cpus_per_task=4",
        "hydra.launcher.signal_delay_s=300",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in (
        "_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
        "partition: long", "timeout_min: 240", "cpus_per_task: 4", "signal_delay_s: 300",
    ):  # fmt: skip
        assert line in done.stdout, line


@needs_submitit
def test_a_sweep_of_submitits_own_processes_gives_the_runs_of_this_one(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "hydra/launcher=submitit_local", "seed=0,1")
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "runs").glob("*-cartpole_swingup-*/policy/policy.safetensors"))
    assert len(found) == 2
    for seed, policy in enumerate(found):
        alone = tmp_path / f"alone_{seed}"
        done = run(tmp_path, f"seed={seed}", f"hydra.run.dir={alone}")
        assert done.returncode == 0, done.stderr
        assert (alone / "policy" / "policy.safetensors").read_bytes() == policy.read_bytes()
    assert found[0].read_bytes() != found[1].read_bytes()


def test_a_launcher_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "hydra/launcher=submitit_lokal", "seed=0,1")
    assert done.returncode == 2 and "hydra/launcher has no choice 'submitit_lokal'" in done.stderr
