"""What is sent of a generation, and what workers make of it, without any cluster."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from somite.agents.rollout import ray_population as worker
from somite.agents.rollout.candidates import Sent, drawn_again, received
from somite.agents.rollout.population import joined, shards_of
from somite.envs.errors import UserError

from .small import make

FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize("mode", ["algorithm.mirrored=true", "algorithm.mirrored=false"])
@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_seeds_give_the_very_candidates(mode: str, size: int) -> None:
    small = make("sensors", mode)
    for _ in range(4):  # from the third generation on, two are made by pycma's own way
        candidates, recipe = small.search.ask(), small.search.recipe()
        shards = shards_of(12, size)
        seeds = drawn_again(candidates, shards, recipe, FLOAT)
        kept = replace(recipe, drawn=recipe.drawn[:0])
        for shard, sent in zip(shards, seeds, strict=True):
            wanted = candidates[shard].astype(np.float32)
            assert np.array_equal(received(sent, kept), wanted)
            assert np.array_equal(received(Sent(wanted), None), wanted)
        made = 12 - len(recipe.drawn.seeds)
        assert sum(len(sent.values) for sent in seeds) == made == 2 * (small.search.generation > 0)
        small.search.tell(-np.square(candidates - 1).sum(1))
    assert Sent(candidates.astype(FLOAT)).nbytes == 12 * 913 * 4
    assert sum(sent.nbytes for sent in seeds) == 2 * 913 * 4 + 10 * 9
    assert recipe.nbytes == 2 * 913 * 8 + 8


def test_seeds_that_do_not_give_the_candidates_are_not_sent() -> None:
    small = make()
    candidates, recipe = small.search.ask().copy(), small.search.recipe()
    shards = shards_of(12, 4)
    candidates[7, 500] = np.nextafter(candidates[7, 500], 1)
    assert drawn_again(candidates, shards, recipe, FLOAT) is None
    small.search.ask()
    assert drawn_again(small.search.ask(), shards, replace(recipe, sigma=0.2), FLOAT) is None


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
    candidates, recipe = small.search.ask(), small.search.recipe()
    shards = shards_of(12, 2)
    seeds = drawn_again(candidates, shards, recipe, FLOAT)
    found = joined([worker.simulate(simulator, sent, recipe, small.starts()) for sent in seeds])
    wanted = small.local()
    assert np.array_equal(found.returns, wanted.returns) and np.array_equal(found.lengths, wanted.lengths)
    simulator.close()


def test_a_body_that_is_another_one_elsewhere_is_told() -> None:
    small = make("limbs")
    setup = worker.setup_of(small.work)
    setup["hashes"]["cheetah_2_back"] = "0123"
    with pytest.raises(UserError, match="body cheetah_2_back is another one on .* wanted 0123"):
        worker.simulator_of(setup)


def test_a_worker_keeps_one_thing_of_a_kind() -> None:
    made = []
    for key in ("a", "a", "b", "a"):
        worker.kept("test", key, lambda: made.append(1) or len(made))
    assert len(made) == 3
    assert worker.kept("test", "a", lambda: 5) == 3
