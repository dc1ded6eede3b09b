"""A run of CMA-ES whose task is simulated on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from somite.envs.errors import UserError
from tests.agents.cma_runs import column, make_run


def test_a_search_on_the_device_is_the_search_on_the_host(tmp_path: Path) -> None:
    runs = {}
    for simulation in ("cpu", "torch"):
        runs[simulation] = make_run(
            tmp_path / simulation, f"simulation={simulation}", "algorithm.generations=3"
        )
        runs[simulation].learn()
    assert [run.task_set.simulation for run in runs.values()] == ["cpu", "torch"]
    assert runs["torch"].learner.shard_size == 8
    for name in ("cma/best", "cma/mean", "cma/median", "rollout/ep_len_mean"):
        host, device = (column(tmp_path / simulation, name) for simulation in runs)
        assert len(host) == 3
        np.testing.assert_allclose(device, host, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(runs["torch"].learner.search.mean, runs["cpu"].learner.search.mean, atol=1e-6)


def test_a_cluster_simulates_on_its_processors(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"simulation=torch.*compute=ray simulates on the processors"):
        make_run(tmp_path, "compute=ray", "simulation=torch")
