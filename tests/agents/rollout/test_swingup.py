"""Whole episodes of the swing-up in C++ are those that torch makes step by step."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from somite.agents.policies import AttentionNeuron
from somite.agents.rollout import native, population
from somite.agents.rollout.population import Population, Scores
from somite.agents.rollout.stacked import get_parameters
from somite.envs.sensors import CartPoleSwingUp, Senses

compiled = pytest.mark.skipif(native.library() is None, reason="there is no C++ compiler here")

AGENTS = {
    "published": {},
    "biased": {"bias": True, "scaled": True, "head": 12, "rows": 20, "hidden": 5, "key_size": 7},
}


def scores(
    candidates: int | np.ndarray,
    agent: str = "published",
    steps: int = 40,
    episodes: int = 3,
    starts: list | None = None,
    shard_size: int | None = None,
    stop: object = lambda: False,
    **task: object,
) -> Scores | None:
    """Of these candidates, or of so many near the first parameters."""
    torch.manual_seed(0)
    senses = task.get("senses", Senses())
    policy = AttentionNeuron(senses.spec(), n_actions=1, n_recent=1, n_privileged=5, **AGENTS[agent])
    if isinstance(candidates, int):
        first = get_parameters(policy)
        noise = np.random.default_rng(0).standard_normal((candidates, len(first)))
        candidates = first + 0.3 * noise
    task_set = CartPoleSwingUp(max_episode_steps=steps, **task)
    made = Population(policy, task_set, len(candidates), episodes, 1, shard_size)
    found = made.evaluate(candidates, starts or [[1, i] for i in range(episodes)], stop)
    made.close()
    return found


@compiled
@pytest.mark.parametrize("agent", AGENTS)
def test_it_is_what_torch_makes_step_by_step(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over forty steps, in which rounding has not yet grown."""
    fast = scores(21, agent)
    called = []
    monkeypatch.setattr(population, "library", lambda: called.append(1))
    slow = scores(21, agent)
    assert called
    np.testing.assert_allclose(fast.returns, slow.returns, rtol=1e-4, atol=1e-4)
    assert not np.array_equal(fast.returns, slow.returns), "another program"
    assert np.array_equal(fast.lengths, slow.lengths) and not fast.diverged.any()
    assert fast.lengths.min() < 40 == fast.lengths.max()


@compiled
def test_what_is_beside_an_episode_changes_nothing_to_the_last_bit() -> None:
    whole, parts = scores(19, steps=1000), scores(19, steps=1000, shard_size=4)
    assert np.array_equal(whole.returns, parts.returns) and np.array_equal(whole.lengths, parts.lengths)


@compiled
def test_candidates_may_have_starts_of_their_own() -> None:
    same = scores(4, starts=[[5, 0], [5, 1], [5, 2]])
    own = scores(4, starts=[[5 + row // 2, i] for row in range(4) for i in range(3)], shard_size=3)
    assert np.array_equal(own.returns[:2], same.returns[:2])
    assert not np.isclose(own.returns[2:], same.returns[2:]).any()


@compiled
def test_an_action_that_is_not_finite_ends_an_episode_without_a_reward() -> None:
    policy = AttentionNeuron(Senses().spec(), n_actions=1, n_recent=1, n_privileged=5)
    candidates = np.zeros((3, len(get_parameters(policy))))
    candidates[1] = np.nan
    found = scores(candidates)
    assert found.diverged[1].all() and not found.diverged[[0, 2]].any()
    assert (found.lengths[1] == 1).all() and (found.returns[1] == 0).all()


@compiled
def test_it_stops_when_asked() -> None:
    asked = []
    assert scores(4, stop=lambda: bool(asked.append(1)) or len(asked) > 1) is None


@compiled
@pytest.mark.parametrize("task", [{"senses": Senses(stuck=1)}, {"sensor_scales": [1, 1, 1, 1, 2.0]}])
def test_a_task_that_is_otherwise_is_left_to_torch(task: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(population, "library", lambda: pytest.fail("asked for"))
    assert scores(2, **task).returns.shape == (2, 1, 3)


@pytest.mark.parametrize("compiler", ["none", "broken"])
def test_without_a_compiler_torch_does_it_and_that_is_told(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'no such target' >&2\ntest $1 = --version\n")
    broken.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "COMPILERS", (str(broken) if compiler == "broken" else "no-such-compiler",))
    with caplog.at_level(logging.INFO):
        assert native.library.__wrapped__() is None
    assert "3 times slower" in caplog.text and ("no such target" in caplog.text) == (compiler == "broken")
