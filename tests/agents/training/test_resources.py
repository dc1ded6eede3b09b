"""What runs and evaluations take of a machine: ``threads`` bounds it, and nothing is left open."""

from __future__ import annotations

import weakref
from pathlib import Path

import mujoco.batch
import pytest
import torch
from gymnasium.vector import VectorEnv

from somite.agents import device
from somite.agents.evaluation import evaluate as evaluation
from somite.agents.training.loop import Run
from somite.envs import cores
from somite.envs.errors import UserError
from somite.envs.sensors import SensorEnv
from tests.agents.runs import TINY, compose

HOPPER = ("env=gymnasium", "env.id=Hopper-v5", "env.max_episode_steps=10", "agent=sensor_transformer")
LEARN = tuple(setting for setting in TINY if setting.startswith(("algorithm.", "agent.", "device")))
ROWS = tuple(setting for setting in LEARN if "n_epochs" not in setting)
SEARCH = (
    *("algorithm=cma_es", "algorithm.population=4", "algorithm.generations=1", "algorithm.episodes=2"),
    *("algorithm.diagonal=true", "agent.width=16"),
)


class Watch:
    """Environments of sensors that were made, and the threads of their simulations."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads, self.made = [], weakref.WeakSet()
        batch, make = mujoco.batch.Batch, SensorEnv.__init__

        def watched_batch(*arguments, nthread: int, **options):
            self.threads.append(nthread)
            return batch(*arguments, nthread=1, **options)

        def watched_make(env: VectorEnv, *arguments, **options) -> None:
            make(env, *arguments, **options)
            self.made.add(env)

        monkeypatch.setattr(mujoco.batch, "Batch", watched_batch)
        monkeypatch.setattr(SensorEnv, "__init__", watched_make)

    def check(self, threads: int) -> None:
        assert self.threads and max(self.threads) == threads, self.threads
        assert all(env.closed for env in self.made)
        self.threads.clear()


def test_threads_bound_all_and_all_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (cores, device):
        monkeypatch.setattr(module, "available_cores", lambda: 64)
    watch, host = Watch(monkeypatch), torch.device("cpu")
    before = torch.get_num_threads()
    try:
        run = tmp_path / "teacher"
        Run(compose(*HOPPER, *LEARN, "threads=3"), run, host).learn()
        watch.check(3)
        clone = ("algorithm=clone", f"algorithm.teacher={run}", *ROWS, "threads=2")
        Run(compose(*HOPPER, *clone), tmp_path / "student", host).learn()
        watch.check(2)
        Run(compose(*HOPPER, *SEARCH, "threads=1"), tmp_path / "found", host).learn()
        watch.check(1)
        asked = (f"run={run}", "episodes=3", "device=cpu", "threads=1")
        evaluation.evaluate(compose(*asked, name="evaluate"))
        watch.check(1)
        evaluation.evaluate(compose(*asked, "suite=permutation", name="evaluate"))
        watch.check(1)
        with pytest.raises(UserError, match="workers=2 are more than threads=1"):
            evaluation.evaluate(compose(*asked, "suite=permutation", "workers=2", name="evaluate"))
    finally:
        torch.set_num_threads(before)
