"""What is sent of a generation, and what workers make of it, without any cluster."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from somite.agents.rollout import ray_population as worker
from somite.agents.rollout.population import joined, shards_of
from somite.envs.errors import UserError

from .small import make


def test_rounding_on_the_way_is_the_policys_own() -> None:
    values = np.random.default_rng(0).standard_normal(70_000) * 10.0 ** np.arange(-40, 30).repeat(1000)
    assert np.array_equal(values.astype(np.float32), torch.as_tensor(values).to(torch.float32).numpy())


@pytest.mark.parametrize("task", ["sensors", "limbs"])
def test_a_worker_scores_as_this_machine_does(task: str) -> None:
    small = make(task)
    with torch.no_grad():  # what the search does not touch is sent, too
        for parameter in small.policy.parameters():
            parameter.add_(0.25)
        for name, value in small.policy.normalizer.named_buffers():
            if "mean" in name:
                value += 0.5
    setup = worker.setup_of(small.work)
    assert json.dumps({**setup, "tensors": None}), "plain values"
    simulator = worker.simulator_of(pickle.loads(pickle.dumps(setup)))
    sent = [small.search.ask()[shard].astype(np.float32) for shard in shards_of(12, 2)]
    found = joined([simulator.run(part, small.starts(), lambda: False) for part in sent])
    wanted = small.local()
    assert np.array_equal(found.returns, wanted.returns) and np.array_equal(found.lengths, wanted.lengths)
    simulator.close()


def test_a_body_that_is_another_one_elsewhere_is_told() -> None:
    small = make("limbs")
    setup = worker.setup_of(small.work)
    setup["hashes"]["cheetah_2_back"] = "0123"
    with pytest.raises(UserError, match="body cheetah_2_back is another one on .* wanted 0123"):
        worker.simulator_of(setup)


def test_a_worker_keeps_one_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_kept", {})
    made = []

    class Made:
        def __init__(self) -> None:
            made.append(self)
            self.closed = 0

        def close(self) -> None:
            self.closed += 1

    kept = [worker.kept(key, Made) for key in ("a", "a", "b", "a", "a")]
    assert [made.index(one) for one in kept] == [0, 0, 1, 2, 2]
    assert [one.closed for one in made] == [1, 1, 0]
