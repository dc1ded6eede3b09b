"""Small networks run fastest on one thread, above all beside other work."""

from __future__ import annotations

import pytest
import torch

from somite.agents.training.loop import Run

from .runs import cma_run, limb_run

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def limbs(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of PPO on two cheetahs that has made all its steps, with pictures."""
    run = limb_run(tmp_path_factory.mktemp("dashboard") / "limbs", "zero_shot.pictures=true")
    run.learn()
    return run


@pytest.fixture(scope="session")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of CMA-ES on the swing-up that has made all its generations."""
    run = cma_run(tmp_path_factory.mktemp("dashboard") / "evolved")
    run.learn()
    return run
