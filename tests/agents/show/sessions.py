"""Sessions of kept agents."""

from __future__ import annotations

from pathlib import Path

from somite.agents import load_policy
from somite.agents.agent import Agent
from somite.agents.evaluation.runs import task_of
from somite.agents.show.session import Session

KEPT = Path(__file__).parents[3] / "docs" / "results"
CALM = {"senses": {"shuffle": "never", "noise_channels": 0}, "starts": "fixed"}


def agent_of(run: str) -> Agent:
    """A kept agent, or ``bundled/<name>``."""
    return load_policy(run if run.startswith("bundled/") else KEPT / run)


def session_of(run: str, changes: dict | None = None, bodies: object = None) -> Session:
    agent = agent_of(run)
    return Session(agent, task_of(agent, changes), bodies, seed=7)
