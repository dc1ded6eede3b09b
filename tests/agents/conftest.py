from __future__ import annotations

import pytest
import torch

from somite.agents.training.loop import Run

from .runs import make_run


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small networks run fastest on one, above all beside other work; another test may have set more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny run on limbs that has made all its steps; whoever goes on with it copies its folder."""
    torch.set_num_threads(1)
    run = make_run(tmp_path_factory.mktemp("run") / "learnt")
    run.learn()
    return run
