"""Tiny runs of CMA-ES, and what they leave."""

from __future__ import annotations

from pathlib import Path

import torch

from somite.agents import load_policy
from somite.agents.evaluation.episodes import run_episodes
from somite.agents.training.loop import VALIDATION_SEED, Run

from .runs import compose, read_metrics

TINY = (
    "env=cartpole_swingup",
    "env.max_episode_steps=25",
    "agent=attention_neuron",
    "agent.rows=3",
    "agent.hidden=2",
    "agent.key_size=3",
    "algorithm=cma_es",
    "algorithm.generations=6",
    "algorithm.population=8",
    "algorithm.episodes=3",
    "algorithm.checkpoint_every=2",
    "algorithm.validate_every=2",
    "algorithm.validation_episodes=4",
    "device=cpu",
    "threads=1",
)


def make_run(folder: Path, *overrides: str) -> Run:
    return Run(compose(*TINY, *overrides), folder, torch.device("cpu"))


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in read_metrics(folder) if row.get(name)]


def score_of(folder: Path, run: Run) -> float:
    """What a saved policy reaches on the validation's starts."""
    (result,) = run_episodes(load_policy(folder).act, run.task_set, run.task_set.seen, 4, VALIDATION_SEED)
    return float(result.returns.mean())


def history(folder: Path) -> list[dict[str, str]]:
    """All that a run logged, digit for digit, but for what tells the time."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(folder)]


def policy_bytes(folder: Path, name: str = "policy") -> bytes:
    return (folder / name / "policy.safetensors").read_bytes()
